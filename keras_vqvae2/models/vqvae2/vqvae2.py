import functools
import hashlib
import math

import keras
import numpy as np
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.layers import QuantizerDropout, VectorQuantizer, VectorQuantizerEMA
from keras_vqvae2.metrics import (
    CodebookPerplexity,
    CodebookUsage,
    LPIPSDistance,
    PeakSignalNoiseRatio,
)
from keras_vqvae2.models.preset_model import PresetModel
from keras_vqvae2.models.vqvae2.code_checks import complete_codes
from keras_vqvae2.models.vqvae2.image_checks import (
    check_image_shape,
    check_images,
    check_source,
    to_unit_range,
)
from keras_vqvae2.models.vqvae2.levels import check_factors, check_positive, level_names
from keras_vqvae2.models.vqvae2.vqvae2_layers import LevelDecoder, LevelEncoder

QUANTIZERS = {"ema": VectorQuantizerEMA, "loss": VectorQuantizer}


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class VQVAE2(PresetModel):
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

    `model(images)` and `predict` return reconstructions, not clipped. The network is fully
    convolutional: it takes any image size that `downsampling` divides.

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
        image_shape=(256, 256, 3),
        num_levels=2,
        num_embeddings=512,
        embedding_dim=64,
        hidden_units=128,
        residual_units=64,
        residual_blocks=2,
        downsample_factors=None,
        downsample_kernel_size=3,
        upsample_kernel_size=4,
        commitment_cost=0.25,
        data_variance=1.0,
        quantizer="ema",
        decay=0.99,
        restart_threshold=0.1,
        gradient="straight_through",
        rectified_skip=False,
        quantizer_dropout=0.0,
        perceptual_weight=0.0,
        perceptual_network="alexnet",
        dtype=None,
        **kwargs,
    ):
        check_positive(
            num_levels=num_levels,
            num_embeddings=num_embeddings,
            embedding_dim=embedding_dim,
            hidden_units=hidden_units,
            residual_units=residual_units,
            downsample_kernel_size=downsample_kernel_size,
            upsample_kernel_size=upsample_kernel_size,
        )
        if hidden_units % 2:
            raise ValueError(f"Expected an even number. Received: hidden_units={hidden_units}")
        if not data_variance > 0:
            raise ValueError(f"Expected a positive number. Received: data_variance={data_variance}")
        if quantizer not in QUANTIZERS:
            raise ValueError(
                f"Expected one of {sorted(QUANTIZERS)}. Received: quantizer={quantizer!r}"
            )
        levels = level_names(num_levels)
        factors = check_factors(downsample_factors, num_levels)
        image_shape = tuple(image_shape)
        if len(image_shape) != 3 or any(int(s) != s or s < 1 for s in image_shape):
            raise ValueError(
                "Expected positive integers (height, width, channels). "
                f"Received: image_shape={image_shape}"
            )
        channels = image_shape[-1]
        check_image_shape((None, *image_shape), channels, math.prod(factors), "image_shape")
        if not 0 <= quantizer_dropout < 1:
            raise ValueError(
                f"Expected a number in [0, 1). Received: quantizer_dropout={quantizer_dropout}"
            )
        if perceptual_weight < 0:
            raise ValueError(
                f"Expected a non-negative weight. Received: perceptual_weight={perceptual_weight}"
            )
        if perceptual_weight:
            LPIPSDistance.check(perceptual_network, (None, *image_shape))

        # === Layers ===
        dtype = keras.dtype_policies.get(dtype)
        stack = {
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
        self._graph_tensors = {
            "vectors": vectors,
            "quantized": quantized,
            "codes": codes,
            "losses": losses,
        }

        self.reconstruction_tracker = keras.metrics.Mean(name="reconstruction_error")
        self.psnr_tracker = PeakSignalNoiseRatio(name="psnr")
        self.level_trackers = {
            level: {
                "commitment": keras.metrics.Mean(name=f"commitment_{level}"),
                "perplexity": CodebookPerplexity(num_embeddings, name=f"perplexity_{level}"),
                "usage": CodebookUsage(num_embeddings, name=f"usage_{level}"),
            }
            for level in levels
        }
        if perceptual_weight:
            self.perceptual_tracker = keras.metrics.Mean(name="lpips")
        self.gradient_norm_tracker = keras.metrics.Mean(name="gradient_norm")
        self.skipped_steps_tracker = keras.metrics.Sum(name="skipped_steps")

    # === Training ===

    def call(self, inputs, training=None, mask=None):
        check_image_shape(inputs.shape, self.image_shape[-1], self.downsampling, "inputs")
        return super().call(to_unit_range(inputs), training=training, mask=mask)

    @functools.cached_property
    def _step_graph(self):
        maps = {name: dict(tensors) for name, tensors in self._graph_tensors.items()}
        return keras.Model(self.input, {**maps, "reconstruction": self.output})

    @functools.cached_property
    def perceptual_distance(self):
        """`LPIPSDistance` of the loss, None without one. Weights are read at the first use."""
        return LPIPSDistance(self.perceptual_network) if self.perceptual_weight else None

    def step_outputs(self, x, training):
        """The forward pass of a training step, with all that the loss and the metrics look at."""
        images = to_unit_range(ops.convert_to_tensor(x))
        outputs = {**self._step_graph(images, training=training), "images": images}
        if self.perceptual_distance is not None:
            outputs["lpips"] = self.perceptual_distance(images, outputs["reconstruction"])
        return outputs

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
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

    def update_step_metrics(self, x, outputs, loss, weight):
        super().update_step_metrics(x, outputs, loss, weight)
        images, reconstruction = outputs["images"], outputs["reconstruction"]
        self._track_error(self.reconstruction_tracker, images, reconstruction, weight)
        if self.perceptual_weight:
            self._track(self.perceptual_tracker, outputs["lpips"], weight)
        self.psnr_tracker.update_state(images, reconstruction, sample_weight=weight)
        for level, trackers in self.level_trackers.items():
            vectors, quantized = outputs["vectors"][level], outputs["quantized"][level]
            self._track_error(trackers["commitment"], vectors, quantized, weight)
            trackers["perplexity"].update_state(outputs["codes"][level], sample_weight=weight)
            trackers["usage"].update_state(outputs["codes"][level], sample_weight=weight)

    def _track_error(self, tracker, a, b, weight):
        error = ops.square(ops.cast(a, "float32") - ops.cast(b, "float32"))
        self._track(tracker, ops.mean(error, axis=(1, 2, 3)), weight)

    @staticmethod
    def _track(tracker, values, weight):
        keep = ops.broadcast_to(weight, ops.shape(values))
        values = ops.where(keep > 0, values, ops.zeros_like(values))
        tracker.update_state(values, sample_weight=keep)

    def _check_ready(self, x):
        check_source(x, self.image_shape[-1], self.downsampling)
        _ = self.perceptual_distance  # reads its weights, or says what to install

    def fit(self, x=None, *args, **kwargs):
        """Trains on images alone, as `keras.Model.fit` does: `x` without `y` (labels are ignored).

        Args:
            x: Array of images, floats in `[0, 1]` or uint8, or any data set Keras takes.
            *args: Further arguments of `keras.Model.fit`.
            **kwargs: Further arguments of `keras.Model.fit`.

        Raises:
            ValueError: If sizes, channels, dtype or range of the (first batch of) images do not
                fit, or there are none.
            ImportError: If there is a `perceptual_weight` and its weights are not installed.
        """
        self._check_ready(x)
        return super().fit(x, *args, **kwargs)

    def evaluate(self, x=None, *args, **kwargs):
        """Computes the metrics on images, as `keras.Model.evaluate` does; checks as in `fit`."""
        self._check_ready(x)
        return super().evaluate(x, *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        """Reconstructs images, as `keras.Model.predict` does; checks as in `fit`."""
        check_source(x, self.image_shape[-1], self.downsampling)
        return super().predict(x, *args, **kwargs)

    # === Codes ===

    @functools.cached_property
    def encoder(self):
        """Model from images in `[0, 1]` to the dict of code maps."""
        return keras.Model(self.input, dict(self._graph_tensors["codes"]), name="encoder")

    @functools.cached_property
    def decoder(self):
        """Model from the dict of code maps (-1: unknown) to images, not clipped."""
        maps = {
            level: keras.Input((None, None), dtype="int32", name=level) for level in self.levels
        }
        known = None
        for level, codes in maps.items():
            quantized = self.get_layer(f"quantizer_{level}")(codes, reverse=True)
            upsampler = None if known is None else self.get_layer(f"upsampler_{level}")
            known = join(known, quantized, upsampler)
        pixels = to_pixels(self.get_layer("pixel_decoder")(known))
        return keras.Model(maps, pixels, name="decoder")

    def encode(self, images, batch_size=32, verbose=0):
        """Encodes images.

        Args:
            images: Array of shape `(N, H, W, C)`, floats in `[0, 1]` or uint8.
            batch_size: Positive integer, images at a time.
            verbose: 1 shows a progress bar.

        Returns:
            Dict from level to int32 codes, coarse to fine: for the paper's model at 256x256
            `{"top": (N, 32, 32), "bottom": (N, 64, 64)}`.

        Raises:
            ValueError: If sizes, channels, dtype or range of the images do not fit.
        """
        images = ops.convert_to_numpy(images)
        check_images(images, self.image_shape[-1], self.downsampling)
        backend.sync_training_state(self)
        if images.dtype == np.uint8:
            images = images.astype("float32") / 255.0
        codes = predict_in_parts(self.encoder, images, batch_size, verbose)
        return {level: codes[level] for level in self.levels}

    def decode(self, codes, batch_size=32, verbose=0):
        """Decodes maps of codes.

        Args:
            codes: Dict from level to integer codes, as `encode` returns it. Levels that are left
                out are filled with their mean code: `decode({"top": …})` shows what the top
                level alone holds.
            batch_size: Positive integer, images at a time.
            verbose: 1 shows a progress bar.

        Returns:
            float32 images in `[0, 1]`, shape `(N, H, W, C)`.

        Raises:
            ValueError: If a level is not one of the model's, sizes do not fit each other, or a code
                is not in `[0, num_embeddings)`.
        """
        unit = self.code_shapes((self.downsampling, self.downsampling))
        codes = complete_codes(codes, unit, self.num_embeddings)
        backend.sync_training_state(self)
        images = predict_in_parts(self.decoder, codes, batch_size, verbose)
        return np.clip(images, 0.0, 1.0)

    def code_shapes(self, image_size=None):
        """Sizes of the code maps.

        Args:
            image_size: `(height, width)` of the images; those of `image_shape` by default.

        Returns:
            Dict from level to `(rows, columns)`, coarse to fine.
        """
        height, width = image_size or self.image_shape[:2]
        shapes = {}
        for i, level in enumerate(self.levels):
            factor = math.prod(self.downsample_factors[i:])
            shapes[level] = (height // factor, width // factor)
        return shapes

    def fingerprint(self):
        """A name for what this model's codes mean: equal weights, equal fingerprint.

        Returns:
            String of 16 hexadecimal digits, of a hash of all weights.
        """
        backend.sync_training_state(self)
        digest = hashlib.sha256()
        for variable in self.weights:
            digest.update(np.ascontiguousarray(ops.convert_to_numpy(variable)).tobytes())
        return digest.hexdigest()[:16]

    def get_config(self):
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


def predict_in_parts(model, inputs, batch_size, verbose):
    """`model.predict`, of any number of examples on any number of devices that share a batch."""
    multiple = backend.batch_multiple()
    count = len(keras.tree.flatten(inputs)[0])
    padding = -count % multiple
    if padding:
        repeated = np.minimum(np.arange(count + padding), count - 1)
        inputs = keras.tree.map_structure(lambda x: x[repeated], inputs)
    batch_size = -(-batch_size // multiple) * multiple
    outputs = model.predict(inputs, batch_size=batch_size, verbose=verbose)
    return keras.tree.map_structure(lambda x: x[:count], outputs)


def to_pixels(x):
    """Pixels in `[0, 1]` of the network's, which are about `[-1, 1]`. float32, not clipped."""
    return 0.5 * ops.cast(x, "float32") + 0.5


def join(known, quantized, upsampler):
    """Quantized maps so far, at the size of the newest. `(B, H, W, D * levels so far)`."""
    if known is None:
        return quantized
    return ops.concatenate([upsampler(known), quantized], axis=-1)
