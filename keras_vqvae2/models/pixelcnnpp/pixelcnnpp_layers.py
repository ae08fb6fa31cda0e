"""The parts of `PixelCNNPlusPlus`: two streams, above and above-left."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Config, Shape, Tensor, TensorTree
from keras_vqvae2.layers.dropout import dropout
from keras_vqvae2.layers.gated_residual_block import glu
from keras_vqvae2.models.pixelcnnpp.weight_norm_conv2d import WeightNormConv2D

PACKAGE = "keras_vqvae2"
# Kernels of the streams: what lies above, and what lies above or to the left.
ABOVE = {"kernel_size": (2, 3), "side": "both"}
ABOVE_LEFT = {"kernel_size": (2, 2), "side": "left"}


@keras.saving.register_keras_serializable(package=PACKAGE)
class StreamStart(keras.layers.Layer):
    """From pixels to both streams, none of which sees the position itself.

    ```
    above      = down (conv 2x3 (x))
    above_left = down (conv 1x3 (x)) + right (conv 2x1 (x))
    ```

    `down` and `right` move a map by a position and leave zeros, so the first row or column is zero,
    without a bias. x are levels in `[-1, 1]` and a fourth channel of ones, which tells grey from
    the zeros outside of the image.

    Levels `(batch, height, width, colours)` as float32 to two maps of `filters` features.
    """

    def __init__(self, filters: int, levels: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)  # levels up to 255 are not whole in bfloat16
        self.filters = filters
        self.levels = levels

    def build(self, input_shape: Shape) -> None:
        def conv(kernel_size, side, name):
            layer = WeightNormConv2D(
                self.filters, kernel_size, side, dtype=self.dtype_policy, name=name
            )
            layer.build((*input_shape[:-1], input_shape[-1] + 1))
            return layer

        self.above = conv((2, 3), "both", "above")
        self.row_above = conv((1, 3), "both", "row_above")
        self.left_column = conv((2, 1), "left", "left_column")

    def _inputs(self, values: Tensor) -> Tensor:
        """Levels in `[-1, 1]` and ones: `(..., colours + 1)`."""
        x = ops.cast(values, "float32") * (2.0 / (self.levels - 1)) - 1.0
        return ops.cast(
            ops.concatenate([x, ops.ones_like(x[..., :1])], axis=-1), self.compute_dtype
        )

    def call(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        x = self._inputs(inputs)
        return _down(self.above(x)), _down(self.row_above(x)) + _right(self.left_column(x))

    def compute_output_spec(self, inputs: Tensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        shape = (*inputs.shape[:-1], self.filters)
        return keras.KerasTensor(shape, self.compute_dtype), keras.KerasTensor(
            shape, self.compute_dtype
        )

    # === One row or position after the other ===

    def _cache(self, batch: int, columns: int, colours: int) -> Tensor:
        """What the network sees of the two rows before the first one: nothing."""
        return ops.zeros((batch, 2, columns, colours + 1), self.compute_dtype)

    def _step_weights(self) -> TensorTree:
        parts = ("above", "row_above", "left_column")
        return {name: getattr(self, name)._step_weights() for name in parts}

    def _start_row(
        self, weights: TensorTree, cache: Tensor, row: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The stream above for a row, and what finished rows add to the other one."""
        exists = ops.cast(row > 0, self.compute_dtype)
        above = exists * self.above._of_rows(weights["above"], cache)
        of_above = exists * self.row_above._of_rows(weights["row_above"], cache[:, 1:])
        left_above = self.left_column._above(weights["left_column"], cache[:, 1])
        # The column to the left, of which the first has none.
        return above, (of_above, _right(left_above, axis=1))

    def _step(self, weights: TensorTree, left: Tensor, columns: Any, column: Tensor) -> Tensor:
        """The other stream at a column; `left` is what the network sees of the one before."""
        of_above, left_above = columns
        exists = ops.cast(column > 0, self.compute_dtype)
        of_left = left_above + ops.matmul(left, weights["left_column"]["row"])
        return of_above + exists * of_left

    def get_config(self) -> Config:
        return {**super().get_config(), "filters": self.filters, "levels": self.levels}


