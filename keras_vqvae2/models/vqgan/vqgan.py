from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_vqvae2.hints import Config, DTypePolicy, Loss, PerLevel
from keras_vqvae2.layers import Quantizer, VectorQuantizer
from keras_vqvae2.models.vqgan.vqgan_layers import GROUPS, VQGANDecoder, VQGANEncoder
from keras_vqvae2.models.vqvae2.levels import level_names
from keras_vqvae2.models.vqvae2.vqvae2 import VQVAE2
from keras_vqvae2.models.vqvae2.vqvae2_config import quantizers_of_levels
from keras_vqvae2.models.vqvae2.vqvae2_layers import Networks, vectors_conv
from keras_vqvae2.validation import check_positive

# What a VQVAE2 is told of its own networks.
_OF_VQVAE2 = (
    "num_levels",
    "residual_units",
    "downsample_factors",
    "downsample_kernel_size",
    "upsample_kernel_size",
    "rectified_skip",
    "quantizer_dropout",
)


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class VQGAN(VQVAE2):
    """VQGAN's autoencoder: images to one map of codes, and back, by deep residual networks.

    ```
    v  = conv_1x1(E(x))                x' = D(conv_1x1(Quantize(v)))
    E  = conv, stages of ResNet blocks (halved in between), block, attention, block, norm, conv
    D  = its mirror, with one more block a stage; maps grow by repetition and a convolution
    ```

    All else is `VQVAE2`'s, with the one level `bottom`: training and its guard, metrics, presets,
    `encode` and `decode`, data sets of codes, priors, `HierarchicalImageGenerator`, compression
    and export. The network is fully convolutional but for the attention, whose memory grows with
    the square of the number of positions.

    The paper trains it with absolute errors, LPIPS and a discriminator:

    ```python
    import keras_vqvae2

    losses = {
        "absolute_error": (keras_vqvae2.losses.AbsoluteError(), 2.0),  # of pixels in [-1, 1]
        "lpips": (keras_vqvae2.losses.LPIPSDistance("vgg16"), 1.0),
    }
    vqgan = keras_vqvae2.VQGAN((32, 32, 3), 32, (1, 1), reconstruction_losses=losses)
    discriminator = keras_vqvae2.PatchDiscriminator((32, 32, 3), filters=8, num_layers=2)
    model = keras_vqvae2.AdversarialVQVAE2(vqgan, discriminator, freeze_codes=False)
    ```

    Args:
        image_shape: `(height, width, channels)` of the images it is made for.
        hidden_units: Positive multiple of 32, channels of the largest map.
        channel_multipliers: At least two positive integers, the channels of each map in
            `hidden_units`, from the largest map to the smallest. The default makes codes of 16x16
            pixels each.
        residual_blocks: Positive integer, blocks of each map in the encoder; the decoder has one
            more.
        attention_factors: How much smaller than the image those maps are that have attention
            after each block. Defaults to the smallest map alone: `(16,)` where there are five, as
            in the models for ImageNet.
        latent_channels: Positive integer, channels between encoder or decoder and the 1x1
            convolutions beside the quantizer. Defaults to 256.
        quantizer: `layers.Quantizer`. Defaults to `VectorQuantizer(1024, 256)`; LlamaGen has
            `VectorQuantizer(16384, 8, similarity="cosine")`.
        data_variance: As in `VQVAE2`.
        reconstruction_losses: As in `VQVAE2`.
        dtype: As in `VQVAE2`.
        **kwargs: `name` and `trainable`.

    Raises:
        ValueError: If a size is not positive or does not fit the others.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    quantizer = keras_vqvae2.layers.VectorQuantizer(64, 8, similarity="cosine")
    vqgan = keras_vqvae2.VQGAN((16, 16, 3), 32, (1, 1, 2), 1, quantizer=quantizer)
    images = np.random.default_rng(0).uniform(size=(4, 16, 16, 3)).astype("float32")
    vqgan.compile(optimizer="adam")
    vqgan.fit(images, batch_size=2, verbose=0)
    codes = vqgan.encode(images)  # {"bottom": (4, 4, 4)}
    print(vqgan.decode(codes).shape)  # (4, 16, 16, 3)
    ```

    Reference:
        - Esser, Rombach, Ommer 2021, "Taming Transformers for High-Resolution Image Synthesis",
          arXiv 2012.09841, section 3.1 and appendix; github.com/CompVis/taming-transformers.
        - Sun et al. 2024, arXiv 2406.06525, section 2.2, for LlamaGen's.
    """

    def __init__(
        self,
        image_shape: Sequence[int] = (256, 256, 3),
        hidden_units: int = 128,
        channel_multipliers: Sequence[int] = (1, 1, 2, 2, 4),
        residual_blocks: int = 2,
        attention_factors: Sequence[int] | None = None,
        latent_channels: int = 256,
        quantizer: PerLevel[Quantizer] | None = None,
        data_variance: float | None = None,
        reconstruction_losses: Mapping[str, tuple[Loss, float]] | None = None,
        dtype: DTypePolicy = None,
        **kwargs: Any,
    ) -> None:
        channel_multipliers = tuple(channel_multipliers)
        if len(channel_multipliers) < 2 or any(int(m) != m or m < 1 for m in channel_multipliers):
            raise ValueError(
                "Expected at least two positive integers. "
                f"Received: channel_multipliers={channel_multipliers}"
            )
        check_positive(residual_blocks=residual_blocks, latent_channels=latent_channels)
        if hidden_units < 1 or hidden_units % GROUPS:
            raise ValueError(
                f"Expected a positive multiple of {GROUPS}. Received: hidden_units={hidden_units}"
            )
        factors = tuple(2**i for i in range(len(channel_multipliers)))
        if attention_factors is None:
            attention_factors = factors[-1:]
        attention_factors = tuple(attention_factors)
        if not set(attention_factors) <= set(factors):
            raise ValueError(
                f"Expected some of {factors}, which the maps are smaller than the image by. "
                f"Received: attention_factors={attention_factors}"
            )
        dtype = keras.dtype_policies.get(dtype)
        levels = (level,) = level_names(1)
        if quantizer is None:
            quantizer = VectorQuantizer(1024, 256)
        quantizers = quantizers_of_levels(quantizer, levels, None, None, dtype)

        # === Layers ===
        sizes: dict[str, Any] = {
            "hidden_units": hidden_units,
            "channel_multipliers": channel_multipliers,
            "residual_blocks": residual_blocks,
            "attention_factors": attention_factors,
            "latent_channels": latent_channels,
            "dtype": dtype,
        }
        encoder = VQGANEncoder(**sizes, name=f"encoder_{level}")
        to_vectors = vectors_conv(level, quantizers[level].embedding_dim, dtype)
        decoder = VQGANDecoder(**sizes, output_channels=image_shape[-1], name="pixel_decoder")
        super().__init__(
            image_shape,
            num_levels=1,
            hidden_units=hidden_units,
            residual_blocks=residual_blocks,
            downsample_factors=factors[-1:],
            data_variance=data_variance,
            quantizer=quantizers,
            reconstruction_losses=reconstruction_losses,
            dtype=dtype,
            networks=Networks({level: encoder}, {level: to_vectors}, {}, {}, decoder),
            **kwargs,
        )

        # === Config ===
        self.channel_multipliers = channel_multipliers
        self.attention_factors = attention_factors
        self.latent_channels = latent_channels

    def get_config(self) -> Config:
        config = super().get_config()
        return {
            **{name: value for name, value in config.items() if name not in _OF_VQVAE2},
            "channel_multipliers": list(self.channel_multipliers),
            "attention_factors": list(self.attention_factors),
            "latent_channels": self.latent_channels,
        }
