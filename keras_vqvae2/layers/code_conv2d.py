from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Config, Shape, Size, Tensor, TensorTree
from keras_vqvae2.layers.masked_kernel import MaskedKernel


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class CodeConv2D(MaskedKernel):
    """A (masked) convolution of one-hot codes, computed without the one-hot maps.

    A tap of the kernel is a table with a row a code, so that the convolution is a sum of looked-up
    rows. Positions outside the map, and codes of -1, add nothing.

    Args:
        filters: Positive integer, output channels.
        kernel_size: As in `MaskedConv2D`.
        num_embeddings: Positive integer, number of codes.
        mask_type: As in `MaskedConv2D`.
        **kwargs: `kernel_initializer`, and arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Integer codes of shape `(batch, rows, columns)`.

    Returns:
        Tensor of shape `(batch, rows, columns, filters)`.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    conv = keras_vqvae2.layers.CodeConv2D(8, 3, num_embeddings=512, mask_type="A")
    print(conv(np.zeros((1, 16, 16), "int32")).shape)  # (1, 16, 16, 8)
    ```

    Reference:
        - van den Oord et al. 2016, "Pixel Recurrent Neural Networks", arXiv 1601.06759.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Size,
        num_embeddings: int,
        mask_type: str | None = "A",
        **kwargs: Any,
    ) -> None:
        super().__init__(filters, kernel_size, mask_type, **kwargs)
        self.num_embeddings = num_embeddings

    def build(self, input_shape: Shape) -> None:
        self._add_kernel(self.num_embeddings)

    def call(self, inputs: Tensor) -> Tensor:
        rows, columns = inputs.shape[1:]
        codes = ops.pad(
            ops.cast(inputs, "int32"),
            ((0, 0), (self.rows_above, self.rows_below), (self.reach, self.columns_right)),
            constant_values=-1,
        )
        tables = self._tables()
        bias = ops.cast(self.bias, self.compute_dtype)
        total = ops.broadcast_to(bias, (*ops.shape(inputs), self.filters))
        for row, column in self._used_taps():
            window = codes[:, row : row + rows, column : column + columns]  # (B, H, W)
            total = total + ops.take(tables[row][column], window + 1, axis=0)  # (B, H, W, F)
        return total

    def _used_taps(self):
        rows, columns = self.kernel.shape[:2]
        return [
            (row, column)
            for row in range(rows)
            for column in range(self.columns_used if row == self.rows_above else columns)
        ]

    def _tables(self) -> list[list[Tensor]]:
        """A table `(num_embeddings + 1, filters)` for each row and column of taps.

        The first of its rows is zero and stands for -1, no code.
        """
        kernel = ops.pad(
            ops.cast(self.kernel, self.compute_dtype), ((0, 0), (0, 0), (1, 0), (0, 0))
        )
        rows, columns = self.kernel.shape[:2]
        return [[kernel[row, column] for column in range(columns)] for row in range(rows)]

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor((*inputs.shape, self.filters), self.compute_dtype)

    # === One position after the other ===

    def _cache(self, batch: int, columns: int) -> Tensor:
        """Codes of the last `rows_above` finished rows: before the first row all -1."""
        return ops.full((batch, self.rows_above, columns), -1, "int32")

    def _step_weights(self) -> TensorTree:
        """The tables of all taps, and the bias."""
        return {"tables": self._tables(), "bias": ops.cast(self.bias, self.compute_dtype)}

    def _above(self, weights: TensorTree, cache: Tensor) -> Tensor:
        """As `MaskedConv2D._above`, of codes of shape `(batch, rows_above, columns)`."""
        columns = cache.shape[-1]
        padded = ops.pad(cache, ((0, 0), (0, 0), (self.reach, self.reach)), constant_values=-1)
        total = ops.broadcast_to(weights["bias"], (cache.shape[0], columns, self.filters))
        for row in range(self.rows_above):
            for column in range(self.kernel_size[1]):
                window = padded[:, row, column : column + columns]  # (B, W)
                total = total + ops.take(weights["tables"][row][column], window + 1, axis=0)
        return total

    def _start(self, batch: int) -> Tensor:
        """Codes of the `reach` columns to the left of the first one. `(batch, reach)`."""
        return ops.full((batch, self.reach), -1, "int32")

    def _step(self, weights: TensorTree, left: Tensor, above: Tensor) -> Tensor:
        """Outputs of a column, shape `(batch, filters)`, from the codes to its left."""
        for column, table in enumerate(weights["tables"][self.rows_above][: self.reach]):
            above = above + ops.take(table, left[:, column] + 1, axis=0)
        return above

    def get_config(self) -> Config:
        return {**super().get_config(), "num_embeddings": self.num_embeddings}
