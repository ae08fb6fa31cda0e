from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Config, Shape, Tensor, TensorTree

PACKAGE = "keras_vqvae2"
LEAST_VARIANCE = 1e-8  # of a feature that a start may scale to 1: what does not vary stays


class WeightNorm(keras.layers.Layer):
    """A kernel `g V / |V|` and a bias, and their data-dependent start.

    The norm is taken for each output feature. While `starting` is set, a call of the layer outside
    of any step first computes with g = 1 and no bias, then sets

    ```
    g = init_scale / sqrt(variance + 1e-10)          b = -mean g
    ```

    of each output feature over batch and positions, so that what it returns has mean 0 and
    deviation `init_scale`. A feature that does not vary at all keeps g = init_scale.

    Args:
        filters: Positive integer, output features.
        init_scale: Deviation of the outputs after the start.

    Reference:
        - Salimans, Kingma 2016, "Weight Normalization", arXiv 1602.07868, sections 2 and 3.
    """

    starting = False

    def __init__(self, filters: int, init_scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.init_scale = init_scale

    def _add_weights(self, size, channels):
        # Without autocast: norms want all digits, and the kernel is rounded once, at its end.
        self.v = self.add_weight(
            name="v",
            shape=(*size, channels, self.filters),
            initializer=keras.initializers.RandomNormal(0.0, 0.05),
            autocast=False,
        )
        self.g = self.add_weight(
            name="g", shape=(self.filters,), initializer="ones", autocast=False
        )
        self.bias = self.add_weight(
            name="bias", shape=(self.filters,), initializer="zeros", autocast=False
        )

    def _direction(self):
        """`V / |V|`, float32."""
        v = ops.cast(self.v, "float32")
        squares = ops.sum(ops.square(v), axis=(0, 1, 2))
        return v / ops.sqrt(ops.maximum(squares, 1e-12))

    def _kernel(self):
        """The kernel in the compute dtype."""
        return ops.cast(self._direction() * ops.cast(self.g, "float32"), self.compute_dtype)

    def _bias(self):
        return ops.cast(self.bias, self.compute_dtype)

    def _linear(self, inputs, kernel):
        raise TypeError(f"{type(self).__name__} does not say what it computes.")

    def _before_cropping(self, inputs, outputs, kernel):
        """What the statistics of the start are taken of."""
        return outputs

    def call(self, inputs: Tensor) -> Tensor:
        if not self.starting:
            return self._linear(inputs, self._kernel()) + self._bias()
        direction = ops.cast(self._direction(), self.compute_dtype)
        outputs = self._linear(inputs, direction)
        seen = ops.cast(self._before_cropping(inputs, outputs, direction), "float32")
        outputs = ops.cast(outputs, "float32")
        axes = (0, 1, 2)
        mean = _over_replicas(ops.mean(seen, axis=axes))
        variance = _over_replicas(ops.mean(ops.square(seen - mean), axis=axes))
        scale = self.init_scale / ops.sqrt(variance + 1e-10)
        scale = ops.where(variance > LEAST_VARIANCE, scale, self.init_scale)
        self.g.assign(scale)
        self.bias.assign(-mean * scale)
        return ops.cast((outputs - mean) * scale, self.compute_dtype)

    def get_config(self) -> Config:
        return {**super().get_config(), "filters": self.filters, "init_scale": self.init_scale}


def _over_replicas(x):
    """The mean over the processes of PyTorch, of which each starts from its own batch."""
    return backend.replica_sum(x) / backend.replica_count()


@keras.saving.register_keras_serializable(package=PACKAGE)
class WeightNormConv2D(WeightNorm):
    """A weight-normed convolution of rows up to the present one.

    Position `(i, j)` sees rows `i - rows + 1` to `i`. `side="both"`: as many columns to each side;
    `"left"`: columns `j - columns + 1` to `j`. With stride 2 position `(i, j)` stands for
    `(2i, 2j)`.

    Args:
        filters: Positive integer.
        kernel_size: `(rows, columns)`.
        side: `"both"` or `"left"`.
        strides: 1 or 2.
        init_scale: As in `WeightNorm`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Sequence[int] = (1, 1),
        side: str = "left",
        strides: int = 1,
        init_scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(filters, init_scale, **kwargs)
        self.kernel_size = tuple(kernel_size)
        self.side = side
        self.strides = strides
        columns = self.kernel_size[1]
        self.left = columns // 2 if side == "both" else columns - 1
        self.right = columns - 1 - self.left

    def build(self, input_shape: Shape) -> None:
        self._add_weights(self.kernel_size, input_shape[-1])

    def _linear(self, inputs, kernel):
        if self.kernel_size == (1, 1) and self.strides == 1:
            return ops.matmul(inputs, ops.reshape(kernel, kernel.shape[2:]))
        above = self.kernel_size[0] - 1
        return self._valid(ops.pad(inputs, ((0, 0), (above, 0), (0, 0), (0, 0))), kernel)

    def _valid(self, inputs, kernel):
        padded = ops.pad(inputs, ((0, 0), (0, 0), (self.left, self.right), (0, 0)))
        return ops.conv(
            padded, kernel, strides=self.strides, padding="valid", data_format="channels_last"
        )

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        batch, rows, columns, _ = inputs.shape
        shape = (batch, rows // self.strides, columns // self.strides, self.filters)
        return keras.KerasTensor(shape, self.compute_dtype)

    # === One row or position after the other ===

    def _step_weights(self) -> TensorTree:
        """The kernel, and as matrices: of rows above, of columns to the left, of the position."""
        kernel = self._kernel()
        present = kernel[-1]  # (columns, C, F)
        return {
            "kernel": kernel,
            "above": ops.reshape(kernel[:-1], (-1, self.filters)),
            "row": ops.reshape(present[: self.left + 1], (-1, self.filters)),
            "bias": self._bias(),
        }

    def _of_rows(self, weights: TensorTree, rows: Tensor) -> Tensor:
        """A row from the last rows and itself: `(batch, rows, W, C)` to `(batch, W, filters)`."""
        return self._valid(rows, weights["kernel"])[:, 0] + weights["bias"]

    def _above(self, weights: TensorTree, row: Tensor) -> Tensor:
        """What the row above and the bias add to all columns: `(batch, W, C)` likewise."""
        batch, width, _ = row.shape
        columns = self.kernel_size[1]
        count = width // self.strides
        padded = ops.pad(row, ((0, 0), (self.left, self.right), (0, 0)))
        taps = [
            padded[:, i : i + width - self.strides + 1 : self.strides] for i in range(columns)
        ]  # (B, W / strides, C)
        return ops.reshape(
            ops.matmul(ops.concatenate(taps, axis=-1), weights["above"]) + weights["bias"],
            (batch, count, self.filters),
        )

    def _step(self, weights: TensorTree, left: Tensor, above: Tensor, inputs: Tensor) -> Tensor:
        """A position: `left` is the input of the column before, all `(batch, C)`."""
        seen = ops.concatenate([left, inputs], axis=-1) if self.left else inputs
        return above + ops.matmul(seen, weights["row"])

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "side": self.side,
            "strides": self.strides,
        }


@keras.saving.register_keras_serializable(package=PACKAGE)
class WeightNormUpsampling(WeightNorm):
    """A weight-normed transposed convolution of stride 2, cropped to twice the size.

    A position becomes 2 rows and `columns` columns, 3 (one to each side of the pair's first) or 2;
    where two overlap they add up.

    Args:
        filters: Positive integer.
        columns: 3 or 2.
        init_scale: As in `WeightNorm`.
    """

    def __init__(self, filters: int, columns: int, init_scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(filters, init_scale, **kwargs)
        self.columns = columns

    def build(self, input_shape: Shape) -> None:
        self._add_weights((2, self.columns), input_shape[-1])

    def _linear(self, inputs, kernel):
        rows = ops.stack([self._columns(inputs, kernel[k]) for k in range(2)], axis=2)
        batch, height, _, width, filters = rows.shape  # (B, h, 2, 2 w, F)
        return ops.reshape(rows, (-1, 2 * height, width, filters))

    def _before_cropping(self, inputs, outputs, kernel):
        """With the margins of openai/pixel-cnn's transposed convolution, which it crops later.

        A row of zeros below, a column of zeros to the right, and of 3 columns the one to the left.
        """
        left = self.columns - 2
        outputs = ops.pad(outputs, ((0, 0), (0, 1), (0, 1), (0, 0)))
        if not left:
            return outputs
        first = ops.stack([ops.matmul(inputs[:, :, 0], kernel[k, 0]) for k in range(2)], axis=2)
        first = ops.reshape(first, (-1, 2 * inputs.shape[1], 1, self.filters))  # (B, 2 h, 1, F)
        first = ops.pad(first, ((0, 0), (0, 1), (0, 0), (0, 0)))
        return ops.concatenate([first, outputs], axis=2)

    def _columns(self, inputs, kernel):
        """`(..., w, C)` to `(..., 2 w, F)` by a row of the kernel, `(columns, C, F)`."""
        taps = [ops.matmul(inputs, kernel[k]) for k in range(self.columns)]
        even, odd = taps[-2], taps[-1]
        if self.columns == 3:  # the next position also reaches the odd column before it
            ahead = taps[0][..., 1:, :]
            edges = [(0, 0)] * len(ahead.shape)
            edges[-2] = (0, 1)
            odd = odd + ops.pad(ahead, edges)
        pairs = ops.stack([even, odd], axis=-2)  # (..., w, 2, F)
        *outer, width, _, filters = pairs.shape
        outer = [-1 if size is None else size for size in outer]
        return ops.reshape(pairs, (*outer, 2 * width, filters))

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        batch, rows, columns, _ = inputs.shape
        return keras.KerasTensor((batch, 2 * rows, 2 * columns, self.filters), self.compute_dtype)

    # === One row or position after the other ===

    def _step_weights(self) -> TensorTree:
        return {"kernel": self._kernel(), "bias": self._bias()}

    def _of_row(self, weights: TensorTree, row: Tensor, kind: int) -> Tensor:
        """Row of a kind, 0 or 1, from that at half the size: `(batch, w, C)` to twice the w."""
        return self._columns(row, weights["kernel"][kind]) + weights["bias"]

    def _step(self, weights: TensorTree, inputs: Tensor, kind: int, column_kind: int) -> Tensor:
        """A position of a kind from that at half the size, of 2 columns: `(batch, C)`."""
        return ops.matmul(inputs, weights["kernel"][kind, column_kind]) + weights["bias"]

    def get_config(self) -> Config:
        return {**super().get_config(), "columns": self.columns}
