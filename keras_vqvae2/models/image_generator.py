from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_vqvae2.checks import check_positive
from keras_vqvae2.hints import Classifier, Config, FilePath, Labels, PerLevel, Tensor
from keras_vqvae2.image_batches import to_unit_floats
from keras_vqvae2.models import preset_files
from keras_vqvae2.models.generator_checks import (
    check_completion,
    check_fit,
    label_indices,
    level_settings,
    touched,
)
from keras_vqvae2.models.image_generator_presets import IMAGE_GENERATOR_PRESETS
from keras_vqvae2.models.pixelsnail.pixelsnail_prior import PixelSnailPrior
from keras_vqvae2.models.preset_model import PresetUser, register_presets
from keras_vqvae2.models.rejection_sampling import RejectionResult, best_of_drawn
from keras_vqvae2.models.vqvae2.vqvae2 import VQVAE2


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class HierarchicalImageGenerator(PresetUser):
    """A `VQVAE2` and a prior for each of its levels: images out of nothing (algorithm 2).

    The top prior draws a map of codes, each further one a finer map given the coarser ones, and
    the decoder of the `VQVAE2` makes an image of them. Image `i` depends on `(seed, i)`, its
    label and the settings, not on the batch size or on what is drawn beside it.

    Args:
        vqvae: `VQVAE2`.
        priors: Dict from level to `PixelSnailPrior`, or a list of them.
        label_names: None, or the names of the labels, in their order.
        settings: None, or a dict from level to the `temperature`, `top_k` and `top_p` that hold
            where `generate` and `complete` are given none.

    Raises:
        ValueError: If levels, numbers of codes, sizes of maps, classes or the model whose codes
            a prior was trained on do not fit; the message says which.

    Example:

    ```python
    import keras_vqvae2

    vqvae = keras_vqvae2.VQVAE2((16, 16, 3), hidden_units=8, residual_units=4, num_levels=1)
    prior = keras_vqvae2.PixelSnailPrior(
        (4, 4), level="bottom", num_classes=2, hidden_units=8, residual_units=8, num_blocks=1,
        block_layers=1, attention_heads=2, output_blocks=0,
    )
    generator = keras_vqvae2.HierarchicalImageGenerator(vqvae, [prior], ["cat", "dog"])
    images = generator.generate(2, labels=["cat", "dog"], temperature=0.9, verbose=0)
    print(images.shape)  # (2, 16, 16, 3)
    generator.save_to_preset("generator")
    generator = keras_vqvae2.HierarchicalImageGenerator.from_preset("generator")
    ```

    Reference:
        - Razavi, van den Oord, Vinyals 2019, arXiv 1906.00446, section 3.2, algorithm 2.
    """

    def __init__(
        self,
        vqvae: VQVAE2,
        priors: dict[str, PixelSnailPrior] | Iterable[PixelSnailPrior],
        label_names: Sequence[str] | None = None,
        settings: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        if not isinstance(priors, dict):
            priors = {prior.level: prior for prior in priors}
        check_fit(vqvae, priors, label_names)
        self.vqvae = vqvae
        self.priors = {level: priors[level] for level in vqvae.levels}
        self.label_names = None if label_names is None else list(label_names)
        self.settings: dict[str, dict[str, Any]] = {level: {} for level in vqvae.levels}
        self.settings |= settings or {}
        self.num_classes = next(
            (prior.num_classes for prior in self.priors.values() if prior.num_classes), None
        )
        level_settings(self.priors, self.settings)

    def generate(
        self,
        num_images: int,
        labels: Labels | None = None,
        temperature: PerLevel[float] | None = None,
        top_k: PerLevel[int] | None = None,
        top_p: PerLevel[float] | None = None,
        seed: int = 0,
        first_image: int = 0,
        batch_size: int = 32,
        verbose: int = 1,
    ) -> np.ndarray:
        """Invents images.

        An interrupt (Ctrl-C) ends the drawing; the images of the batches before it are returned.

        Args:
            num_images: Positive integer, N.
            labels: A name, an index, or N of them. By default image `i` is of class
                `i % num_classes`.
            temperature: Positive float, or a dict from level to one; see
                `PixelSnailPrior.generate`. By default the generator's `settings`, or 1.
            top_k: Positive integer or a dict, likewise.
            top_p: Float in `(0, 1]` or a dict, likewise.
            seed: Non-negative integer.
            first_image: Non-negative integer, number of the first image.
            batch_size: Positive integer, images at a time.
            verbose: 1 shows a progress bar for each level.

        Returns:
            float32 images in `[0, 1]`, shape `(N, H, W, C)`.

        Raises:
            ValueError: If an argument is out of range, or a label or level unknown.
        """
        check_positive(num_images=num_images, batch_size=batch_size)
        numbers = np.arange(first_image, first_image + num_images)
        labels = self._labels(labels, numbers)
        codes = {level: None for level in self.priors}
        settings = self._settings(temperature, top_k, top_p)
        codes = self._draw(codes, labels, settings, seed, numbers, batch_size, verbose)
        return self._decode(codes)

    def generate_best(
        self,
        num_images: int,
        classifier: Classifier,
        acceptance_rate: float,
        labels: Labels | None = None,
        class_indices: Sequence[int] | None = None,
        temperature: PerLevel[float] | None = None,
        top_k: PerLevel[int] | None = None,
        top_p: PerLevel[float] | None = None,
        seed: int = 0,
        batch_size: int = 32,
        verbose: int = 1,
    ) -> RejectionResult:
        """Invents images and keeps those that a classifier recognises best (rejection sampling).

        A label that is asked for `m` times gets `n = ceil(m / acceptance_rate)` candidates, and the
        `m` to which the classifier gives the highest probability of the label are kept. Lower rates
        trade diversity for fidelity. Candidate `i` is image `i` of this seed: the same whatever the
        batch size, and `generate(1, label, seed=seed, first_image=i)` draws it again.

        Of the candidates only the best so far are held in memory. An interrupt (Ctrl-C) ends the
        drawing; the best of the batches before it are returned.

        Args:
            num_images: Positive integer, N, images to keep.
            classifier: Keras or keras-cv model, or any callable, from float32 images in `[0, 1]`,
                shape `(batch, H, W, C)`, to probabilities of shape `(batch, outputs)`.
            acceptance_rate: Float in `(0, 1]`.
            labels: As in `generate`.
            class_indices: None, or for each label the classifier's output that stands for it.
            temperature: As in `generate`.
            top_k: As in `generate`.
            top_p: As in `generate`.
            seed: As in `generate`.
            batch_size: As in `generate`.
            verbose: 1 shows a progress bar over the candidates.

        Returns:
            `RejectionResult`: images, labels, scores and numbers of the candidates that were kept.
            Image `i` is of label `i`, and images of one label stand best first.

        Raises:
            ValueError: Before anything is drawn, if an argument is out of range, a label unknown,
                the generator without classes, or the classifier's output does not fit.

        Reference:
            - Razavi, van den Oord, Vinyals 2019, arXiv 1906.00446, section 3.3.
        """
        if self.num_classes is None:
            raise ValueError("Expected a generator with classes. Received: one without")
        check_positive(num_images=num_images, batch_size=batch_size)
        self._settings(temperature, top_k, top_p)

        def draw(labels, first_image):
            settings = (temperature, top_k, top_p, seed, first_image)
            return self.generate(len(labels), labels, *settings, batch_size=batch_size, verbose=0)

        return best_of_drawn(
            draw,
            self._labels(labels, np.arange(num_images)),
            acceptance_rate,
            classifier,
            class_indices,
            self.vqvae.image_shape,
            batch_size,
            verbose,
        )

    def complete(
        self,
        images: Tensor,
        mask: Tensor,
        labels: Labels | None = None,
        temperature: PerLevel[float] | None = None,
        top_k: PerLevel[int] | None = None,
        top_p: PerLevel[float] | None = None,
        seed: int = 0,
        first_image: int = 0,
        batch_size: int = 32,
        verbose: int = 1,
    ) -> np.ndarray:
        """Invents a part of images.

        The rest keeps its pixels. Its codes are kept too, but for those that touch the part to
        invent and their neighbours, which saw it. Codes are drawn in raster order: they continue
        what is above and to the left, and do not look ahead to what is kept below.

        Args:
            images: Array of shape `(N, H, W, C)`, floats in `[0, 1]` or uint8. What it holds in
                the part to invent does not matter.
            mask: Array of shape `(H, W)` or `(N, H, W)`, true where to invent.
            labels: As in `generate`; needed if the priors have classes.
            temperature: As in `generate`.
            top_k: As in `generate`.
            top_p: As in `generate`.
            seed: As in `generate`.
            first_image: As in `generate`.
            batch_size: As in `generate`.
            verbose: As in `generate`.

        Returns:
            float32 images in `[0, 1]`, shape `(N, H, W, C)`.

        Raises:
            ValueError: If sizes do not fit, or labels are missing.
        """
        images = np.asarray(images)
        mask = np.asarray(mask).astype(bool)
        check_completion(self.vqvae, images, mask)
        if labels is None and self.num_classes:
            raise ValueError(f"Expected labels below {self.num_classes}. Received: labels=None")
        images = to_unit_floats(images)
        mask = np.broadcast_to(mask, images.shape[:3])[..., None]  # (N, H, W, 1)
        kept = images.mean(axis=(1, 2), keepdims=True, where=~mask) if not mask.all() else 0.5
        codes = self.vqvae.encode(np.where(mask, np.nan_to_num(kept, nan=0.5), images))
        given = {
            level: np.where(touched(mask[..., 0], value.shape[1:]), -1, value)
            for level, value in codes.items()
        }
        check_positive(batch_size=batch_size)
        numbers = np.arange(first_image, first_image + len(images))
        settings = self._settings(temperature, top_k, top_p)
        labels = self._labels(labels, numbers)
        codes = self._draw(given, labels, settings, seed, numbers, batch_size, verbose)
        invented = self._decode(codes)
        finished = len(invented)
        return np.where(mask[:finished], invented, images[:finished])

    def _draw(self, given, labels, settings, seed, numbers, batch_size, verbose):
        """Codes of all levels, of as many images as were finished."""
        finished = []
        for start in range(0, len(numbers), batch_size):
            part = slice(start, start + batch_size)
            codes = {}
            for level, prior in self.priors.items():
                codes[level] = prior.generate(
                    len(numbers[part]),
                    labels=labels[part] if prior.num_classes else None,
                    condition=codes,
                    codes=None if given[level] is None else given[level][part],
                    seed=seed,
                    first_sample=int(numbers[start]),
                    batch_size=batch_size,
                    verbose=verbose,
                    **settings[level],
                )
                if (codes[level] < 0).any():  # interrupted
                    codes = None
                    break
            if codes is None:
                break
            finished.append(codes)
        return {
            level: np.concatenate([codes[level] for codes in finished]) if finished else None
            for level in self.priors
        }

    def _decode(self, codes):
        if any(value is None for value in codes.values()):
            return np.zeros((0, *self.vqvae.image_shape), "float32")
        return self.vqvae.decode(codes)

    def _settings(self, *arguments):
        return level_settings(self.priors, self.settings, *arguments)

    def _labels(self, labels, numbers):
        return label_indices(labels, numbers, self.num_classes, self.label_names)

    # === Presets ===

    def get_config(self) -> Config:
        return {
            "levels": list(self.priors),
            "label_names": self.label_names,
            "settings": self.settings,
        }

    @classmethod
    def _from_directory(cls, directory, model_class, config, load_weights, dtype=None):
        options = {"load_weights": load_weights, **({} if dtype is None else {"dtype": dtype})}
        vqvae = VQVAE2.from_preset(directory / "vqvae", **options)
        priors = {
            level: PixelSnailPrior.from_preset(directory / f"prior_{level}", **options)
            for level in vqvae.levels
        }
        return model_class(vqvae, priors, config["label_names"], config["settings"])

    def save_to_preset(
        self,
        directory: FilePath,
        weights_dtype: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Saves the parts as one preset directory: `vqvae/`, and `prior_<level>/` for each level.

        The directory appears at once when all of it is written, as with `VQVAE2`.

        Args:
            directory: The directory to write.
            weights_dtype: None, or `"float16"` to store the weights of the priors in half the
                space.
            metadata: As in `PresetModel.save_to_preset`.

        Raises:
            ValueError: If `directory` holds anything but a preset, or `metadata` has names of its
                own entries.
        """
        parts = {"vqvae": self.vqvae} | {f"prior_{k}": prior for k, prior in self.priors.items()}
        dtypes = {name: weights_dtype for name in parts if name != "vqvae"}
        preset_files.write_parts(self, parts, directory, dtypes, metadata)


register_presets(HierarchicalImageGenerator, IMAGE_GENERATOR_PRESETS)
