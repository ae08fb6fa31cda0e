"""The encoders and decoders that `VQVAE2` is composed of, and what joins their maps."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Config, Shape, Tensor, TensorTree
from keras_vqvae2.image_batches import to_unit_floats
from keras_vqvae2.layers import ResidualStack
from keras_vqvae2.validation import check_positive


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class LevelEncoder(keras.layers.Layer):
    """Shrinks a map by `factor`: strided convolutions, one 3x3 convolution, a residual stack.

    The first strided convolution has half the hidden units. Input `(batch, H, W, C)`, output
    `(batch, H / factor, W / factor, hidden_units)`.

    Args:
        factor: Power of two, at least 2.
        hidden_units: Positive integer, channels of the output.
        residual_units: Positive integer, channels inside the residual blocks.
        residual_blocks: Non-negative integer.
        kernel_size: Positive integer, filter of the strided convolutions.
        rectified_skip: Boolean, see `ResidualStack`.
    """

    def __init__(
        self,
        factor: int,
        hidden_units: int,
        residual_units: int,
        residual_blocks: int,
        kernel_size: int,
        rectified_skip: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.factor = factor
        self.hidden_units = hidden_units
        self.residual_units = residual_units
        self.residual_blocks = residual_blocks
        self.kernel_size = kernel_size
        self.rectified_skip = rectified_skip
        dtype = self.dtype_policy
        self.strided = [
            keras.layers.Conv2D(
                hidden_units // 2 if i == 0 else hidden_units,
                kernel_size,
                strides=2,
                padding="same",
                data_format="channels_last",
                activation="relu",
                dtype=dtype,
                name=f"strided_{i}",
            )
            for i in range(int(math.log2(factor)))
        ]
        self.conv = keras.layers.Conv2D(
            hidden_units, 3, padding="same", data_format="channels_last", dtype=dtype, name="conv"
        )
        self.residual_stack = ResidualStack(
            residual_units, residual_blocks, rectified_skip, dtype=dtype, name="residual_stack"
        )

    def build(self, input_shape: Shape) -> None:
        shape = input_shape
        for layer in [*self.strided, self.conv, self.residual_stack]:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)

    def call(self, x: Tensor) -> Tensor:
        for layer in self.strided:
            x = layer(x)
        return self.residual_stack(self.conv(x))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, _ = input_shape
        shrink = [None if size is None else size // self.factor for size in (height, width)]
        return (batch, *shrink, self.hidden_units)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "factor": self.factor,
            "hidden_units": self.hidden_units,
            "residual_units": self.residual_units,
            "residual_blocks": self.residual_blocks,
            "kernel_size": self.kernel_size,
            "rectified_skip": self.rectified_skip,
        }


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class LevelDecoder(keras.layers.Layer):
    """Grows a map by `factor`: one 3x3 convolution, a residual stack, transposed convolutions.

    The mirror of `LevelEncoder`: the last transposed convolution but one has half the hidden units.
    Input `(batch, H, W, C)`, output `(batch, H * factor, W * factor, output_channels)`.

    Args:
        factor: Power of two, at least 2.
        output_channels: Positive integer.
        hidden_units: Positive integer.
        residual_units: Positive integer, channels inside the residual blocks.
        residual_blocks: Non-negative integer.
        kernel_size: Positive integer, filter of the transposed convolutions.
        rectified_skip: Boolean, see `ResidualStack`.
    """

    def __init__(
        self,
        factor: int,
        output_channels: int,
        hidden_units: int,
        residual_units: int,
        residual_blocks: int,
        kernel_size: int,
        rectified_skip: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.factor = factor
        self.output_channels = output_channels
        self.hidden_units = hidden_units
        self.residual_units = residual_units
        self.residual_blocks = residual_blocks
        self.kernel_size = kernel_size
        self.rectified_skip = rectified_skip
        dtype = self.dtype_policy
        self.conv = keras.layers.Conv2D(
            hidden_units, 3, padding="same", data_format="channels_last", dtype=dtype, name="conv"
        )
        self.residual_stack = ResidualStack(
            residual_units, residual_blocks, rectified_skip, dtype=dtype, name="residual_stack"
        )
        steps = int(math.log2(factor))
        channels = [hidden_units] * (steps - 2) + [hidden_units // 2] * (steps > 1)
        self.strided = [
            keras.layers.Conv2DTranspose(
                units,
                kernel_size,
                strides=2,
                padding="same",
                data_format="channels_last",
                activation=activation,
                dtype=dtype,
                name=f"strided_{i}",
            )
            for i, (units, activation) in enumerate(
                [(units, "relu") for units in channels] + [(output_channels, None)]
            )
        ]

    def build(self, input_shape: Shape) -> None:
        shape = input_shape
        for layer in [self.conv, self.residual_stack, *self.strided]:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)

    def call(self, x: Tensor) -> Tensor:
        return self.last(self.features(x))

    @property
    def last(self) -> keras.layers.Layer:
        """The layer that makes pixels of `features`."""
        return self.strided[-1]

    def features(self, x: Tensor) -> Tensor:
        """What the last layer reads. `(B, H * factor / 2, W * factor / 2, C)`."""
        x = self.residual_stack(self.conv(x))
        for layer in self.strided[:-1]:
            x = layer(x)
        return x

    def last_product(self, features: Tensor, kernel: Tensor) -> Tensor:
        """What the last layer makes of `features` with another kernel and no bias."""
        return ops.conv_transpose(features, kernel, 2, "same", data_format="channels_last")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, _ = input_shape
        grow = [None if size is None else size * self.factor for size in (height, width)]
        return (batch, *grow, self.output_channels)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "factor": self.factor,
            "output_channels": self.output_channels,
            "hidden_units": self.hidden_units,
            "residual_units": self.residual_units,
            "residual_blocks": self.residual_blocks,
            "kernel_size": self.kernel_size,
            "rectified_skip": self.rectified_skip,
        }


class Networks(NamedTuple):
    """The layers with weights of a `VQVAE2`, but for its quantizers; dicts are by level."""

    encoders: Mapping[str, keras.layers.Layer]
    to_vectors: Mapping[str, keras.layers.Layer]
    conditioners: Mapping[str, keras.layers.Layer]  # of all levels but the coarsest, as:
    upsamplers: Mapping[str, keras.layers.Layer]
    pixel_decoder: keras.layers.Layer


def vectors_conv(level: str, width: int, dtype: keras.DTypePolicy) -> keras.layers.Conv2D:
    """The 1x1 convolution that makes the vectors of a level, which its quantizer takes."""
    return keras.layers.Conv2D(
        width, 1, data_format="channels_last", dtype=dtype, name=f"to_vectors_{level}"
    )


def networks_of_levels(
    factors: Mapping[str, int],
    widths: Mapping[str, int],
    channels: int,
    downsample_kernel_size: int,
    upsample_kernel_size: int,
    **stack: Any,
) -> Networks:
    """The paper's.

    Args:
        factors: Dict from level, coarse to fine, to how much its encoder shrinks.
        widths: Dict from level to the width of its codes' vectors.
        channels: Positive integer, of images.
        downsample_kernel_size: Positive integer.
        upsample_kernel_size: Positive integer.
        **stack: What `LevelEncoder` and `LevelDecoder` have in common.
    """
    encoders, to_vectors, conditioners, upsamplers = {}, {}, {}, {}
    dtype, coarser, known = stack["dtype"], 0, 0
    for level, factor in factors.items():
        encoders[level] = LevelEncoder(
            factor, kernel_size=downsample_kernel_size, name=f"encoder_{level}", **stack
        )
        to_vectors[level] = vectors_conv(level, widths[level], dtype)
        if known:
            # What is known from the coarser levels: maps of codes side by side.
            conditioners[level] = LevelDecoder(
                coarser,
                widths[level],
                kernel_size=upsample_kernel_size,
                name=f"conditioner_{level}",
                **stack,
            )
            upsamplers[level] = keras.layers.Conv2DTranspose(
                known,
                upsample_kernel_size * coarser // 2,
                strides=coarser,
                padding="same",
                data_format="channels_last",
                dtype=dtype,
                name=f"upsampler_{level}",
            )
        coarser, known = factor, known + widths[level]
    decoder = LevelDecoder(
        coarser, channels, kernel_size=upsample_kernel_size, name="pixel_decoder", **stack
    )
    return Networks(encoders, to_vectors, conditioners, upsamplers, decoder)


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class LossesOfQuantizers(keras.layers.Layer):
    """Hands on reconstructions, and adds losses to those of the model."""

    def call(self, reconstructions: Tensor, losses: list[Tensor]) -> Tensor:
        self.add_loss(sum(losses))
        return reconstructions


def to_pixels(x: Tensor) -> Tensor:
    """Pixels in `[0, 1]` of the network's, which are about `[-1, 1]`. float32, not clipped."""
    return 0.5 * ops.cast(x, "float32") + 0.5


