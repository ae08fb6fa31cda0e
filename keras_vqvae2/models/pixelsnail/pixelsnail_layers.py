"""The parts of `PixelSnailPrior` around its causal blocks."""

import math
from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Config, Shape, Size, Tensor, TensorTree
from keras_vqvae2.layers import CodeConv2D, GatedResidualBlock, MaskedConv2D
from keras_vqvae2.validation import both_axes

PACKAGE = "keras_vqvae2"


@keras.saving.register_keras_serializable(package=PACKAGE)
class PositionPlanes(keras.layers.Layer):
    """Two planes that tell each position where it is: `(row - H/2) / H`, `(column - W/2) / W`.

    Maps of shape `(batch, H, W, ...)` to `(batch, H, W, 2)`.
    """

    def call(self, inputs: Tensor) -> Tensor:
        planes = self._planes(*inputs.shape[1:3])
        return ops.broadcast_to(planes, (ops.shape(inputs)[0], *planes.shape))

    def _planes(self, rows: int, columns: int) -> Tensor:
        """The planes of a map of this size, `(rows, columns, 2)`."""
        planes = ops.meshgrid(
            ops.arange(rows, dtype="float32") / rows - 0.5,
            ops.arange(columns, dtype="float32") / columns - 0.5,
            indexing="ij",
        )
        return ops.cast(ops.stack(planes, axis=-1), self.compute_dtype)  # (H, W, 2)

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor((*inputs.shape[:3], 2), self.compute_dtype)


@keras.saving.register_keras_serializable(package=PACKAGE)
class RowContext(keras.layers.Layer):
    """What a position learns of the whole row above it, to the far end on both sides.

    Masked convolutions alone have a blind spot: with 5x5 kernels a tap reaches two columns to the
    right for each row up, so what lies further right is never seen. Rows that are finished need no
    mask; here convolutions of width 3 and of doubling dilation span them, and the result moves one
    row down. Codes `(batch, H, W)` to `(batch, H, W, units)`.
    """

    def __init__(self, units: int, num_embeddings: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.num_embeddings = num_embeddings

    def build(self, input_shape: Shape) -> None:
        self.embedding = CodeConv2D(
            self.units,
            (1, 1),
            self.num_embeddings,
            mask_type=None,
            dtype=self.dtype_policy,
            name="embedding",
        )
        self.embedding.build(input_shape)
        columns = input_shape[2]
        self.convs = []
        for i in range(max(1, math.ceil(math.log2(columns)))):
            conv = keras.layers.Conv2D(
                self.units,
                (1, 3),
                padding="same",
                data_format="channels_last",
                dilation_rate=(1, 2**i),
                dtype=self.dtype_policy,
                name=f"conv_{i}",
            )
            conv.build((*input_shape, self.units))
            self.convs.append(conv)

    def call(self, inputs: Tensor) -> Tensor:
        return ops.pad(self._of_rows(inputs)[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0)))

    def _of_rows(self, codes: Tensor) -> Tensor:
        """Features of rows, each from its own codes only: what the row below it will see."""
        x = self.embedding(codes)  # (B, H, W, units)
        for conv in self.convs:
            x = x + conv(ops.elu(x))
        return x

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor((*inputs.shape, self.units), self.compute_dtype)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "units": self.units,
            "num_embeddings": self.num_embeddings,
        }


