import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Config, DTypePolicy, Tensor, TensorTree
from keras_vqvae2.layers import QuantizerDropout
from keras_vqvae2.metrics import LPIPSDistance
from keras_vqvae2.models.checked_training import CheckedTraining
from keras_vqvae2.models.preset_model import PresetModel
from keras_vqvae2.models.vqvae2.config_checks import QUANTIZERS, check_config
from keras_vqvae2.models.vqvae2.image_checks import check_image_shape, check_source, to_unit_range
from keras_vqvae2.models.vqvae2.levels import level_names
from keras_vqvae2.models.vqvae2.vqvae2_codes import VQVAE2Codes
from keras_vqvae2.models.vqvae2.vqvae2_layers import LevelDecoder, LevelEncoder, join, to_pixels
from keras_vqvae2.models.vqvae2.vqvae2_metrics import VQVAE2Metrics


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class VQVAE2(VQVAE2Codes, VQVAE2Metrics, CheckedTraining, PresetModel):
    """The hierarchical VQ-VAE: images to a few small maps of codes, and back.

    Encoding (the paper's algorithm 1, here for the two levels `top` and `bottom`):

    ```
    h_bottom = E_bottom(x)                       h_top = E_top(h_bottom)
    e_top    = Quantize(h_top)
    e_bottom = Quantize(conv_1x1([D_top(e_top), h_bottom]))
    x'       = D([upsample(e_top), e_bottom])
    ```

    With more levels each one sees all coarser ones: the quantized maps so far are upsampled, joined
    with the new one, and handed on. Levels are named, coarse to fine, `bottom`; `top`, `bottom`;
    `top`, `middle`, `bottom`; and from four on `level_0`, `level_1`, …

    The loss of a batch is

    ```
    mean((x - x')^2) / data_variance + commitment_cost * sum over levels of mean((h - sg(e))^2)
        + perceptual_weight * LPIPS(x, x')
    ```

    with pixels in `[0, 1]` and means over batch, positions and channels. `data_variance` sets the
    scale on which `commitment_cost` is measured: 1.0 is the plain squared error, 0.25 the plain
    squared error of pixels in `[-1, 1]`, the variance of the pixels the normalised error of
    DeepMind's released example. The last term is not the paper's: it buys reconstructions that
    look sharper with some squared error, and needs `keras_vqvae2.metrics.LPIPSDistance`.

    A training step whose loss or gradients are not finite changes no weight, no optimizer state and
    no codebook; it is counted as `skipped_steps` (under `mixed_float16` the loss scale halves, as
    it must). `fit` and `evaluate` report `loss`, `reconstruction_error` (mean squared error of
    pixels in `[0, 1]`), `psnr` in dB, and for each level `commitment_…` (mean squared distance of
    vector and code), `perplexity_…` and `usage_…` (share of codes in use); `fit` also
    `gradient_norm`. With a `perceptual_weight` both report `lpips`. Codebook metrics run over the
    epoch.

    Images are floats in `[0, 1]` or uint8, in arrays or any data set Keras takes. `model(images)`
    and `predict` return reconstructions, not clipped. The network is fully convolutional: it takes
    any image size that `downsampling` divides.

    Args:
        image_shape: `(height, width, channels)` of the images it is made for. Defaults to
            `(256, 256, 3)` (paper, ImageNet).
        num_levels: Positive integer. Defaults to 2 (paper, ImageNet; 3 for FFHQ at 1024).
        num_embeddings: Positive integer, codes a level. Defaults to 512 (paper).
        embedding_dim: Positive integer, width of a code. Defaults to 64 (paper).
        hidden_units: Even positive integer, channels of the maps. Defaults to 128 (paper).
        residual_units: Positive integer, channels inside a residual block. Defaults to 64 (paper).
        residual_blocks: Non-negative integer, blocks a stack. Defaults to 2 (paper).
        downsample_factors: Tuple of powers of two, coarse to fine: how much smaller each level's
            map is than what it is made from, the last one from pixels to the bottom map. Defaults
            to the paper's, `(2, 4)` with two levels and `(2, 2, 8)` with three; generally 2 for
            each level above the bottom, and 4 below it with up to two levels, else 8.
        downsample_kernel_size: Positive integer, filter of the encoders' strided convolutions.
            Defaults to 3 (paper); DeepMind's released example has 4.
        upsample_kernel_size: Positive integer, filter of the transposed convolutions. Defaults to
            4 (paper).
        commitment_cost: Non-negative float, the paper's beta. Defaults to 0.25 (paper).
        data_variance: Positive float, divides the reconstruction error. Defaults to 1.0 (the
            paper's loss is plain; its scale of pixels is not published).
        quantizer: `"ema"` (paper) for `VectorQuantizerEMA` or `"loss"` for `VectorQuantizer`.
        decay: Float in `[0, 1)`, of the codebooks' moving averages. Defaults to 0.99 (paper).
        restart_threshold: Float in `[0, 1)`, see `VectorQuantizer`.
        gradient: `"straight_through"` (paper) or `"rotation"`, see `VectorQuantizer`.
        rectified_skip: Boolean, see `ResidualStack`.
        quantizer_dropout: Float in `[0, 1)`, share of the training images that lose a level's
            codes, for each level but the coarsest; see `QuantizerDropout`. Defaults to 0.0
            (paper). Without it the finest level learns to hold nearly everything, and the coarser
            maps tell a prior little. Training metrics count the images with lost levels too.
        perceptual_weight: Non-negative float, weight of the perceptual distance. Defaults to 0.0
            (paper).
        perceptual_network: `"alexnet"` or `"vgg16"`, see `LPIPSDistance`.
        dtype: Dtype policy of the layers, such as `"mixed_bfloat16"`. Codebooks, losses and
            reconstructions are float32 whatever it is.
        **kwargs: `name` and `trainable`.

    Raises:
        ValueError: If a size is not positive, or `image_shape` is not divided by `downsampling`,
            or a perceptual distance is asked for of images that it does not take.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_vqvae2

    images = np.random.default_rng(0).uniform(size=(8, 32, 32, 3)).astype("float32")
    vqvae = keras_vqvae2.VQVAE2(image_shape=(32, 32, 3), hidden_units=16, residual_units=8)
    vqvae.compile(optimizer=keras.optimizers.Adam(3e-4))
    vqvae.fit(images, batch_size=4, verbose=0)
    codes = vqvae.encode(images)  # {"top": (8, 4, 4), "bottom": (8, 8, 8)}
    print(vqvae.decode(codes).shape)  # (8, 32, 32, 3)
    ```

    Reference:
        - Razavi, van den Oord, Vinyals 2019, "Generating Diverse High-Fidelity Images with
          VQ-VAE-2", arXiv 1906.00446, sections 2.1 and 3.1, appendix A.1.
    """

    def __init__(
        self,
        image_shape: Sequence[int] = (256, 256, 3),
        num_levels: int = 2,
        num_embeddings: int = 512,
        embedding_dim: int = 64,
        hidden_units: int = 128,
        residual_units: int = 64,
        residual_blocks: int = 2,
        downsample_factors: Sequence[int] | None = None,
        downsample_kernel_size: int = 3,
        upsample_kernel_size: int = 4,
        commitment_cost: float = 0.25,
        data_variance: float = 1.0,
        quantizer: str = "ema",
        decay: float = 0.99,
        restart_threshold: float = 0.1,
        gradient: str = "straight_through",
        rectified_skip: bool = False,
        quantizer_dropout: float = 0.0,
        perceptual_weight: float = 0.0,
        perceptual_network: str = "alexnet",
        dtype: DTypePolicy = None,
        **kwargs: Any,
    ) -> None:
        image_shape = tuple(image_shape)
        factors = check_config(
            image_shape,
            downsample_factors,
            data_variance,
            quantizer,
            quantizer_dropout,
            perceptual_weight,
            perceptual_network,
            num_levels=num_levels,
            num_embeddings=num_embeddings,
            embedding_dim=embedding_dim,
            hidden_units=hidden_units,
            residual_units=residual_units,
            downsample_kernel_size=downsample_kernel_size,
            upsample_kernel_size=upsample_kernel_size,
        )
        levels, channels = level_names(num_levels), image_shape[-1]

        # === Layers ===
        dtype = keras.dtype_policies.get(dtype)
        stack: dict[str, Any] = {
            "hidden_units": hidden_units,
            "residual_units": residual_units,
            "residual_blocks": residual_blocks,
            "rectified_skip": rectified_skip,
            "dtype": dtype,
        }
        encoders, to_vectors, quantizers, conditioners, upsamplers = {}, {}, {}, {}, {}
        for i, level in enumerate(levels):
            encoders[level] = LevelEncoder(
                factors[i], kernel_size=downsample_kernel_size, name=f"encoder_{level}", **stack
            )
            to_vectors[level] = keras.layers.Conv2D(
                embedding_dim, 1, dtype=dtype, name=f"to_vectors_{level}"
            )
            quantizers[level] = QUANTIZERS[quantizer](
                num_embeddings,
                embedding_dim,
                commitment_cost=commitment_cost,
                decay=decay,
                restart_threshold=restart_threshold,
                gradient=gradient,
                dtype=dtype,
                name=f"quantizer_{level}",
            )
            if i == 0:
                continue
            # What is known from the coarser levels: i maps of codes side by side.
            conditioners[level] = LevelDecoder(
                factors[i - 1],
                embedding_dim,
                kernel_size=upsample_kernel_size,
                name=f"conditioner_{level}",
                **stack,
            )
            upsamplers[level] = keras.layers.Conv2DTranspose(
                embedding_dim * i,
                upsample_kernel_size * factors[i - 1] // 2,
                strides=factors[i - 1],
                padding="same",
                dtype=dtype,
                name=f"upsampler_{level}",
            )
        pixel_decoder = LevelDecoder(
            factors[-1], channels, kernel_size=upsample_kernel_size, name="pixel_decoder", **stack
        )

        # === Functional Model ===
        images = keras.Input((None, None, channels), name="images")
        features, x = {}, 2.0 * images - 1.0
        for level in reversed(levels):
            x = features[level] = encoders[level](x)
        vectors, quantized, codes, losses, known = {}, {}, {}, {}, None
        for level in levels:
            x = features[level]
            if known is not None:
                x = ops.concatenate([conditioners[level](known), x], axis=-1)
            vectors[level] = to_vectors[level](x)
            quantized[level], codes[level], losses[level] = quantizers[level](
                vectors[level], return_loss=True
            )
            new = quantized[level]
            if known is not None and quantizer_dropout:
                nothing = ops.full_like(codes[level], -1)
                mean = quantizers[level](nothing, reverse=True)
                name = f"quantizer_dropout_{level}"
                new = QuantizerDropout(quantizer_dropout, dtype=dtype, name=name)(new, mean)
            known = join(known, new, upsamplers.get(level))
        reconstruction = to_pixels(pixel_decoder(known))
        super().__init__(inputs=images, outputs=reconstruction, dtype=dtype, **kwargs)

        # === Config ===
        self.image_shape = image_shape
        self.num_levels = num_levels
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.hidden_units = hidden_units
        self.residual_units = residual_units
        self.residual_blocks = residual_blocks
        self.downsample_factors = factors
        self.downsample_kernel_size = downsample_kernel_size
        self.upsample_kernel_size = upsample_kernel_size
        self.commitment_cost = commitment_cost
        self.data_variance = data_variance
        self.quantizer = quantizer
        self.decay = decay
        self.restart_threshold = restart_threshold
        self.gradient = gradient
        self.rectified_skip = rectified_skip
        self.quantizer_dropout = quantizer_dropout
        self.perceptual_weight = perceptual_weight
        self.perceptual_network = perceptual_network

        self.levels = levels
        self.downsampling = math.prod(factors)
        maps = {"vectors": vectors, "quantized": quantized, "codes": codes, "losses": losses}
        self._graph_tensors = maps
        self._make_trackers()

    # === Training ===

    def call(
        self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None
    ) -> Tensor:
        check_image_shape(inputs.shape, self.image_shape[-1], self.downsampling, "inputs")
        return super().call(to_unit_range(inputs), training=training, mask=mask)

    @functools.cached_property
    def _step_graph(self):
        maps = {name: dict(tensors) for name, tensors in self._graph_tensors.items()}
        return keras.Model(self.input, {**maps, "reconstruction": self.output})

    @functools.cached_property
    def perceptual_distance(self) -> LPIPSDistance | None:
        """`LPIPSDistance` of the loss, None without one. Weights are read at the first use."""
        return LPIPSDistance(self.perceptual_network) if self.perceptual_weight else None

    def step_outputs(self, x: Tensor, training: bool) -> TensorTree:
        """The forward pass of a training step, with all that the loss and the metrics look at."""
        images = to_unit_range(ops.convert_to_tensor(x))
        outputs = {**self._step_graph(images, training=training), "images": images}
        if self.perceptual_distance is not None:
            outputs["lpips"] = self.perceptual_distance(images, outputs["reconstruction"])
        return outputs

    def compute_loss(
        self,
        x: Tensor | None = None,
        y: Tensor | None = None,
        y_pred: TensorTree = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        """The loss of the class docstring.

        Args:
            x: The batch, not used.
            y: Labels, not used.
            y_pred: What `step_outputs` returned for the batch.
            sample_weight: None, or weights of shape `(batch,)` for the reconstruction errors and
                perceptual distances.
            training: Not used.

        Returns:
            float32 of shape `()`.
        """
        error = ops.square(y_pred["images"] - y_pred["reconstruction"])
        error = ops.mean(ops.cast(error, "float32"), axis=(1, 2, 3))  # (batch,)
        error = error / self.data_variance
        if self.perceptual_weight:
            error = error + self.perceptual_weight * y_pred["lpips"]
        if sample_weight is not None:
            error = error * ops.cast(sample_weight, "float32")
        return ops.mean(error) + sum(y_pred["losses"].values())

    def _check_data(self, x, with_loss):
        check_source(x, self.image_shape[-1], self.downsampling)
        if with_loss:
            _ = self.perceptual_distance  # reads its weights, or says what to install
        return x

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "image_shape": list(self.image_shape),
            "num_levels": self.num_levels,
            "num_embeddings": self.num_embeddings,
            "embedding_dim": self.embedding_dim,
            "hidden_units": self.hidden_units,
            "residual_units": self.residual_units,
            "residual_blocks": self.residual_blocks,
            "downsample_factors": list(self.downsample_factors),
            "downsample_kernel_size": self.downsample_kernel_size,
            "upsample_kernel_size": self.upsample_kernel_size,
            "commitment_cost": self.commitment_cost,
            "data_variance": self.data_variance,
            "quantizer": self.quantizer,
            "decay": self.decay,
            "restart_threshold": self.restart_threshold,
            "gradient": self.gradient,
            "rectified_skip": self.rectified_skip,
            "quantizer_dropout": self.quantizer_dropout,
            "perceptual_weight": self.perceptual_weight,
            "perceptual_network": self.perceptual_network,
        }
