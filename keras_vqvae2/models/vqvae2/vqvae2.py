import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Codes, Config, DTypePolicy, Loss, PerLevel, Tensor, TensorTree
from keras_vqvae2.image_batches import to_numpy, to_unit_floats
from keras_vqvae2.layers import Quantizer, QuantizerDropout
from keras_vqvae2.losses import ReconstructionLoss
from keras_vqvae2.metrics import CodebookPerplexity, CodebookUsage, PeakSignalNoiseRatio
from keras_vqvae2.models.guarded_model import MeanOfSome, track, track_error
from keras_vqvae2.models.preset_model import PresetModel
from keras_vqvae2.models.vqvae2.levels import check_factors, codes_by_position, level_names
from keras_vqvae2.models.vqvae2.vqvae2_config import (
    checked_losses,
    quantizers_of_levels,
    read_config,
    refuse_moved_arguments,
)
from keras_vqvae2.models.vqvae2.vqvae2_layers import (
    LossesOfQuantizers,
    ModelOfImages,
    join,
    networks_of_levels,
    predict_in_parts,
    to_pixels,
)
from keras_vqvae2.models.vqvae2.vqvae2_presets import FINGERPRINTS_OF_0_1
from keras_vqvae2.validation import (
    check_image_shape,
    check_images,
    check_positive,
    check_share,
    first_batch,
    weigh_examples,
)


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
    sum over reconstruction losses of weight * loss(x, x')
        + sum over levels of the quantizer's loss, such as commitment_cost * mean((h - sg(e))^2)
    ```

    with pixels in `[0, 1]` and means over batch, positions and channels. The paper's only
    reconstruction loss is the squared error. Its weight `1 / data_variance` sets the scale on which
    the quantizer's loss is measured: a `data_variance` of 1.0 is the plain squared error, 0.25 the
    plain squared error of pixels in `[-1, 1]`, the variance of the pixels the normalised error of
    DeepMind's released example.

    A training step whose loss or gradients are not finite changes no weight, no optimizer state and
    no codebook; it is counted as `skipped_steps` (under `mixed_float16` the loss scale halves, as
    it must). `fit` and `evaluate` report `loss`, `reconstruction_error` (mean squared error of
    pixels in `[0, 1]`), `psnr` in dB, each reconstruction loss but `squared_error` by its name, and
    for each level `commitment_…` (mean squared distance of vector and code), `perplexity_…` and
    `usage_…` (share of codes in use); `fit` also `gradient_norm`. Codebook metrics run over the
    epoch.

    Images are floats in `[0, 1]` or uint8, in arrays or any data set Keras takes. `model(images)`
    and `predict` return reconstructions, not clipped. The network is fully convolutional: it takes
    any image size that `downsampling` divides. As a layer of a bigger model it adds the quantizers'
    losses to that model's.

    Args:
        image_shape: `(height, width, channels)` of the images it is made for. Defaults to
            `(256, 256, 3)` (paper, ImageNet).
        num_levels: Positive integer. Defaults to 2 (paper, ImageNet; 3 for FFHQ at 1024).
        quantizer: `layers.Quantizer`, of which each level gets one of its own, made from its
            config; or a dict from level to one. Defaults to the paper's
            `VectorQuantizerEMA(num_embeddings, embedding_dim)`.
        num_embeddings: Positive integer, codes a level of the default quantizer. Defaults to 512
            (paper).
        embedding_dim: Positive integer, width of a code of the default quantizer. Defaults to 64
            (paper).
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
        reconstruction_losses: Dict from name to a pair: a `losses.ReconstructionLoss`, or another
            function from images and reconstructions to float32 of shape `(batch,)`, and its weight,
            a positive float. Defaults to `{"squared_error": (SquaredError(), 1 / data_variance)}`.
        data_variance: Positive float, divides the default reconstruction loss. Defaults to 1.0 (the
            paper's loss is plain; its scale of pixels is not published).
        rectified_skip: Boolean, see `ResidualStack`.
        quantizer_dropout: Float in `[0, 1)`, share of the training images that lose a level's
            codes, for each level but the coarsest; see `QuantizerDropout`. Defaults to 0.0
            (paper). Without it the finest level learns to hold nearly everything, and the coarser
            maps tell a prior little. Training metrics count the images with lost levels too.
        dtype: Dtype policy of the layers, such as `"mixed_bfloat16"`. Codebooks, losses and
            reconstructions are float32 whatever it is.
        **kwargs: `name` and `trainable`.

    Attributes:
        levels: Names of the levels, coarse to fine.
        downsampling: How many times smaller than the image the coarsest map is.
        quantizers: Dict from level to its quantizer.
        num_embeddings: Dict from level to its number of codes.

    Raises:
        ValueError: If a size is not positive, or `image_shape` is not divided by `downsampling`,
            or a loss is asked for of images that it does not take.

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
        num_embeddings: int | None = None,
        embedding_dim: int | None = None,
        hidden_units: int = 128,
        residual_units: int = 64,
        residual_blocks: int = 2,
        downsample_factors: Sequence[int] | None = None,
        downsample_kernel_size: int = 3,
        upsample_kernel_size: int = 4,
        data_variance: float | None = None,
        quantizer: PerLevel[Quantizer] | None = None,
        reconstruction_losses: Mapping[str, tuple[Loss, float]] | None = None,
        rectified_skip: bool = False,
        quantizer_dropout: float = 0.0,
        dtype: DTypePolicy = None,
        **kwargs: Any,
    ) -> None:
        refuse_moved_arguments(kwargs)
        image_shape = tuple(image_shape)
        check_positive(
            num_levels=num_levels,
            hidden_units=hidden_units,
            residual_units=residual_units,
            downsample_kernel_size=downsample_kernel_size,
            upsample_kernel_size=upsample_kernel_size,
        )
        if hidden_units % 2:
            raise ValueError(f"Expected an even number. Received: hidden_units={hidden_units}")
        check_share("quantizer_dropout", quantizer_dropout)
        factors = check_factors(downsample_factors, num_levels)
        if len(image_shape) != 3 or any(int(s) != s or s < 1 for s in image_shape):
            raise ValueError(
                "Expected positive integers (height, width, channels). "
                f"Received: image_shape={image_shape}"
            )
        levels, channels = level_names(num_levels), image_shape[-1]
        shape = (None, *image_shape)
        check_image_shape(shape, channels, math.prod(factors), "image_shape")
        dtype = keras.dtype_policies.get(dtype)
        quantizers = quantizers_of_levels(quantizer, levels, num_embeddings, embedding_dim, dtype)
        losses = checked_losses(reconstruction_losses, data_variance, shape)

        # === Layers ===
        # A subclass brings its own.
        networks = kwargs.pop("networks", None) or networks_of_levels(
            dict(zip(levels, factors)),
            {level: quantizer.embedding_dim for level, quantizer in quantizers.items()},
            channels,
            downsample_kernel_size,
            upsample_kernel_size,
            hidden_units=hidden_units,
            residual_units=residual_units,
            residual_blocks=residual_blocks,
            rectified_skip=rectified_skip,
            dtype=dtype,
        )

        # === Functional Model ===
        images = keras.Input((None, None, channels), name="images")
        features, x = {}, 2.0 * images - 1.0
        for level in reversed(levels):
            x = features[level] = networks.encoders[level](x)
        vectors, quantized, codes, quantizer_losses, known = {}, {}, {}, {}, None
        for level in levels:
            x = features[level]
            if known is not None:
                x = ops.concatenate([networks.conditioners[level](known), x], axis=-1)
            vectors[level] = networks.to_vectors[level](x)
            quantized[level], codes[level], quantizer_losses[level] = quantizers[level](
                vectors[level], return_loss=True
            )
            new = quantized[level]
            if known is not None and quantizer_dropout:
                nothing = ops.full_like(codes[level], -1)
                mean = quantizers[level](nothing, reverse=True)
                name = f"quantizer_dropout_{level}"
                new = QuantizerDropout(quantizer_dropout, dtype=dtype, name=name)(new, mean)
            known = join(known, new, networks.upsamplers.get(level))
        # For a bigger model that this one is a layer of: its own steps do not look at them.
        added = LossesOfQuantizers(name="losses_of_quantizers")
        pixels = to_pixels(networks.pixel_decoder(known))
        reconstruction = added(pixels, list(quantizer_losses.values()))
        super().__init__(inputs=images, outputs=reconstruction, dtype=dtype, **kwargs)

        # === Config ===
        self.image_shape = image_shape
        self.num_levels = num_levels
        self.hidden_units = hidden_units
        self.residual_units = residual_units
        self.residual_blocks = residual_blocks
        self.downsample_factors = factors
        self.downsample_kernel_size = downsample_kernel_size
        self.upsample_kernel_size = upsample_kernel_size
        self.reconstruction_losses = losses
        self.rectified_skip = rectified_skip
        self.quantizer_dropout = quantizer_dropout

        self.levels = levels
        self.downsampling = math.prod(factors)
        self._known = known
        self._graph_tensors = {
            "vectors": vectors,
            "quantized": quantized,
            "codes": codes,
            "quantizer_losses": quantizer_losses,
        }
        self._make_trackers()

    def _make_trackers(self):
        super()._make_trackers()
        self.reconstruction_tracker = MeanOfSome(name="reconstruction_error")
        self.psnr_tracker = PeakSignalNoiseRatio(name="psnr")
        self.loss_trackers = {
            name: MeanOfSome(name=name)
            for name in self.reconstruction_losses
            if name != "squared_error"
        }
        self.level_trackers = {
            level: {
                "commitment": MeanOfSome(name=f"commitment_{level}"),
                "perplexity": CodebookPerplexity(number, name=f"perplexity_{level}"),
                "usage": CodebookUsage(number, name=f"usage_{level}"),
            }
            for level, number in self.codebook_sizes.items()
        }

    @property
    def quantizers(self) -> dict[str, Quantizer]:
        """The quantizer of each level, coarse to fine."""
        return {level: self.get_layer(f"quantizer_{level}") for level in self.levels}

    @property
    def num_embeddings(self) -> dict[str, int]:
        """The number of codes of each level, coarse to fine."""
        return {level: layer.num_embeddings for level, layer in self.quantizers.items()}

    @property
    def code_sizes(self) -> dict[str, tuple[int, ...]]:
        """How many codes there are of each that a position of a level has, coarse to fine."""
        return {level: layer.code_sizes for level, layer in self.quantizers.items()}

    @property
    def codebook_sizes(self) -> dict[str, int | tuple[int, ...]]:
        """What codebook metrics count of each level, coarse to fine: `num_embeddings` of them."""
        return {level: layer.codebook_sizes for level, layer in self.quantizers.items()}

    @property
    def code_axes(self) -> dict[str, tuple[int, ...]]:
        """The shape of the codes of a position of each level, coarse to fine: mostly `()`."""
        return {level: layer.code_axes for level, layer in self.quantizers.items()}

    # === Training ===

    def call(
        self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None
    ) -> Tensor:
        check_image_shape(inputs.shape, self.image_shape[-1], self.downsampling, "inputs")
        return super().call(to_unit_floats(inputs), training=training, mask=mask)

    @functools.cached_property
    def _step_graph(self):
        maps = {name: dict(tensors) for name, tensors in self._graph_tensors.items()}
        return keras.Model(self.input, {**maps, "reconstruction": self.output})

    def step_outputs(self, x: Tensor, training: bool) -> TensorTree:
        """The forward pass of a training step, with all that the loss and the metrics look at."""
        images = to_unit_floats(ops.convert_to_tensor(x))
        outputs = self._step_graph(images, training=training)
        terms = self.reconstruction_terms(images, outputs["reconstruction"])
        return {**outputs, "images": images, "reconstruction_losses": terms}

    def reconstruction_terms(self, images: Tensor, reconstruction: Tensor) -> dict[str, Tensor]:
        """Each of the reconstruction losses of each image, not weighted: float32 `(batch,)`."""
        return {
            name: ops.cast(loss(images, reconstruction), "float32")
            for name, (loss, _) in self.reconstruction_losses.items()
        }

    def reconstruction_error(
        self, terms: Mapping[str, Tensor], sample_weight: Tensor | None = None
    ) -> Tensor:
        """The weighted sum of `reconstruction_terms`, mean over images: float32 of shape `()`."""
        error = sum(
            weight * terms[name] for name, (_, weight) in self.reconstruction_losses.items()
        )  # (batch,)
        return ops.mean(weigh_examples(error, sample_weight))

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
            sample_weight: None, or weights of shape `(batch,)` for the reconstruction losses.
            training: Not used.

        Returns:
            float32 of shape `()`.
        """
        error = self.reconstruction_error(y_pred["reconstruction_losses"], sample_weight)
        return error + sum(y_pred["quantizer_losses"].values())

    def update_step_metrics(
        self, x: Tensor, outputs: TensorTree, loss: Tensor, weight: Tensor
    ) -> None:
        super().update_step_metrics(x, outputs, loss, weight)
        self.update_reconstruction_metrics(outputs, weight)

    def reconstruction_metrics(self) -> list[keras.metrics.Metric]:
        """The metrics of images and codes, without `loss` and what only training has."""
        of_levels = [t for trackers in self.level_trackers.values() for t in trackers.values()]
        whole = [self.reconstruction_tracker, self.psnr_tracker]
        return [*whole, *self.loss_trackers.values(), *of_levels]

    def update_reconstruction_metrics(self, outputs: TensorTree, weight: Tensor) -> None:
        """Updates them, as `update_step_metrics` does."""
        images, reconstruction = outputs["images"], outputs["reconstruction"]
        track_error(self.reconstruction_tracker, images, reconstruction, weight)
        self.psnr_tracker.update_state(images, reconstruction, sample_weight=weight)
        for name, tracker in self.loss_trackers.items():
            track(tracker, outputs["reconstruction_losses"][name], weight)
        for level, trackers in self.level_trackers.items():
            vectors, quantized = outputs["vectors"][level], outputs["quantized"][level]
            track_error(trackers["commitment"], vectors, quantized, weight)
            trackers["perplexity"].update_state(outputs["codes"][level], sample_weight=weight)
            trackers["usage"].update_state(outputs["codes"][level], sample_weight=weight)

    def _check_data(self, x, with_loss):
        images, x = first_batch(x)
        if isinstance(images, dict):
            raise ValueError(f"Expected images. Received: x, a dict with the keys {tuple(images)}")
        if images is not None:
            check_images(images, self.image_shape[-1], self.downsampling, "x", nan_passes=with_loss)
        for loss, _ in self.reconstruction_losses.values() if with_loss else ():
            if isinstance(loss, ReconstructionLoss):
                loss.prepare()
        return x

    # === Codes ===

    @functools.cached_property
    def encoder(self) -> keras.Model:
        """Model from images, floats in `[0, 1]` or uint8, to the dict of code maps."""
        return ModelOfImages(self.input, dict(self._graph_tensors["codes"]), name="encoder")

    @functools.cached_property
    def decoder(self) -> keras.Model:
        """Model from the dict of code maps (-1: unknown) to images, not clipped."""
        maps = {
            level: keras.Input((None, None, *axes), dtype="int32", name=level)
            for level, axes in self.code_axes.items()
        }
        known = None
        for level, codes in maps.items():
            quantized = self.quantizers[level](codes, reverse=True)
            upsampler = None if known is None else self.get_layer(f"upsampler_{level}")
            known = join(known, quantized, upsampler)
        pixels = to_pixels(self.get_layer("pixel_decoder")(known))
        return keras.Model(maps, pixels, name="decoder")

    def encode(self, images: Tensor, batch_size: int = 32, verbose: int = 0) -> Codes:
        """Encodes images.

        Args:
            images: Array of shape `(N, H, W, C)`, floats in `[0, 1]` or uint8.
            batch_size: Positive integer, images at a time.
            verbose: 1 shows a progress bar.

        Returns:
            Dict from level to int32 codes, coarse to fine: for the paper's model at 256x256
            `{"top": (N, 32, 32), "bottom": (N, 64, 64)}`. Where a quantizer gives several codes a
            position, they are the last axis: `(N, rows, columns, depth)`.

        Raises:
            ValueError: If sizes, channels, dtype or range of the images do not fit.
        """
        images = to_numpy(images)
        check_images(images, self.image_shape[-1], self.downsampling)
        backend.sync_training_state(self)
        with self._variables_lock:
            codes = predict_in_parts(self.encoder, images, batch_size, verbose)
        return {level: codes[level] for level in self.levels}

    def decode(
        self, codes: Mapping[str, Tensor], batch_size: int = 32, verbose: int = 0
    ) -> np.ndarray:
        """Decodes maps of codes.

        Args:
            codes: Dict from level to integer codes, as `encode` returns it. Levels that are left
                out are filled with their mean code: `decode({"top": …})` shows what the top
                level alone holds. Several codes a position may also stand side by side, as priors
                draw them: `(N, rows, columns * depth)`.
            batch_size: Positive integer, images at a time.
            verbose: 1 shows a progress bar.

        Returns:
            float32 images in `[0, 1]`, shape `(N, H, W, C)`.

        Raises:
            ValueError: If a level is not one of the model's, sizes do not fit each other, or a code
                is not in `[0, num_embeddings)`.
        """
        whole = self._whole_codes(codes)
        backend.sync_training_state(self)
        with self._variables_lock:
            images = predict_in_parts(self.decoder, whole, batch_size, verbose)
        return np.clip(images, 0.0, 1.0)

    def _whole_codes(self, codes):
        """Checked maps of all levels, with -1 for those that are left out."""
        unit = self.code_shapes((self.downsampling, self.downsampling))
        if not codes or not set(codes) <= set(unit):
            raise ValueError(
                f"Expected a dict of code maps for some of the levels {self.levels}. "
                f"Received: codes for {tuple(codes)}"
            )
        known = {
            level: codes_by_position(
                value, self.num_embeddings[level], self.code_axes[level], f"codes[{level!r}]"
            )
            for level, value in codes.items()
        }
        sizes = {
            (len(value), value.shape[1] / unit[level][0], value.shape[2] / unit[level][1])
            for level, value in known.items()
        }
        if len(sizes) > 1:
            received = {level: value.shape for level, value in known.items()}
            raise ValueError(
                f"Expected maps of one image size: (rows, columns) a multiple of {unit}. "
                f"Received: codes of shapes {received}"
            )
        batch, rows, columns = sizes.pop()
        for level, (unit_rows, unit_columns) in unit.items():
            shape = (batch, round(rows * unit_rows), round(columns * unit_columns))
            known.setdefault(level, np.full((*shape, *self.code_axes[level]), -1))
        return {level: known[level].astype("int32") for level in unit}

    def code_shapes(self, image_size: Sequence[int] | None = None) -> dict[str, tuple[int, int]]:
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

    def token_shapes(self, image_size: Sequence[int] | None = None) -> dict[str, tuple[int, int]]:
        """Sizes of the code maps as priors see them.

        Args:
            image_size: As in `code_shapes`.

        Returns:
            Dict from level to `(rows, columns * depth)`, coarse to fine: where a position has
            several codes, they stand side by side, in order.
        """
        shapes = self.code_shapes(image_size)
        depths = {level: math.prod(axes) for level, axes in self.code_axes.items()}
        return {level: (rows, depths[level] * cols) for level, (rows, cols) in shapes.items()}

    def fingerprint(self) -> str:
        """A name for what this model's codes mean: equal codes, equal fingerprint.

        Returns:
            String of 16 hexadecimal digits, of a hash of the weights that codes depend on. Those
            that only decode are not among them.
        """
        backend.sync_training_state(self)
        return fingerprint_of(self.encoder.weights)

    def has_fingerprint(self, fingerprint: str) -> bool:
        """Whether codes of this fingerprint are this model's. Version 0.1 hashed all weights."""
        own = self.fingerprint()
        bundled = FINGERPRINTS_OF_0_1.get(own, own)
        return fingerprint in (own, bundled, fingerprint_of(self.weights))

    # === Config ===

    def get_config(self) -> Config:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "image_shape": list(self.image_shape),
            "num_levels": self.num_levels,
            "hidden_units": self.hidden_units,
            "residual_units": self.residual_units,
            "residual_blocks": self.residual_blocks,
            "downsample_factors": list(self.downsample_factors),
            "downsample_kernel_size": self.downsample_kernel_size,
            "upsample_kernel_size": self.upsample_kernel_size,
            "quantizer": {level: serialize(layer) for level, layer in self.quantizers.items()},
            "reconstruction_losses": {
                name: [serialize(loss), weight]
                for name, (loss, weight) in self.reconstruction_losses.items()
            },
            "rectified_skip": self.rectified_skip,
            "quantizer_dropout": self.quantizer_dropout,
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return super().from_config(read_config(config))


def fingerprint_of(variables):
    digest = hashlib.sha256()
    for variable in variables:
        digest.update(np.ascontiguousarray(ops.convert_to_numpy(variable)).tobytes())
    return digest.hexdigest()[:16]