@keras.saving.register_keras_serializable(package=PACKAGE)
class ConditioningStack(keras.layers.Layer):
    """An upper level's codes as features at the size of the level that is modelled.

    A 3x3 convolution of the codes, gated residual blocks (nothing is masked: the map is known), and
    upsampling by `factor`: `(batch, rows, columns)` to `(batch, factor * rows, factor * columns,
    units)`, or a factor for each axis.

    Args:
        units: Channels.
        num_embeddings: Codes of the upper level.
        factor: How many times smaller the upper map is: an integer, or one for each axis.
        num_blocks: Residual blocks.
        residual_units: Their inner channels.
        kernel_size: Of all its convolutions.
        upsampling: `"nearest"`, or `"learned"` for a transposed convolution.
        dropout: Of the residual blocks.
    """

    def __init__(
        self,
        units: int,
        num_embeddings: int,
        factor: Size,
        num_blocks: int,
        residual_units: int,
        kernel_size: Size = 3,
        upsampling: str = "nearest",
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.num_embeddings = num_embeddings
        self.factor = factor
        self.num_blocks = num_blocks
        self.residual_units = residual_units
        self.kernel_size = kernel_size
        self.upsampling = upsampling
        self.dropout = dropout

    def build(self, input_shape: Shape) -> None:
        self.conv = CodeConv2D(
            self.units,
            self.kernel_size,
            self.num_embeddings,
            mask_type=None,
            dtype=self.dtype_policy,
            name="conv",
        )
        self.conv.build(input_shape)
        shape = (*input_shape, self.units)
        self.blocks = [
            GatedResidualBlock(
                self.residual_units,
                self.kernel_size,
                dropout=self.dropout,
                dtype=self.dtype_policy,
                name=f"block_{i}",
            )
            for i in range(self.num_blocks)
        ]
        for block in self.blocks:
            block.build(shape)
        self.upsampler = None
        factors = both_axes(self.factor)
        if self.upsampling == "learned" and factors != (1, 1):
            self.upsampler = keras.layers.Conv2DTranspose(
                self.units,
                tuple(2 * factor for factor in factors),
                strides=factors,
                padding="same",
                data_format="channels_last",
                dtype=self.dtype_policy,
                name="upsampler",
            )
            self.upsampler.build(shape)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        x = self.conv(inputs)
        for block in self.blocks:
            x = block(x, training=training)
        if self.upsampler is not None:
            return self.upsampler(x)
        for axis, factor in enumerate(both_axes(self.factor), start=1):
            x = ops.repeat(x, factor, axis=axis)
        return x

    def compute_output_spec(
        self, inputs: Tensor, training: bool | None = None
    ) -> keras.KerasTensor:
        batch, *sizes = inputs.shape
        sizes = [s * factor for s, factor in zip(sizes, both_axes(self.factor), strict=True)]
        return keras.KerasTensor((batch, *sizes, self.units), self.compute_dtype)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "units": self.units,
            "num_embeddings": self.num_embeddings,
            "factor": self.factor,
            "num_blocks": self.num_blocks,
            "residual_units": self.residual_units,
            "kernel_size": self.kernel_size,
            "upsampling": self.upsampling,
            "dropout": self.dropout,
        }


@keras.saving.register_keras_serializable(package=PACKAGE)
class OutputStack(keras.layers.Layer):
    """1x1 gated residual blocks, ELU, and the logits, in float32.

    `(batch, rows, columns, channels)` to `(batch, rows, columns, num_embeddings)`.
    """

    def __init__(
        self,
        num_embeddings: int,
        num_blocks: int,
        residual_units: int,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_embeddings = num_embeddings
        self.num_blocks = num_blocks
        self.residual_units = residual_units
        self.dropout = dropout

    def build(self, input_shape: Shape) -> None:
        self.blocks = [
            GatedResidualBlock(
                self.residual_units,
                dropout=self.dropout,
                dtype=self.dtype_policy,
                name=f"block_{i}",
            )
            for i in range(self.num_blocks)
        ]
        self.logits = MaskedConv2D(
            self.num_embeddings, 1, mask_type=None, dtype=self.dtype_policy, name="logits"
        )
        for block in self.blocks:
            block.build(input_shape)
        self.logits.build(input_shape)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        x = inputs
        for block in self.blocks:
            x = block(x, training=training)
        return ops.cast(self.logits(ops.elu(x)), "float32")

    def compute_output_spec(
        self, inputs: Tensor, training: bool | None = None
    ) -> keras.KerasTensor:
        return keras.KerasTensor((*inputs.shape[:-1], self.num_embeddings), "float32")

    # === One position after the other ===

    def _step_weights(self) -> TensorTree:
        """The weights of the parts, for `_point`."""
        blocks = [block._step_weights() for block in self.blocks]
        return {"blocks": blocks, "logits": self.logits._step_weights()}

    def _point(self, weights: TensorTree, inputs: Tensor) -> Tensor:
        """Logits of one position, float32: `(batch, channels)` to `(batch, num_embeddings)`."""
        x = inputs
        for block, block_weights in zip(self.blocks, weights["blocks"]):
            x = block._point(block_weights, x)
        logits = weights["logits"]
        return ops.cast(ops.matmul(ops.elu(x), logits["row"]) + logits["bias"], "float32")

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_embeddings": self.num_embeddings,
            "num_blocks": self.num_blocks,
            "residual_units": self.residual_units,
            "dropout": self.dropout,
        }
