from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Config, Shape, Size, Tensor, TensorTree
from keras_vqvae2.layers.dropout import dropout
from keras_vqvae2.layers.masked_conv2d import MaskedConv2D


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class GatedResidualBlock(keras.layers.Layer):
    """The residual block of PixelSNAIL, with a gate that conditions enter.

    ```
    h    = conv_1(elu(x)) + W_aux elu(auxiliary)
    v, g = split(conv_2(dropout(elu(h))) + V condition + U[labels])
    y    = x + v * sigmoid(g)
    ```

    Args:
        residual_units: Positive integer, channels of `h`.
        kernel_size: As in `MaskedConv2D`. Defaults to 1.
        mask_type: As in `MaskedConv2D`, of both convolutions. Two of type `"B"` keep the order that
            a first layer of type `"A"` made strict. Defaults to `None`, not causal.
        dropout: Float in `[0, 1)`, before the second convolution, as in PixelCNN++.
        num_classes: Positive integer for blocks that are called with labels.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Tensor of shape `(batch, rows, columns, channels)`.
        auxiliary: None, or a tensor with the inputs' rows and columns, and any channels.
        condition: None, or likewise.
        labels: None, or int32 of shape `(batch,)`.
        seed: None, or a `keras.random.SeedGenerator` to take in place of the block's own.

    Returns:
        Tensor of the inputs' shape.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    block = keras_vqvae2.layers.GatedResidualBlock(32, kernel_size=3, mask_type="B")
    print(block(np.ones((1, 16, 16, 8), "float32")).shape)  # (1, 16, 16, 8)
    ```

    Reference:
        - Chen et al. 2018, "PixelSNAIL", arXiv 1712.09763, section 2.
        - van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders", arXiv
          1606.05328, section 2.4 (labels and locations in the gate).
    """

    def __init__(
        self,
        residual_units: int,
        kernel_size: Size = 1,
        mask_type: str | None = None,
        dropout: float = 0.0,
        num_classes: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= dropout < 1:
            raise ValueError(f"Expected a number in [0, 1). Received: dropout={dropout}")
        self.residual_units = residual_units
        self.kernel_size = kernel_size
        self.mask_type = mask_type
        self.dropout = dropout
        self.num_classes = num_classes
        self.seed_generator = keras.random.SeedGenerator()

    def build(
        self,
        inputs_shape: Shape,
        auxiliary_shape: Shape | None = None,
        condition_shape: Shape | None = None,
        labels_shape: Shape | None = None,
    ) -> None:
        channels = inputs_shape[-1]
        common = {"kernel_size": self.kernel_size, "mask_type": self.mask_type}
        self.conv_1 = self._add(MaskedConv2D, self.residual_units, name="conv_1", **common)
        # Small, so that a deep stack starts near the identity (PixelCNN++ scales it by 0.1).
        small = keras.initializers.VarianceScaling(0.01)
        self.conv_2 = self._add(
            MaskedConv2D, 2 * channels, name="conv_2", kernel_initializer=small, **common
        )
        self.conv_1.build(inputs_shape)
        self.conv_2.build((*inputs_shape[:-1], self.residual_units))
        self.auxiliary_projection: Any = None
        self.condition_projection: Any = None
        self.label_table: Any = None
        if auxiliary_shape is not None:
            self.auxiliary_projection = self._add(
                MaskedConv2D,
                self.residual_units,
                kernel_size=1,
                mask_type=None,
                name="auxiliary_projection",
            )
            self.auxiliary_projection.build(auxiliary_shape)
        if condition_shape is not None:
            self.condition_projection = self._add(
                keras.layers.Dense, 2 * channels, use_bias=False, name="condition_projection"
            )
            self.condition_projection.build(condition_shape)
        if labels_shape is not None:
            self.label_table = self.add_weight(
                name="label_table", shape=(self.num_classes, 2 * channels), initializer="zeros"
            )

    def _add(self, layer_class, *args, **kwargs):
        return layer_class(*args, dtype=self.dtype_policy, **kwargs)

    def call(
        self,
        inputs: Tensor,
        auxiliary: Tensor | None = None,
        condition: Tensor | None = None,
        labels: Tensor | None = None,
        training: bool | None = None,
        seed: keras.random.SeedGenerator | None = None,
    ) -> Tensor:
        hidden = self.conv_1(ops.elu(inputs))
        if auxiliary is not None:
            hidden = hidden + self.auxiliary_projection(ops.elu(auxiliary))
        hidden = ops.elu(hidden)
        if training and self.dropout:
            hidden = dropout(hidden, self.dropout, seed or self.seed_generator)
        gate = self.conv_2(hidden)
        if condition is not None:
            gate = gate + self.condition_projection(condition)
        if labels is not None:
            gate = gate + self._label_rows(labels)[:, None, None]
        return inputs + glu(gate)

    def _label_rows(self, labels):
        return ops.take(ops.cast(self.label_table, self.compute_dtype), labels, axis=0)

    def compute_output_spec(self, inputs: Tensor, **kwargs: Any) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, self.compute_dtype)

    # === One position after the other ===

    def _cache(self, batch: int, columns: int, channels: int) -> tuple[Tensor, Tensor]:
        """Inputs of both convolutions in the rows before the first one."""
        return (
            self.conv_1._cache(batch, columns, channels),
            self.conv_2._cache(batch, columns, self.residual_units),
        )

    def _step_weights(self) -> TensorTree:
        """The weights of the parts, for `_start_row`, `_step` and `_point`."""
        weights = {"conv_1": self.conv_1._step_weights(), "conv_2": self.conv_2._step_weights()}
        if self.auxiliary_projection is not None:
            weights["auxiliary"] = self.auxiliary_projection._step_weights()
        if self.label_table is not None:
            weights["labels"] = ops.cast(self.label_table, self.compute_dtype)
        return weights

    def _start_row(
        self,
        weights: TensorTree,
        cache: TensorTree,
        condition: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> tuple[TensorTree, TensorTree]:
        """Prepares a row.

        Args:
            weights: What `_step_weights` returned.
            cache: Inputs of both convolutions in the last rows.
            condition: None, or the row's conditions, shape `(batch, columns, units)`.
            labels: None, or int32 of shape `(batch,)`.

        Returns:
            A tuple `(columns, left)`: what each column adds, shapes `(batch, columns, …)`, and the
            state before the first column.
        """
        above_1 = self.conv_1._above(weights["conv_1"], cache[0])
        above_2 = self.conv_2._above(weights["conv_2"], cache[1])
        if condition is not None:
            above_2 = above_2 + self.condition_projection(condition)
        if labels is not None:
            above_2 = above_2 + ops.take(weights["labels"], labels, axis=0)[:, None]
        batch = above_1.shape[0]
        left = (
            self.conv_1._start(batch, cache[0].shape[-1]),
            self.conv_2._start(batch, cache[1].shape[-1]),
        )
        return (above_1, above_2), left

    def _step(
        self, weights: TensorTree, columns: TensorTree, left: TensorTree, inputs: Tensor
    ) -> tuple[Tensor, TensorTree, TensorTree]:
        """Advances by one column.

        Args:
            weights: What `_step_weights` returned.
            columns: From `_start_row`, this column: shapes `(batch, …)`.
            left: From `_start_row` or the column before.
            inputs: Shape `(batch, channels)`.

        Returns:
            A tuple `(outputs, left, to_cache)`.
        """
        before_1 = ops.elu(inputs)
        hidden, left_1 = self.conv_1._step(weights["conv_1"], left[0], columns[0], before_1)
        before_2 = ops.elu(hidden)
        gate, left_2 = self.conv_2._step(weights["conv_2"], left[1], columns[1], before_2)
        return inputs + glu(gate), (left_1, left_2), (before_1, before_2)

    def _point(
        self, weights: TensorTree, inputs: Tensor, auxiliary: Tensor | None = None
    ) -> Tensor:
        """The block at one position, for a kernel of size 1. `(batch, channels)` to the same."""
        hidden = _dense(weights["conv_1"], inputs)
        if auxiliary is not None:
            hidden = hidden + _dense(weights["auxiliary"], auxiliary)
        return inputs + glu(_dense(weights["conv_2"], hidden))

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "residual_units": self.residual_units,
            "kernel_size": self.kernel_size,
            "mask_type": self.mask_type,
            "dropout": self.dropout,
            "num_classes": self.num_classes,
        }


def glu(x: Tensor) -> Tensor:
    """Gated linear unit: the first half of the channels times the sigmoid of the second."""
    value, gate = ops.split(x, 2, axis=-1)
    return value * ops.sigmoid(gate)


def _dense(weights, inputs):
    return ops.matmul(ops.elu(inputs), weights["row"]) + weights["bias"]
