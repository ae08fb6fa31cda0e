from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2.hints import Config, Shape, Size, Tensor, TensorTree
from keras_vqvae2.layers.masked_kernel import MaskedKernel
from keras_vqvae2.validation import check_positive


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class MaskedConv2D(MaskedKernel):
    """A convolution that sees only what comes earlier in raster order.

    The kernel is centred on the position it computes. `mask_type="A"` leaves out that position and
    all later ones, `"B"` only the later ones; `None` is an ordinary convolution ("same" padding).
    The rows below the centre, which a mask would always zero, are neither stored nor convolved, and
    the rest of the centre's row is masked when it is used, never assigned, so an optimizer may do
    to it what it likes. A kernel of one row stores nothing to the right of its centre either.

    With `colours`, channels fall into as many equal groups in a row, such as red, green and blue,
    which are drawn one after the other at each position. At the centre a group then sees with
    `"A"` the groups before it, with `"B"` also its own; elsewhere all see all.

    Args:
        filters: Positive integer, output channels.
        kernel_size: Odd integer or `(rows, columns)`, both odd, of the whole centred kernel.
        mask_type: `"A"`, `"B"` or `None`.
        kernel_initializer: As in `keras.layers.Conv2D`.
        colours: Positive integer, groups of channels. Defaults to 1.
        gates: Positive integer: the output channels are so many parts, such as the two of a gate,
            and each has all groups.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Tensor of shape `(batch, rows, columns, channels)`.

    Returns:
        Tensor of shape `(batch, rows, columns, filters)`.

    Raises:
        ValueError: If a size is not positive or even, the mask type is another, or channels do not
            divide into the groups.

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
        colours: int = 1,
        gates: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(filters, kernel_size, mask_type, kernel_initializer, **kwargs)
        check_positive(colours=colours, gates=gates)
        self.colours = colours
        self.gates = gates
        _check_groups("filters", filters, colours * gates)

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[-1]
        _check_groups("input channels", channels, self.colours)
        self._add_kernel(channels)
        self._mask: np.ndarray | None = None
        if self.mask_type is None:
            return
        # A mask that all channels share is made once, whatever their number.
        part = self.filters // self.gates if self.colours > 1 else 1
        groups = np.arange(channels if self.colours > 1 else 1)
        groups = groups * self.colours // len(groups)  # of each input channel
        own = np.tile(np.arange(part) * self.colours // part, self.gates if self.colours > 1 else 1)
        seen = groups[:, None] < own if self.mask_type == "A" else groups[:, None] <= own  # (C, F)
        self._mask = np.ones((*self.kernel.shape[:2], *seen.shape), "float32")
        self._mask[self.rows_above, self.reach + 1 :] = 0.0
        self._mask[self.rows_above, self.reach] = seen

    def _masked_kernel(self):
        kernel = ops.convert_to_tensor(self.kernel)
        return kernel if self._mask is None else kernel * ops.cast(self._mask, kernel.dtype)

    def call(self, inputs: Tensor) -> Tensor:
        if self.kernel_size == (1, 1):
            kernel = ops.reshape(self._masked_kernel(), (-1, self.filters))  # (C, F)
            return ops.matmul(inputs, kernel) + self.bias
        padded = ops.pad(
            inputs,
            ((0, 0), (self.rows_above, self.rows_below), (self.reach, self.columns_right), (0, 0)),
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
        """The weights as matrices: `"above"` for finished rows, `"row"` for the current one.

        With colours `"row"` is a list: for each group what makes its outputs.
        """
        kernel = ops.cast(self.kernel, self.compute_dtype)
        channels = kernel.shape[2]
        # (rows_above * k * C, F) and ((reach + 1) * C, F), of which "A" leaves out the centre
        above = ops.reshape(kernel[: self.rows_above], (-1, self.filters))
        row = ops.reshape(kernel[self.rows_above, : self.reach + 1], (-1, self.filters))
        rows = []
        for colour in range(self.colours):
            groups = colour if self.mask_type == "A" else colour + 1
            seen = self.reach * channels + groups * channels // self.colours
            rows.append(self._of_colour(row[:seen], colour))
        return {
            "above": above,
            "row": rows if self.colours > 1 else rows[0],
            "bias": ops.cast(self.bias, self.compute_dtype),
        }

    def _of_colour(self, x: Tensor, colour: int) -> Tensor:
        """Of `(n, filters)` the channels of a group: `(n, filters / colours)`."""
        if self.colours == 1:
            return x
        size = self.filters // self.gates // self.colours
        parts = ops.reshape(x, (-1, self.gates, self.colours, size))[:, :, colour]
        return ops.reshape(parts, (-1, self.gates * size))

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

    def _step_colour(
        self, weights: TensorTree, left: Tensor, above: Tensor, known: Sequence[Tensor], colour: int
    ) -> Tensor:
        """Outputs of a group of channels at a column; `left` stays for the next group.

        Args:
            weights: What `_step_weights` returned.
            left: As in `_step`.
            above: As in `_step`.
            known: Inputs of the column, a `(batch, channels / colours)` for each group that the
                mask lets this one see.
            colour: The group's number.

        Returns:
            Tensor of shape `(batch, filters / colours)`.
        """
        row = weights["row"][colour] if self.colours > 1 else weights["row"]
        seen = ops.concatenate([left, *known], axis=-1) if known or left.shape[-1] else None
        above = self._of_colour(above, colour)
        return above if seen is None else above + ops.matmul(seen, row)

    def get_config(self) -> Config:
        return {**super().get_config(), "colours": self.colours, "gates": self.gates}


def _check_groups(what, channels, groups):
    if channels % groups:
        raise ValueError(f"Expected a multiple of {groups} {what}. Received: {channels}")