def join(known: Tensor | None, quantized: Tensor, upsampler: keras.layers.Layer | None) -> Tensor:
    """Quantized maps so far, at the size of the newest. `(B, H, W, D * levels so far)`."""
    if upsampler is None:
        return quantized
    return ops.concatenate([upsampler(known), quantized], axis=-1)


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class ModelOfImages(keras.Model):
    """A functional model that scales integer pixels, as `VQVAE2` does."""

    def call(self, inputs: Tensor, training: bool | None = None, mask: Any = None) -> TensorTree:
        return super().call(to_unit_floats(inputs), training=training, mask=mask)


def predict_in_parts(
    model: keras.Model, inputs: TensorTree, batch_size: int, verbose: int
) -> TensorTree:
    """`model.predict`, of any number of examples on any number of devices that share a batch."""
    check_positive(batch_size=batch_size)
    multiple = backend.batch_multiple()
    count = len(keras.tree.flatten(inputs)[0])
    padding = -count % multiple
    if padding:
        repeated = np.minimum(np.arange(count + padding), count - 1)
        inputs = keras.tree.map_structure(lambda x: x[repeated], inputs)
    batch_size = -(-batch_size // multiple) * multiple
    outputs = model.predict(inputs, batch_size=batch_size, verbose=verbose)
    return keras.tree.map_structure(lambda x: x[:count], outputs)
