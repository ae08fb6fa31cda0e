from collections.abc import Sequence
from typing import Any

import keras

from keras_vqvae2.hints import Config, Size
from keras_vqvae2.validation import check_positive


class MaskedKernel(keras.layers.Layer):
    """The kernel that `MaskedConv2D` and `CodeConv2D` share, and where its taps lie.

    What a mask would always zero is not stored: the rows below the centre, and of a kernel of one
    row what lies to the right.

    Args:
        filters: As in `MaskedConv2D`.
        kernel_size: As in `MaskedConv2D`.
        mask_type: As in `MaskedConv2D`.
        kernel_initializer: As in `MaskedConv2D`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        rows_above: Rows of taps above the centre.
        rows_below: Rows of taps below the centre.
        reach: Columns of taps to the left of the centre.
        columns_right: Columns of taps to the right of it: as many, or none where the kernel is one
            row and masked.
        columns_used: Of the centre's row, the taps that the mask leaves: the first ones.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Size,
        mask_type: str | None,
        kernel_initializer: str | keras.Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        size = tuple(kernel_size) if isinstance(kernel_size, Sequence) else 2 * (kernel_size,)
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
        self.columns_right = self.reach if mask_type is None or self.rows_above else 0
        # Columns of the current row that are used: those to the left, the centre, those right.
        self.columns_used = {"A": self.reach, "B": self.reach + 1, None: size[1]}[mask_type]

    def _add_kernel(self, channels):
        rows = self.rows_above + 1 + self.rows_below
        self.kernel = self.add_weight(
            name="kernel",
            shape=(rows, self.reach + 1 + self.columns_right, channels, self.filters),
            initializer=self.kernel_initializer,
        )
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": list(self.kernel_size),
            "mask_type": self.mask_type,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
