from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2.hints import Config, Shape, Size, Tensor, TensorTree
from keras_vqvae2.validation import check_positive


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class MaskedConv2D(keras.layers.Layer):
    """A convolution that sees only what comes earlier in raster order.

    The kernel is centred on the position it computes. `mask_type="A"` leaves out that position and
    all later ones, `"B"` only the later ones; `None` is an ordinary convolution ("same" padding).
    The rows below the centre, which a mask would always zero, are neither stored nor convolved, and
    the rest of the centre's row is masked when it is used, never assigned, so an optimizer may do
    to it what it likes.

    Beside `call`, which computes whole maps, `above`, `start` and `step` compute one position after
    the other (`keras_vqvae2.decoding`): the taps on finished rows for a whole row at a time, the
    taps on the current row from the last few columns.

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
        super().__init__(**kwargs)
        size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
        if len(size) != 2 or any(s < 1 or s % 2 != 1 for s in size):
            raise ValueError(
                f"Expected an odd integer or two of them. Received: kernel_size={kernel_size}"
            )
        if mask_type not in ("A", "B", None):
            raise ValueError(f"Expected 'A', 'B' or None. Received: mask_type={mask_type!r}")
        check_positive(filters=filters)
        self.filters = filters
        self.kernel_size = size
        self.mask_type = mask_type
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

        self.rows_above, self.reach = size[0] // 2, size[1] // 2
        self.rows_below = self.rows_above if mask_type is None else 0
        # Columns of the current row that are used: those to the left, the centre, those right.
        self.columns_used = {"A": self.reach, "B": self.reach + 1, None: size[1]}[mask_type]

    def build(self, input_shape: Shape) -> None:
        shape = (*self._taps(), input_shape[-1], self.filters)
        self.kernel = self.add_weight(
            name="kernel", shape=shape, initializer=self.kernel_initializer
        )
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")
        mask = np.ones((*shape[:2], 1, 1), "float32")
        mask[self.rows_above, self.columns_used :] = 0.0
        self._mask = mask

    def _taps(self):
        return self.rows_above + 1 + self.rows_below, self.kernel_size[1]

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
        return ops.conv(padded, self._masked_kernel(), padding="valid") + self.bias

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.filters)

    # === One position after the other ===

    def cache(self, batch: int, columns: int, channels: int) -> Tensor:
        """Inputs of the last `rows_above` finished rows: before the first row all zero."""
        return ops.zeros((batch, self.rows_above, columns, channels), self.compute_dtype)

    def step_weights(self) -> TensorTree:
        """The weights as matrices: `"above"` for finished rows, `"row"` for the current one."""
        kernel = ops.cast(self.kernel, self.compute_dtype)
        return {
            # (rows_above * k * C, F) and (columns_used * C, F)
            "above": ops.reshape(kernel[: self.rows_above], (-1, self.filters)),
            "row": ops.reshape(kernel[self.rows_above, : self.columns_used], (-1, self.filters)),
            "bias": ops.cast(self.bias, self.compute_dtype),
        }

    def above(self, weights: TensorTree, cache: Tensor) -> Tensor:
        """What the finished rows and the bias add to the coming row.

        Args:
            weights: What `step_weights` returned.
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

    def start(self, batch: int, channels: int) -> Tensor:
        """Inputs of the `reach` columns to the left of the first one. `(batch, reach * C)`."""
        return ops.zeros((batch, self.reach * channels), self.compute_dtype)

    def step(
        self, weights: TensorTree, left: Tensor, above: Tensor, inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Advances by one column.

        Args:
            weights: What `step_weights` returned.
            left: Inputs of the columns before, shape `(batch, reach * channels)`.
            above: This column of what `above` returned, shape `(batch, filters)`.
            inputs: The column's inputs, shape `(batch, channels)`. The mask `"A"` does not look.

        Returns:
            A tuple `(outputs, left)`: shape `(batch, filters)`, and `left` for the next column.
        """
        known = ops.concatenate([left, inputs], axis=-1)  # (B, (reach + 1) * C)
        seen = left if self.mask_type == "A" else known
        return above + ops.matmul(seen, weights["row"]), known[:, inputs.shape[-1] :]

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": list(self.kernel_size),
            "mask_type": self.mask_type,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
