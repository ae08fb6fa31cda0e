import functools
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.decoding.draw_batches import draw_batches
from keras_vqvae2.decoding.row_decoder import RowDecoder
from keras_vqvae2.decoding.sampling import sample_uniforms
from keras_vqvae2.decoding.steps import Steps
from keras_vqvae2.hints import Config, DTypePolicy, Tensor, TensorTree
from keras_vqvae2.image_batches import filled_batches, to_numpy
from keras_vqvae2.layers.pixel_distribution import PixelDistribution
from keras_vqvae2.models.guarded_model import MeanOfSome, track
from keras_vqvae2.models.preset_model import PresetModel
from keras_vqvae2.validation import (
    SLICE,
    check_codes,
    check_integer,
    check_numbers,
    check_positive,
    first_batch,
    is_arrays,
    labels_of_all,
    weigh_examples,
)

LEVEL = "pixels"  # in place of a level's name in the key of random numbers


class PixelModel(PresetModel):
    """The distribution of images, pixel after pixel in raster order: what any model of pixels is.

    A subclass builds a functional graph from `pixel_inputs` to the parameters of a
    `layers.PixelDistribution` at each pixel, says which in `_distribution`, and cuts its network
    into steps in `_steps`, from which `generate` draws. Parameters of a pixel depend on the pixels
    before it, and where the distribution goes colour by colour, on the colours before.

    Data are images, or with classes a dict `{"image": images, "label": integers}`, in arrays or
    any data set Keras takes. A model that is told a map beside the image takes it as
    `"condition"`, floats of shape `(batch, height, width, condition_channels)`. Images are
    integers from 0 to `levels - 1`, such as uint8, or floats in `[0, 1]`; floats are rounded to the
    nearest level, with a warning where that changes them.

    The loss is the negative log-likelihood in nats a dimension (pixel and colour). `fit` and
    `evaluate` report it as `loss`, and as `bits_per_dim` and `nats_per_image`. `fit` adds
    `gradient_norm` and `skipped_steps`: a step that is not finite changes nothing. For averaged
    weights (Polyak) compile with an optimizer that has `use_ema=True`; Keras puts the averages in
    place when `fit` ends.

    Args:
        inputs: What `pixel_inputs` made.
        parameters: float32 of shape `(batch, height, width, num_parameters)`.
        image_shape: `(height, width, colours)`.
        num_classes: None, or the number of labels.
        levels: Integer of at least 2, values of a colour. Defaults to 256.
        condition_channels: None, or the channels of a map that the model is told.
        dtype: Dtype policy of the layers. Parameters and loss are float32.
        **kwargs: `name` and `trainable`.
    """

    def __init__(
        self,
        inputs: TensorTree,
        parameters: keras.KerasTensor,
        image_shape: Sequence[int],
        num_classes: int | None = None,
        levels: int = 256,
        condition_channels: int | None = None,
        dtype: DTypePolicy = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(inputs=inputs, outputs=parameters, dtype=dtype, **kwargs)
        self.image_shape = tuple(image_shape)
        self.num_classes = num_classes
        self.levels = levels
        self.condition_channels = condition_channels
        self._make_trackers()

    @staticmethod
    def pixel_inputs(
        image_shape: Sequence[int],
        num_classes: int | None = None,
        stride: int = 1,
        condition_channels: int | None = None,
    ) -> dict[str, keras.KerasTensor]:
        """The inputs of a graph.

        Args:
            image_shape: As in the constructor.
            num_classes: As in the constructor.
            stride: What has to divide height and width.
            condition_channels: As in the constructor.

        Returns:
            What the constructor takes, a dict: `"image"`, levels as float32 of shape
            `(batch, height, width, colours)`; with classes `"label"`, int32 of shape `(batch,)`;
            with a map `"condition"`, float32 of shape `(batch, height, width, channels)`.

        Raises:
            ValueError: If a size is not positive or not divided.
        """
        shape = tuple(image_shape)
        if len(shape) != 3 or any(int(s) != s or s < 1 for s in shape):
            raise ValueError(
                "Expected positive integers (height, width, colours). "
                f"Received: image_shape={shape}"
            )
        if any(size % stride for size in shape[:2]):
            raise ValueError(
                f"Expected a height and a width that are multiples of {stride}, for the sizes at "
                f"which the network sees the image. Received: image_shape={shape}"
            )
        inputs = {"image": keras.Input(shape, dtype="float32", name="image")}
        if num_classes is not None:
            check_positive(num_classes=num_classes)
            inputs["label"] = keras.Input((), dtype="int32", name="label")
        if condition_channels is not None:
            check_positive(condition_channels=condition_channels)
            size = (*shape[:2], condition_channels)
            inputs["condition"] = keras.Input(size, dtype="float32", name="condition")
        return inputs

    # === What a subclass says ===

    def _distribution(self) -> PixelDistribution:
        """What the parameters mean."""
        raise TypeError(f"{type(self).__name__} does not say what it predicts.")

    def _steps(self) -> Sequence[Sequence[Steps]]:
        """The network cut into steps, for `RowDecoder`: of pixels, or of their colours."""
        raise TypeError(f"{type(self).__name__} does not say what its steps are.")

    @functools.cached_property
    def distribution(self) -> PixelDistribution:
        """The `layers.PixelDistribution` that the network gives parameters of."""
        return self._distribution()

    # === Training ===

    def _make_trackers(self):
        super()._make_trackers()
        self.bits_tracker = MeanOfSome(name="bits_per_dim")
        self.nats_tracker = MeanOfSome(name="nats_per_image")

    def _values(self, images):
        """Levels as float32, of integers or of floats in `[0, 1]`."""
        images = ops.convert_to_tensor(images)
        if "float" not in keras.backend.standardize_dtype(images.dtype):
            return ops.cast(images, "float32")
        return ops.round(ops.cast(images, "float32") * (self.levels - 1))

    def _image_of(self, x):
        return x["image"] if isinstance(x, Mapping) else x

    def _own(self, x):
        """Of images, or of a dict with whatever, what this model takes: a dict."""
        return {name: x[name] for name in self.input} if isinstance(x, Mapping) else {"image": x}

    def call(
        self, inputs: TensorTree, training: bool | None = None, mask: Tensor | None = None
    ) -> Tensor:
        inputs = self._own(inputs)
        inputs["image"] = self._values(inputs["image"])
        return super().call(inputs, training=training, mask=mask)

    def step_outputs(self, x: TensorTree, training: bool) -> TensorTree:
        parameters, values = self(x, training=training), self._values(self._image_of(x))
        nats = ops.mean(self.distribution.nats(values, parameters), axis=(1, 2))  # (B,)
        return {"nats": nats / self.image_shape[-1]}

    def compute_loss(
        self,
        x: TensorTree | None = None,
        y: Tensor | None = None,
        y_pred: TensorTree = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        """Negative log-likelihood in nats a dimension, mean over batch, pixels and colours.

        Args:
            x: The batch, not used.
            y: Not used.
            y_pred: What `step_outputs` returned for the batch.
            sample_weight: None, or weights of shape `(batch,)`.
            training: Not used.

        Returns:
            float32 of shape `()`.
        """
        return ops.mean(weigh_examples(y_pred["nats"], sample_weight)) + sum(self.losses)

    def update_step_metrics(
        self, x: TensorTree, outputs: TensorTree, loss: Tensor, weight: Tensor
    ) -> None:
        super().update_step_metrics(x, outputs, loss, weight)
        nats = outputs["nats"]  # neither weighted nor with what regularizes, as `loss` is
        track(self.bits_tracker, nats / math.log(2.0), weight)
        track(self.nats_tracker, nats * math.prod(self.image_shape), weight)

    # === Checked data ===

    def _check_data(self, x, with_loss):
        batch, x = first_batch(x)
        if batch is not None:
            self.check_batch(batch, nan_passes=with_loss)
        return self._own(x) if is_arrays(x) else x

    def check_batch(self, batch: TensorTree, nan_passes: bool = False) -> None:
        """Checks images, or a dict of images and labels.

        Args:
            batch: As for `fit`.
            nan_passes: Whether pixels may be NaN: training counts and skips such a batch.

        Raises:
            ValueError: If labels are missing, or shape, dtype or range do not fit.

        Warns:
            UserWarning: If floats are changed by rounding to a level.
        """
        wanted = list(self.input)
        if isinstance(batch, Mapping):
            if not set(wanted) <= set(batch):
                raise ValueError(f"Expected a dict with the keys {wanted}. Received: {[*batch]}")
        elif len(wanted) > 1:
            raise ValueError(
                f"Expected a dict of arrays with the keys {wanted}. "
                f"Received: a {type(batch).__name__}"
            )
        own = self._own(batch)
        self._check_pixels(own["image"])
        if not nan_passes:
            check_numbers(own["image"])
        if "label" in own:
            check_codes(own["label"], self.num_classes or 0, (), "'label'", what="labels")
        if "condition" in own:
            self._check_condition(own["condition"], nan_passes)
        sizes = {name: len(array) for name, array in own.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"Expected as many of each. Received: {sizes}")

    def _check_condition(self, condition, nan_passes=False):
        wanted = (*self.image_shape[:2], self.condition_channels)
        condition = to_numpy(condition)
        kind = keras.backend.standardize_dtype(condition.dtype)
        if tuple(condition.shape[1:]) != wanted or "float" not in kind:
            raise ValueError(
                f"Expected floats of shape ({', '.join(map(str, ('batch', *wanted)))}). "
                f"Received: condition of shape {tuple(condition.shape)}, dtype {kind}"
            )
        if not nan_passes:
            check_numbers(condition, "condition")

    def _check_pixels(self, images):
        if not hasattr(images, "shape"):
            raise ValueError(f"Expected an array of images. Received: {type(images).__name__}")
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[1:] != self.image_shape or not shape[0]:
            wanted = ", ".join(map(str, ("batch", *self.image_shape)))
            raise ValueError(
                f"Expected images of shape ({wanted}), at least one. Received: shape {shape}"
            )
        kind = keras.backend.standardize_dtype(images.dtype)
        top = self.levels - 1
        if "float" not in kind and ("int" not in kind):
            raise ValueError(f"Expected integers or floats. Received: images of dtype {kind}")
        limit = 1 if "float" in kind else top
        off = 0.0
        for start in range(0, shape[0], SLICE):
            part = to_numpy(images[start : start + SLICE])
            low, high = np.nanmin(part), np.nanmax(part)
            if low < -1e-6 or high > limit + 1e-6:
                raise ValueError(
                    f"Expected floats in [0, 1] or integers in [0, {top}]. "
                    f"Received: images of dtype {kind} with pixels from {low:.4g} to {high:.4g}"
                )
            if "float" in kind:
                part = part.astype("float32") * top
                off = max(off, float(np.nanmax(np.abs(part - np.round(part)))))
        if off > 0.01:
            warnings.warn(
                f"Pixels are floats that are not multiples of 1/{top}: each is rounded to the "
                "nearest level, which is what the likelihood is of. Round images once, for "
                "likelihoods that compare with others'.",
                stacklevel=_levels_to_the_caller(),
            )

    # === Likelihood ===

    def nats(self, images: TensorTree, batch_size: int = 32) -> np.ndarray:
        """How unlikely the model finds images.

        Args:
            images: Arrays of images, or a dict of images and labels, as for `fit`.
            batch_size: Positive integer, images at a time.

        Returns:
            float32 of shape `(N, height, width)`: `-log p` of each pixel given those before; their
            sum is the image's.

        Raises:
            ValueError: If the images do not fit.
        """
        check_positive(batch_size=batch_size)
        self.check_batch(images)
        arrays = keras.tree.map_structure(to_numpy, self._own(images))
        count = len(arrays["image"])
        size = min(batch_size, count)
        parts = []
        for numbers, batch in filled_batches(arrays, size):
            parameters = super().predict(batch, batch_size=size, verbose=0)
            values = self._values(batch["image"])
            nats = self.distribution.nats(values, parameters)
            parts.append(ops.convert_to_numpy(nats)[: count - numbers[0]])
        return np.concatenate(parts)

    # === Drawing ===

    @functools.cached_property
    def _row_decoder(self):
        return RowDecoder(self._steps(), self.variables)

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        super().quantize(*args, **kwargs)
        self.__dict__.pop("_row_decoder", None)  # its program holds the variables of before

    def generate(
        self,
        num_images: int,
        labels: int | Sequence[int] | np.ndarray | None = None,
        condition: Tensor | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        first_image: int = 0,
        batch_size: int = 16,
        verbose: int = 1,
    ) -> np.ndarray:
        """Draws images, pixel after pixel, with a cache.

        Image `i` depends on `(seed, i)` and its label and on nothing else: not on the batch size,
        nor on what is drawn beside it (but for numbers so close that rounding decides).
        `generate(4)` is `generate(2)`, then `generate(2, first_image=2)`.

        Args:
            num_images: Positive integer, N.
            labels: For a model with classes, an integer or integers of shape `(N,)`.
            condition: For a model that is told a map, floats of shape
                `(N, height, width, condition_channels)`.
            temperature: Positive float: below 1 more probable values.
            top_k: None, or a positive integer: of each colour only the `k` most probable values.
                Not for mixtures.
            top_p: None, or a float in `(0, 1]`, likewise.
            seed: Non-negative integer.
            first_image: Non-negative integer, number of the first image.
            batch_size: Positive integer, images at a time.
            verbose: 1 shows a progress bar.

        Returns:
            Levels of shape `(N, height, width, colours)`, uint8 (uint16 of more than 256).

        Raises:
            ValueError: If labels are missing, an argument is out of range, or what the network
                gives is not finite.
        """
        check_positive(num_images=num_images)
        given = np.full((num_images, *self.image_shape), -1, "int32")
        options = (temperature, top_k, top_p, seed, first_image, batch_size, verbose)
        return self._draw_images(given, labels, condition, *options)

    def complete(
        self,
        images: Tensor,
        mask: Tensor,
        labels: int | Sequence[int] | np.ndarray | None = None,
        condition: Tensor | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        first_image: int = 0,
        batch_size: int = 16,
        verbose: int = 1,
    ) -> np.ndarray:
        """Invents the masked pixels of images. A pixel sees what is given above it and to its left.

        Args:
            images: Images of shape `(N, height, width, colours)`, as for `fit`.
            mask: Booleans of shape `(height, width)` or `(N, height, width)`: True to be invented.
            labels: As in `generate`, as is what follows.
            condition: None, or floats.
            temperature: Positive float.
            top_k: None, or a positive integer.
            top_p: None, or a float in `(0, 1]`.
            seed: Non-negative integer.
            first_image: Non-negative integer.
            batch_size: Positive integer.
            verbose: 1 shows a progress bar.

        Returns:
            As `generate`; pixels that are not masked are those of `images`.

        Raises:
            ValueError: If images or mask do not fit, or as in `generate`.
        """
        self._check_pixels(images)
        mask = to_numpy(mask)
        shape = (len(images), *self.image_shape[:2])
        if mask.dtype != bool or mask.shape not in (shape, shape[1:]):
            raise ValueError(
                f"Expected booleans of shape {shape[1:]} or {shape}. "
                f"Received: mask of shape {mask.shape}, dtype {mask.dtype}"
            )
        masked, images = np.broadcast_to(mask, shape)[..., None], to_numpy(images)
        images = np.where(masked, np.zeros((), images.dtype), images)
        check_numbers(images)
        values = ops.convert_to_numpy(self._values(images)).astype("int32")
        given = np.where(masked, -1, values).astype("int32")
        options = (temperature, top_k, top_p, seed, first_image, batch_size, verbose)
        return self._draw_images(given, labels, condition, *options)

    def _draw_images(
        self,
        given,
        labels,
        condition,
        temperature,
        top_k,
        top_p,
        seed,
        first,
        batch_size,
        verbose,
    ):
        sampling = self.distribution.sampling(temperature, top_k, top_p)
        check_positive(batch_size=batch_size)
        check_integer("seed", seed, 0)
        check_integer("first_image", first, 0)
        request = {"image": given}
        labels = labels_of_all(labels, self.num_classes, len(given))
        if labels is not None:
            labels = check_codes(labels, self.num_classes, (), "labels", what="labels")
            if len(labels) != len(given):
                raise ValueError(f"Expected {len(given)} labels. Received: {len(labels)}")
            request["label"] = labels.astype("int32")
        if (condition is None) != (self.condition_channels is None):
            wanted = "a" if self.condition_channels else "no"
            raise ValueError(f"Expected {wanted} condition. Received: {type(condition).__name__}")
        if condition is not None:
            self._check_condition(condition)
            if len(condition) != len(given):
                raise ValueError(f"Expected {len(given)} conditions. Received: {len(condition)}")
            request["condition"] = to_numpy(condition).astype("float32")
        backend.sync_training_state(self)

        def draw(inputs, numbers):
            yield from enumerate(self._drawn_rows(sampling, inputs, seed, first + numbers))

        drawn = draw_batches(draw, request, self.image_shape, batch_size, LEVEL, verbose)
        kinds = (np.dtype(name) for name in ("uint8", "uint16", "int32"))
        return drawn.astype(next(kind for kind in kinds if self.levels - 1 <= np.iinfo(kind).max))

    def _drawn_rows(self, sampling, inputs, seed, numbers):
        """Yields the rows of a batch, `(batch, width, colours)`."""
        for values, _ in self._rows(sampling, inputs, seed, numbers):
            yield ops.reshape(values, (-1, *self.image_shape[1:]))

    def _rows(self, sampling, inputs, seed, numbers):
        """Yields values and parameters of the rows of a batch, as `RowDecoder` does."""
        height, width, colours = self.image_shape
        uniforms = sample_uniforms(
            seed, numbers, LEVEL, (height, width, self.distribution.num_uniforms)
        )
        given = inputs["image"]
        if self.distribution.colour_by_colour:
            given, uniforms = (x.reshape(-1, height, width * colours) for x in (given, uniforms))
        condition = inputs.get("condition")
        if condition is not None:
            condition = ops.convert_to_tensor(condition, self.compute_dtype)
        return self._row_decoder.rows(sampling, given, uniforms, condition, inputs.get("label"))

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "image_shape": list(self.image_shape),
            "num_classes": self.num_classes,
            "levels": self.levels,
            "condition_channels": self.condition_channels,
        }


def _levels_to_the_caller():
    """How many frames lie between a warning and the code that called this package."""
    level, frame = 1, sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("keras_vqvae2"):
        level, frame = level + 1, frame.f_back
    return level
