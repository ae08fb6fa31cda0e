from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2.hints import Shape, Size, Tensor, TensorTree
from keras_vqvae2.layers.masked_kernel import MaskedKernel


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class MaskedConv2D(MaskedKernel):
    """A convolution that sees only what comes earlier in raster order.

    The kernel is centred on the position it computes. `mask_type="A"` leaves out that position and
    all later ones, `"B"` only the later ones; `None` is an ordinary convolution ("same" padding).
    The rows below the centre, which a mask would always zero, are neither stored nor convolved, and
    the rest of the centre's row is masked when it is used, never assigned, so an optimizer may do
    to it what it likes.

    Args:
        filters: Positive integer, output channels.
        kernel_size: Odd integer or `(rows, columns)`, both odd, of the whole centred kernel.
        mask_type: `"A"`, `"B"` or `None`.
        kernel_initializer: As in `keras.layers.Conv2D`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Tensor of shape `(batch, rows, columns, channels)`.

    Returns:
        Tensor of shape `(batch, rows, columns, filters)`.

    Raises:
        ValueError: If a size is not positive or even, or the mask type is another.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    conv = keras_vqvae2.layers.MaskedConv2D(8, kernel_size=5, mask_type="A")
    print(conv(np.ones((1, 16, 16, 4), "float32")).shape)  # (1, 16, 16, 8)
    print(conv.kernel.shape)  # (3, 5, 4, 8)
    ```

    Reference:
        - van den Oord et al. 2016, "Pixel Recurrent Neural Networks", arXiv 1601.06759, section
          3.4 (masks A and B).
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Size,
        mask_type: str | None = "B",
        kernel_initializer: str | keras.Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(filters, kernel_size, mask_type, kernel_initializer, **kwargs)

    def build(self, input_shape: Shape) -> None:
        self._add_kernel(input_shape[-1])
        mask = np.ones((*self.kernel.shape[:2], 1, 1), "float32")
        mask[self.rows_above, self.columns_used :] = 0.0
        self._mask = mask

    def _masked_kernel(self):
        kernel = ops.convert_to_tensor(self.kernel)
        return kernel * ops.cast(self._mask, kernel.dtype) if self.mask_type else kernel

    def call(self, inputs: Tensor) -> Tensor:
        if self.kernel_size == (1, 1):
            kernel = ops.reshape(self._masked_kernel(), (-1, self.filters))  # (C, F)
            return ops.matmul(inputs, kernel) + self.bias
        padded = ops.pad(
            inputs,
            ((0, 0), (self.rows_above, self.rows_below), (self.reach, self.reach), (0, 0)),
        )
        outputs = ops.conv(
            padded, self._masked_kernel(), padding="valid", data_format="channels_last"
        )
        return outputs + self.bias

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.filters)

    # === One position after the other: for `decoding.Steps` ===
    # The taps on finished rows for a whole row at a time, those on the current row from the last
    # few columns.

    def _cache(self, batch: int, columns: int, channels: int) -> Tensor:
        """Inputs of the last `rows_above` finished rows: before the first row all zero."""
        return ops.zeros((batch, self.rows_above, columns, channels), self.compute_dtype)

    def _step_weights(self) -> TensorTree:
        """The weights as matrices: `"above"` for finished rows, `"row"` for the current one."""
        kernel = ops.cast(self.kernel, self.compute_dtype)
        return {
            # (rows_above * k * C, F) and (columns_used * C, F)
            "above": ops.reshape(kernel[: self.rows_above], (-1, self.filters)),
            "row": ops.reshape(kernel[self.rows_above, : self.columns_used], (-1, self.filters)),
            "bias": ops.cast(self.bias, self.compute_dtype),
        }

    def _above(self, weights: TensorTree, cache: Tensor) -> Tensor:
        """What the finished rows and the bias add to the coming row.

        Args:
            weights: What `_step_weights` returned.
            cache: Inputs of the last rows, shape `(batch, rows_above, columns, channels)`.

        Returns:
            Tensor of shape `(batch, columns, filters)`.
        """
        columns = cache.shape[2]
        if self.rows_above == 0:
            return ops.broadcast_to(weights["bias"], (cache.shape[0], columns, self.filters))
        padded = ops.pad(cache, ((0, 0), (0, 0), (self.reach, self.reach), (0, 0)))
        taps = [
            padded[:, row, column : column + columns]  # (B, W, C)
            for row in range(self.rows_above)
            for column in range(self.kernel_size[1])
        ]
        return ops.matmul(ops.concatenate(taps, axis=-1), weights["above"]) + weights["bias"]

    def _start(self, batch: int, channels: int) -> Tensor:
        """Inputs of the `reach` columns to the left of the first one. `(batch, reach * C)`."""
        return ops.zeros((batch, self.reach * channels), self.compute_dtype)

    def _step(
        self, weights: TensorTree, left: Tensor, above: Tensor, inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Advances by one column.

        Args:
            weights: What `_step_weights` returned.
            left: Inputs of the columns before, shape `(batch, reach * channels)`.
            above: This column of what `_above` returned, shape `(batch, filters)`.
            inputs: The column's inputs, shape `(batch, channels)`. The mask `"A"` does not look.

        Returns:
            A tuple `(outputs, left)`: shape `(batch, filters)`, and `left` for the next column.
        """
        known = ops.concatenate([left, inputs], axis=-1)  # (B, (reach + 1) * C)
        seen = left if self.mask_type == "A" else known
        return above + ops.matmul(seen, weights["row"]), known[:, inputs.shape[-1] :]
