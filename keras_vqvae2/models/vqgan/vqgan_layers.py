"""The encoder and decoder of `VQGAN`, and the blocks that they are made of."""

from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Config, Shape, Tensor
from keras_vqvae2.layers import SelfAttention

GROUPS, EPSILON = 32, 1e-6  # of every norm


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class ResnetBlock(keras.layers.Layer):
    """Two convolutions beside a shortcut, which is a 1x1 convolution where channels change.

    ```
    y = shortcut(x) + conv_3x3(silu(norm(conv_3x3(silu(norm(x))))))
    ```

    Input `(batch, H, W, C)`, output `(batch, H, W, filters)`. Norms are of 32 groups.

    Args:
        filters: Positive integer, a multiple of 32.
    """

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.norm_1 = _norm("norm_1", self.dtype_policy)
        self.conv_1 = _conv(filters, "conv_1", self.dtype_policy)
        self.norm_2 = _norm("norm_2", self.dtype_policy)
        self.conv_2 = _conv(filters, "conv_2", self.dtype_policy)
        self.shortcut: keras.layers.Layer | None = None

    def build(self, input_shape: Shape) -> None:
        output_shape = self.compute_output_shape(input_shape)
        self.norm_1.build(input_shape)
        self.conv_1.build(input_shape)
        self.norm_2.build(output_shape)
        self.conv_2.build(output_shape)
        if input_shape[-1] != self.filters:
            self.shortcut = _conv(self.filters, "shortcut", self.dtype_policy, kernel_size=1)
            self.shortcut.build(input_shape)

    def call(self, x: Tensor) -> Tensor:
        y = self.conv_1(ops.silu(self.norm_1(x)))
        y = self.conv_2(ops.silu(self.norm_2(y)))
        return y + (x if self.shortcut is None else self.shortcut(x))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> Config:
        return {**super().get_config(), "filters": self.filters}


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class AttentionBlock(keras.layers.Layer):
    """`x + attention(norm(x))`: all positions of a map see each other, with one head.

    Input and output `(batch, H, W, C)`, with `C` a multiple of 32.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm = _norm("norm", self.dtype_policy)
        self.attention = SelfAttention(1, use_bias=True, dtype=self.dtype_policy, name="attention")

    def build(self, input_shape: Shape) -> None:
        self.norm.build(input_shape)
        self.attention.build((input_shape[0], None, input_shape[-1]))

    def call(self, x: Tensor) -> Tensor:
        _, height, width, channels = ops.shape(x)
        tokens = ops.reshape(self.norm(x), (-1, height * width, channels))
        return x + ops.reshape(self.attention(tokens), (-1, height, width, channels))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


class Chain(keras.layers.Layer):
    """Layers one after the other: those that a subclass puts into `chain`.

    Args:
        hidden_units: Positive integer, a multiple of 32: channels of the largest map.
        channel_multipliers: Positive integers, channels of each map in `hidden_units`, from the
            largest map to the smallest; each is half as high and wide as the one before.
        residual_blocks: Positive integer, blocks a map of the encoder; the decoder has one more.
        attention_factors: How much smaller than the image those maps are that have attention
            after each block.
        latent_channels: Positive integer, channels between encoder or decoder and the 1x1
            convolutions beside the quantizer.
    """

    chain: list[keras.layers.Layer]

    def __init__(
        self,
        hidden_units: int,
        channel_multipliers: Sequence[int],
        residual_blocks: int,
        attention_factors: Sequence[int],
        latent_channels: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden_units = hidden_units
        self.channel_multipliers = tuple(channel_multipliers)
        self.residual_blocks = residual_blocks
        self.attention_factors = tuple(attention_factors)
        self.latent_channels = latent_channels

    def _blocks(self, stage: int, count: int) -> Iterator[keras.layers.Layer]:
        """The blocks at one size of the map, 0 the largest."""
        filters = self.hidden_units * self.channel_multipliers[stage]
        for i in range(count):
            yield ResnetBlock(filters, dtype=self.dtype_policy, name=f"{stage}_block_{i}")
            if 2**stage in self.attention_factors:
                yield AttentionBlock(dtype=self.dtype_policy, name=f"{stage}_attention_{i}")

    def _middle(self) -> Iterator[keras.layers.Layer]:
        filters = self.hidden_units * self.channel_multipliers[-1]
        yield ResnetBlock(filters, dtype=self.dtype_policy, name="middle_block_0")
        yield AttentionBlock(dtype=self.dtype_policy, name="middle_attention")
        yield ResnetBlock(filters, dtype=self.dtype_policy, name="middle_block_1")

    def _end(self, channels: int) -> Iterator[keras.layers.Layer]:
        yield _norm("norm_out", self.dtype_policy)
        yield keras.layers.Activation("silu", dtype=self.dtype_policy)
        yield _conv(channels, "conv_out", self.dtype_policy)

    def build(self, input_shape: Shape) -> None:
        shape = input_shape
        for layer in self.chain:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)

    def call(self, x: Tensor) -> Tensor:
        for layer in self.chain:
            x = layer(x)
        return x

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        for layer in self.chain:
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "hidden_units": self.hidden_units,
            "channel_multipliers": list(self.channel_multipliers),
            "residual_blocks": self.residual_blocks,
            "attention_factors": list(self.attention_factors),
            "latent_channels": self.latent_channels,
        }


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class VQGANEncoder(Chain):
    """Shrinks images to what becomes vectors.

    Input `(batch, H, W, C)`, output `(batch, H / f, W / f, latent_channels)`, where `f` is 2 to the
    number of `channel_multipliers` but one.

    Args:
        *args, **kwargs: Those of `Chain`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        dtype, last = self.dtype_policy, len(self.channel_multipliers) - 1
        self.chain = [_conv(self.hidden_units, "conv_in", dtype)]
        for stage, multiplier in enumerate(self.channel_multipliers):
            self.chain += self._blocks(stage, self.residual_blocks)
            if stage < last:
                # Of even sizes "same" pads right and below alone, as the original does by hand.
                filters = self.hidden_units * multiplier
                self.chain.append(_conv(filters, f"{stage}_downsample", dtype, strides=2))
        self.chain += [*self._middle(), *self._end(self.latent_channels)]


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class VQGANDecoder(Chain):
    """Grows the vectors of codes to pixels: the mirror of `VQGANEncoder`.

    Input `(batch, H, W, D)`, output `(batch, H * f, W * f, output_channels)`. Each block of the
    encoder has its counterpart, and each size of the map one more.

    Args:
        *args, **kwargs: Those of `Chain`.
        output_channels: Positive integer.
    """

    def __init__(self, *args: Any, output_channels: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.output_channels = output_channels
        dtype, last = self.dtype_policy, len(self.channel_multipliers) - 1
        filters = self.hidden_units * self.channel_multipliers[-1]
        self.chain = [
            _conv(self.latent_channels, "from_vectors", dtype, kernel_size=1),
            _conv(filters, "conv_in", dtype),
            *self._middle(),
        ]
        for stage in range(last, -1, -1):
            self.chain += self._blocks(stage, self.residual_blocks + 1)
            if stage > 0:
                filters = self.hidden_units * self.channel_multipliers[stage]
                self.chain += [
                    keras.layers.UpSampling2D(data_format="channels_last", dtype=dtype),
                    _conv(filters, f"{stage}_upsample", dtype),
                ]
        self.chain += self._end(output_channels)

    @property
    def last(self) -> keras.layers.Layer:
        """The layer that makes pixels of `features`."""
        return self.chain[-1]

    def features(self, x: Tensor) -> Tensor:
        """What the last layer reads. `(B, H * f, W * f, hidden_units * channel_multipliers[0])`."""
        for layer in self.chain[:-1]:
            x = layer(x)
        return x

    def last_product(self, features: Tensor, kernel: Tensor) -> Tensor:
        """What the last layer makes of `features` with another kernel and no bias."""
        return ops.conv(features, kernel, 1, "same", data_format="channels_last")

    def get_config(self) -> Config:
        return {**super().get_config(), "output_channels": self.output_channels}


def _norm(name, dtype):
    return keras.layers.GroupNormalization(GROUPS, epsilon=EPSILON, dtype=dtype, name=name)


def _conv(filters, name, dtype, kernel_size=3, strides=1):
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        data_format="channels_last",
        dtype=dtype,
        name=name,
    )