def _down(x):
    return ops.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0)))


def _right(x, axis=2):
    edges = [(0, 0)] * len(x.shape)
    edges[axis] = (1, 0)
    return ops.pad(x[:, :-1] if axis == 1 else x[:, :, :-1], edges)


@keras.saving.register_keras_serializable(package=PACKAGE)
class StreamBlock(keras.layers.Layer):
    """A gated residual block of one of the streams.

    ```
    hidden = conv (celu (x)) [+ conv 1x1 (celu (auxiliary))]         celu (x) = elu ([x, -x])
    a, b   = conv (dropout (celu (hidden))) [+ label table [label]]
    out    = x + a sigmoid (b)
    ```

    Args:
        kernel_size: `(2, 3)` for the stream above, `(2, 2)` for that above and to the left.
        side: `"both"` or `"left"`, as in `WeightNormConv2D`.
        dropout: Float in `[0, 1)`.
        num_classes: None, or the number of labels.

    Call arguments:
        inputs: `(batch, rows, columns, channels)`.
        auxiliary: None, or a map of the same size: of the other stream, of the way up.
        labels: None, or int32 of shape `(batch,)`.
    """

    def __init__(
        self,
        kernel_size: Sequence[int],
        side: str,
        dropout: float = 0.0,
        num_classes: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kernel_size = tuple(kernel_size)
        self.side = side
        self.dropout = dropout
        self.num_classes = num_classes
        self.seed_generator = keras.random.SeedGenerator()

    def build(
        self,
        inputs_shape: Shape,
        auxiliary_shape: Shape | None = None,
        labels_shape: Shape | None = None,
    ) -> None:
        channels = inputs_shape[-1]
        common = {"dtype": self.dtype_policy}
        self.conv_1 = WeightNormConv2D(
            channels, self.kernel_size, self.side, name="conv_1", **common
        )
        self.conv_2 = WeightNormConv2D(
            2 * channels, self.kernel_size, self.side, init_scale=0.1, name="conv_2", **common
        )
        doubled = (*inputs_shape[:-1], 2 * channels)
        self.conv_1.build(doubled)
        self.conv_2.build(doubled)
        self.auxiliary: Any = None
        self.label_table: Any = None
        if auxiliary_shape is not None:
            self.auxiliary = WeightNormConv2D(channels, name="auxiliary", **common)
            self.auxiliary.build((*auxiliary_shape[:-1], 2 * auxiliary_shape[-1]))
        if labels_shape is not None:
            self.label_table = self.add_weight(
                name="label_table",
                shape=(self.num_classes, 2 * channels),
                initializer=keras.initializers.RandomNormal(0.0, 0.05),
            )

    def call(
        self,
        inputs: Tensor,
        auxiliary: Tensor | None = None,
        labels: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        hidden = self.conv_1(concat_elu(inputs))
        if auxiliary is not None:
            hidden = hidden + self.auxiliary(concat_elu(auxiliary))
        hidden = concat_elu(hidden)
        if training and self.dropout:
            hidden = dropout(hidden, self.dropout, self.seed_generator)
        gates = self.conv_2(hidden)
        if labels is not None:
            gates = gates + self._label_rows(labels)[:, None, None]
        return inputs + glu(gates)

    def _label_rows(self, labels):
        return ops.take(ops.cast(self.label_table, self.compute_dtype), labels, axis=0)

    def compute_output_spec(
        self,
        inputs: Tensor,
        auxiliary: Tensor | None = None,
        labels: Tensor | None = None,
        training: bool | None = None,
    ) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, self.compute_dtype)

    # === One row or position after the other ===

    def _cache(self, batch: int, columns: int, channels: int) -> tuple[Tensor, Tensor]:
        """Inputs of both convolutions in the row before the first one."""
        zeros = ops.zeros((batch, columns, 2 * channels), self.compute_dtype)
        return zeros, zeros

    def _step_weights(self) -> TensorTree:
        weights = {"conv_1": self.conv_1._step_weights(), "conv_2": self.conv_2._step_weights()}
        if self.auxiliary is not None:
            weights["auxiliary"] = self.auxiliary._step_weights()
        return weights

    def _point(self, weights, auxiliary):
        """What the auxiliary map adds, at any positions."""
        part = weights["auxiliary"]
        return ops.matmul(concat_elu(auxiliary), part["row"]) + part["bias"]

    def _row(
        self,
        weights: TensorTree,
        cache: tuple[Tensor, Tensor],
        inputs: Tensor,
        auxiliary: Tensor | None,
        labels: Tensor | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The block for a row of the stream above: `(batch, W, channels)`, and its new cache."""
        first = concat_elu(inputs)
        hidden = self.conv_1._of_rows(weights["conv_1"], ops.stack([cache[0], first], axis=1))
        if auxiliary is not None:
            hidden = hidden + self._point(weights, auxiliary)
        second = concat_elu(hidden)
        gates = self.conv_2._of_rows(weights["conv_2"], ops.stack([cache[1], second], axis=1))
        if labels is not None:
            gates = gates + self._label_rows(labels)[:, None]
        return inputs + glu(gates), (first, second)

    def _start_row(
        self,
        weights: TensorTree,
        cache: tuple[Tensor, Tensor],
        auxiliary: Tensor | None,
        labels: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """What each column of the other stream adds: of rows above, a known map, the label."""
        above_1 = self.conv_1._above(weights["conv_1"], cache[0])
        above_2 = self.conv_2._above(weights["conv_2"], cache[1])
        if labels is not None:
            above_2 = above_2 + self._label_rows(labels)[:, None]
        if auxiliary is not None:
            above_1 = above_1 + self._point(weights, auxiliary)
        return above_1, above_2

    def _step(
        self,
        weights: TensorTree,
        columns: tuple[Tensor, Tensor],
        left: tuple[Tensor, Tensor],
        inputs: Tensor,
        auxiliary: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The block at a column: `(batch, channels)`, and what the next column takes as `left`."""
        first = concat_elu(inputs)
        hidden = self.conv_1._step(weights["conv_1"], left[0], columns[0], first)
        if auxiliary is not None:
            hidden = hidden + self._point(weights, auxiliary)
        second = concat_elu(hidden)
        gates = self.conv_2._step(weights["conv_2"], left[1], columns[1], second)
        return inputs + glu(gates), (first, second)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "side": self.side,
            "dropout": self.dropout,
            "num_classes": self.num_classes,
        }


@keras.saving.register_keras_serializable(package=PACKAGE)
class StreamHead(keras.layers.Layer):
    """ELU, a weight-normed 1x1 convolution, float32: the parameters of each pixel."""

    def __init__(self, parameters: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.parameters_count = parameters

    def build(self, input_shape: Shape) -> None:
        self.conv = WeightNormConv2D(self.parameters_count, dtype=self.dtype_policy, name="conv")
        self.conv.build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        return ops.cast(self.conv(ops.elu(inputs)), "float32")

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor((*inputs.shape[:-1], self.parameters_count), "float32")

    def _step_weights(self) -> TensorTree:
        return self.conv._step_weights()

    def _step(self, weights: TensorTree, inputs: Tensor) -> Tensor:
        return ops.cast(ops.matmul(ops.elu(inputs), weights["row"]) + weights["bias"], "float32")

    def get_config(self) -> Config:
        return {**super().get_config(), "parameters": self.parameters_count}


def concat_elu(x: Tensor) -> Tensor:
    """ELU of x and of -x, side by side: twice the channels."""
    return ops.elu(ops.concatenate([x, -x], axis=-1))
