from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np

from keras_vqvae2.hints import Classifier, Config, DTypePolicy, FilePath, Labels, PerLevel, Tensor
from keras_vqvae2.image_batches import to_numpy, to_unit_floats
from keras_vqvae2.models import preset_files
from keras_vqvae2.models.code_prior import CodePrior
from keras_vqvae2.models.image_generator_presets import IMAGE_GENERATOR_PRESETS
from keras_vqvae2.models.level_settings import level_settings
from keras_vqvae2.models.preset_registry import RegisteredPresets, find_preset, register_presets
from keras_vqvae2.models.rejection_sampling import RejectionResult, best_of_drawn
from keras_vqvae2.models.vqvae2.levels import touched
from keras_vqvae2.models.vqvae2.vqvae2 import VQVAE2
from keras_vqvae2.validation import (
    check_codes,
    check_images,
    check_integer,
    check_positive,
    coarser_shape,
    side_by_side,
)


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class HierarchicalImageGenerator:
    """A `VQVAE2` and a prior for each of its levels: images out of nothing (algorithm 2).

    The top prior draws a map of codes, each further one a finer map given the coarser ones, and
    the decoder of the `VQVAE2` makes an image of them. Image `i` depends on `(seed, i)`, its
    label and the settings, not on the batch size or on what is drawn beside it.

    Args:
        vqvae: `VQVAE2`.
        priors: Dict from level to a `CodePrior`, such as `PixelSnailPrior`, or a list of them.
        label_names: None, or the names of the labels, in their order.
        settings: None, or a dict from level to the `temperature`, `top_k`, `top_p`,
            `guidance_scale` and `guidance_power` that hold where `generate` and `complete` are
            given none.

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

    presets = RegisteredPresets()

    def __init__(
        self,
        vqvae: VQVAE2,
        priors: dict[str, CodePrior] | Iterable[CodePrior],
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

    @property
    def class_names(self) -> list[str]:
        """What to call the classes: the `label_names`, or else their numbers; none without."""
        return self.label_names or [str(label) for label in range(self.num_classes or 0)]

    def level_settings(
        self,
        temperature: PerLevel[float] | None = None,
        top_k: PerLevel[int] | None = None,
        top_p: PerLevel[float] | None = None,
        guidance_scale: PerLevel[float] | None = None,
        guidance_power: PerLevel[float] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """How each level's codes are drawn: the `settings`, with the arguments in their place.

        Args:
            temperature: As in `generate`.
            top_k: As in `generate`.
            top_p: As in `generate`.
            guidance_scale: As in `generate`.
            guidance_power: As in `generate`.

        Returns:
            Dict from level to a dict, which a generator takes as its `settings`.

        Raises:
            ValueError: If a number is out of range or a level unknown.
        """
        arguments = (temperature, top_k, top_p, guidance_scale, guidance_power)
        return level_settings(self.priors, self.settings, *arguments)

    def generate(
        self,
        num_images: int,
        labels: Labels | None = None,
        temperature: PerLevel[float] | None = None,
        top_k: PerLevel[int] | None = None,
        top_p: PerLevel[float] | None = None,
        guidance_scale: PerLevel[float] | None = None,
        guidance_power: PerLevel[float] | None = None,
        seed: int = 0,
        first_image: int = 0,
        batch_size: int = 32,
        verbose: int = 1,
        codes: Mapping[str, Tensor] | None = None,
    ) -> np.ndarray:
        """Invents images.

        Args:
            num_images: Positive integer, N.
            labels: A name, an index, or N of them. By default image `i` is of class
                `i % num_classes`.
            temperature: Positive float, or a dict from level to one; see `CodePrior.generate`.
                By default the generator's `settings`, or 1.
            top_k: Positive integer or a dict, likewise.
            top_p: Float in `(0, 1]` or a dict, likewise.
            guidance_scale: Non-negative float or a dict, likewise.
            guidance_power: Positive float or a dict, likewise.
            seed: Non-negative integer.
            first_image: Non-negative integer, number of the first image.
            batch_size: Positive integer, images at a time.
            verbose: 1 shows a progress bar for each level.
            codes: None, or a dict from level to maps of N images, as `VQVAE2.encode` makes them,
                that are kept; -1 where a code is to be drawn. `codes={"top": …}` draws other
                details of the same shapes.

        Returns:
            float32 images in `[0, 1]`, shape `(N, H, W, C)`.

        Raises:
            ValueError: If an argument is out of range, a label or level unknown, or codes do not
                fit.
        """
        settings = (temperature, top_k, top_p, guidance_scale, guidance_power)
        options = (*settings, seed, first_image, batch_size, verbose, codes)
        return np.concatenate([*self.generate_batches(num_images, labels, *options)])

    def generate_batches(
        self,
        num_images: int,
        labels: Labels | None = None,
        temperature: PerLevel[float] | None = None,
        top_k: PerLevel[int] | None = None,
        top_p: PerLevel[float] | None = None,
        guidance_scale: PerLevel[float] | None = None,
        guidance_power: PerLevel[float] | None = None,
        seed: int = 0,
        first_image: int = 0,
        batch_size: int = 32,
        verbose: int = 1,
        codes: Mapping[str, Tensor] | None = None,
    ) -> Iterator[np.ndarray]:
        """Invents images a batch at a time: those that are finished are there before the others.

        Args:
            num_images: As in `generate`, as are all arguments.
            labels: As in `generate`.
            temperature: As in `generate`.
            top_k: As in `generate`.
            top_p: As in `generate`.
            guidance_scale: As in `generate`.
            guidance_power: As in `generate`.
            seed: As in `generate`.
            first_image: As in `generate`.
            batch_size: As in `generate`.
            verbose: As in `generate`.
            codes: As in `generate`.

        Returns:
            Iterator of float32 images, `(batch, H, W, C)` each: together what `generate` returns.

        Raises:
            ValueError: At the call, as `generate`.
        """
        check_positive(num_images=num_images, batch_size=batch_size)
        check_integer("seed", seed, 0)
        numbers = image_numbers(first_image, num_images)
        labels = self._labels(labels, numbers)
        settings = self.level_settings(temperature, top_k, top_p, guidance_scale, guidance_power)
        given = dict.fromkeys(self.priors) | self._given(codes or {}, num_images)
        return self._draw(given, labels, settings, seed, numbers, batch_size, verbose)

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
        guidance_scale: PerLevel[float] | None = None,
        guidance_power: PerLevel[float] | None = None,
        seed: int = 0,
        batch_size: int = 32,
        verbose: int = 1,
    ) -> RejectionResult:
        """Invents images and keeps those that a classifier recognises best (rejection sampling).

        A label that is asked for `m` times gets `n = ceil(m / acceptance_rate)` candidates, and the
        `m` to which the classifier gives the highest probability of the label are kept. Lower rates
        trade diversity for fidelity. Candidate `i` is image `i` of this seed: the same whatever the
        batch size, and `generate(1, label, seed=seed, first_image=i)` draws it again.

        Of the candidates only the best so far are held in memory.

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
            guidance_scale: As in `generate`.
            guidance_power: As in `generate`.
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
        settings = (temperature, top_k, top_p, guidance_scale, guidance_power)
        self.level_settings(*settings)

        def draw(labels, first_image):
            options = (*settings, seed, first_image, batch_size, 0)
            return self.generate(len(labels), labels, *options)

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
        guidance_scale: PerLevel[float] | None = None,
        guidance_power: PerLevel[float] | None = None,
        seed: int = 0,
        first_image: int = 0,
        batch_size: int = 32,
        verbose: int = 1,
    ) -> np.ndarray:
        """Invents a part of images.

        The rest keeps its pixels. Its codes are kept too, but for those that touch the part to
        invent and their neighbours, which saw it. An `AutoregressivePrior` draws in raster order:
        it continues what is above and to the left. A `MaskedTransformerPrior` also looks at what
        is kept below.

        Args:
            images: Array of shape `(N, H, W, C)`, floats in `[0, 1]` or uint8. What it holds in
                the part to invent does not matter.
            mask: Array of shape `(H, W)` or `(N, H, W)`, true where to invent.
            labels: As in `generate`; needed if the priors have classes.
            temperature: As in `generate`.
            top_k: As in `generate`.
            top_p: As in `generate`.
            guidance_scale: As in `generate`.
            guidance_power: As in `generate`.
            seed: As in `generate`.
            first_image: As in `generate`.
            batch_size: As in `generate`.
            verbose: As in `generate`.

        Returns:
            float32 images in `[0, 1]`, shape `(N, H, W, C)`.

        Raises:
            ValueError: If sizes do not fit, or labels are missing.
        """
        images, mask = to_numpy(images), to_numpy(mask).astype(bool)
        self._check_completion(images, mask)
        if labels is None and self.num_classes:
            raise ValueError(f"Expected labels below {self.num_classes}. Received: labels=None")
        check_positive(batch_size=batch_size)
        numbers = image_numbers(first_image, len(images))
        settings = self.level_settings(temperature, top_k, top_p, guidance_scale, guidance_power)
        labels = self._labels(labels, numbers)
        mask = np.broadcast_to(mask, images.shape[:3])[..., None]  # (N, H, W, 1)
        # The part to invent gets the mean of the rest, for the encoder.
        weights = np.broadcast_to(~mask, images.shape)
        images = to_unit_floats(np.where(mask, np.zeros((), images.dtype), images))
        kept = images.sum((1, 2), keepdims=True) / np.maximum(1, weights.sum((1, 2), keepdims=True))
        codes = self.vqvae.encode(np.where(mask, kept, images).astype("float32"))
        given = {
            level: np.where(touched(mask[..., 0], value.shape[1:]), -1, value)
            for level, value in codes.items()
        }
        invented = self._draw(given, labels, settings, seed, numbers, batch_size, verbose)
        return np.where(mask, np.concatenate([*invented]), images)

    def _draw(self, given, labels, settings, seed, numbers, batch_size, verbose):
        """Yields images, of the codes of all levels that are drawn around those that are given."""
        for start in range(0, len(numbers), batch_size):
            part = slice(start, start + batch_size)
            codes: dict[str, np.ndarray] = {}
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
            yield self.vqvae.decode(codes)

    def _check_completion(self, images, mask):
        if images.shape[1:] != self.vqvae.image_shape:
            raise ValueError(
                f"Expected images of shape {('N', *self.vqvae.image_shape)}. "
                f"Received: images of shape {images.shape}"
            )
        if mask.shape not in (images.shape[:3], images.shape[1:3]):
            raise ValueError(
                f"Expected a mask of shape {images.shape[1:3]} or {images.shape[:3]}. "
                f"Received: mask of shape {mask.shape}"
            )
        whole = np.broadcast_to(mask, images.shape[:3])[..., None]
        check_images(np.where(whole, np.zeros((), images.dtype), images), images.shape[-1])

    def _given(self, codes, count):
        """Checked maps of the levels that are given."""
        if set(codes) - set(self.priors):
            raise ValueError(
                f"Expected codes of some of the levels {tuple(self.priors)}. "
                f"Received: codes of {tuple(codes)}"
            )
        given = {}
        for level, maps in codes.items():
            prior, name = self.priors[level], f"codes[{level!r}]"
            maps = side_by_side(to_numpy(maps))
            given[level] = check_codes(maps, prior.num_embeddings, prior.code_shape, name, low=-1)
            if len(maps) != count:
                raise ValueError(
                    f"Expected maps of num_images={count} images. Received: {len(maps)} in {name}"
                )
        return given

    def _labels(self, labels, numbers):
        return label_indices(labels, numbers, self.num_classes, self.label_names)

    # === Config and presets ===

    def get_config(self) -> Config:
        serialize = keras.saving.serialize_keras_object
        return {
            "vqvae": serialize(self.vqvae),
            "priors": {level: serialize(prior) for level, prior in self.priors.items()},
            "label_names": self.label_names,
            "settings": self.settings,
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        read = keras.saving.deserialize_keras_object
        priors = {level: read(prior) for level, prior in config["priors"].items()}
        return cls(**{**config, "vqvae": read(config["vqvae"]), "priors": priors})

    def preset_config(self) -> Config:
        """What a preset's `config.json` says of the whole; its parts are presets of their own."""
        return {
            "levels": list(self.priors),
            "label_names": self.label_names,
            "settings": self.settings,
        }

    @classmethod
    def from_preset(
        cls,
        preset: FilePath,
        load_weights: bool = True,
        dtype: DTypePolicy = None,
        label_names: Sequence[str] | None = None,
        settings: dict[str, dict[str, Any]] | None = None,
    ) -> Self:
        """Builds what a preset describes and loads its weights.

        Args:
            preset: As in `PresetModel.from_preset`.
            load_weights: Whether to load the weights. If `False` they are random.
            dtype: None, or the dtype policy in which all parts compute.
            label_names: None, or what takes the place of the preset's.
            settings: None, or what takes the place of the preset's, level by level.

        Returns:
            `HierarchicalImageGenerator`.

        Raises:
            ValueError: As in `PresetModel.from_preset`, or if settings do not fit.
            FileNotFoundError: If files are missing.
            ImportError: If the package that downloads is absent.
        """
        model_class, config, directory = find_preset(cls, preset, load_weights)
        if directory is None:
            raise ValueError(
                f"Expected a preset with files of its own. Received: preset={preset!r}"
            )
        options: dict[str, Any] = {"load_weights": load_weights}
        if dtype is not None:
            options["dtype"] = dtype
        vqvae = VQVAE2.from_preset(directory / "vqvae", **options)
        # Random weights make other codes than those that the priors were trained on.
        unlike: dict[str, Any] = {} if load_weights else {"codes_fingerprint": None}
        priors = {
            level: CodePrior.from_preset(directory / f"prior_{level}", **options, **unlike)
            for level in vqvae.levels
        }
        with preset_files.building(model_class):
            names = config["label_names"] if label_names is None else label_names
            return model_class(vqvae, priors, names, {**config["settings"], **(settings or {})})

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


def check_fit(vqvae, priors, label_names):
    """Raises `ValueError` unless every level has a prior that models just its codes."""
    problems = []
    if set(priors) != set(vqvae.levels):
        problems.append(f"priors for the levels {vqvae.levels}, got {tuple(priors)}")
    shapes = vqvae.token_shapes()
    known: dict[str, bool] = {}  # fingerprints, and whether they are the model's
    for level, prior in priors.items():
        if level not in shapes:
            continue
        if prior.level != level:
            problems.append(f"the prior of {level!r} to model it, got one of {prior.level!r}")
        counts = vqvae.num_embeddings
        for name, count in {level: prior.num_embeddings, **prior.condition_embeddings}.items():
            if count != counts.get(name, count):
                problems.append(
                    f"{counts[name]} codes of {name!r} in the prior of {level!r}, got {count}"
                )
        if prior.code_shape != shapes[level]:
            problems.append(
                f"maps of {shapes[level]} in the prior of {level!r}, got {prior.code_shape}"
            )
        for name, factor in prior.condition_factors.items():
            coarser = vqvae.levels[: vqvae.levels.index(level)]
            size = coarser_shape(prior.code_shape, factor)
            if name not in coarser:
                problems.append(f"conditions of {level!r} among {coarser}, got {name!r}")
            elif size != shapes[name]:
                problems.append(f"maps of {shapes[name]} as condition {name!r}, got {size}")
        if prior.codes_fingerprint is not None:
            if prior.codes_fingerprint not in known:
                known[prior.codes_fingerprint] = vqvae.has_fingerprint(prior.codes_fingerprint)
            if not known[prior.codes_fingerprint]:
                problems.append(
                    f"a prior of {level!r} trained on codes of the VQVAE2 with the fingerprint "
                    f"{vqvae.fingerprint()}, got {prior.codes_fingerprint}"
                )
    classes = {prior.num_classes for prior in priors.values()} - {None}
    if label_names is not None:
        classes.add(len(label_names))
    if len(classes) > 1:
        problems.append(f"one number of classes, got {sorted(classes)}")
    if problems:
        raise ValueError(f"Expected {'; '.join(problems)}.")


def image_numbers(first: int, count: int) -> np.ndarray:
    check_integer("first_image", first, 0)
    if first + count > np.iinfo("int64").max:
        raise ValueError(f"Expected an integer below 2**63. Received: first_image={first}")
    return np.arange(first, first + count)


def label_indices(labels, numbers, num_classes, label_names):
    """What images of some numbers are asked to show.

    Args:
        labels: None, a name, an index, or one of them for each image.
        numbers: Integers of shape `(N,)`, of the images.
        num_classes: None, or the number of labels.
        label_names: None, or their names.

    Returns:
        int32 of shape `(N,)`, or None without classes.
    """
    if num_classes is None:
        if labels is not None:
            raise ValueError(f"Expected no labels. Received: labels={labels}")
        return None
    if labels is None:
        return (numbers % num_classes).astype("int32")

    def index(label):
        label = label.decode() if isinstance(label, bytes) else label
        if isinstance(label, str):
            if label in (label_names or ()):
                return label_names.index(label)
        elif np.ndim(label) == 0 and int(label) == label and 0 <= label < num_classes:
            return int(label)
        raise ValueError(
            f"Expected a label in [0, {num_classes}) or one of {label_names}. Received: {label!r}"
        )

    if not isinstance(labels, (str, bytes, list, tuple, range)):
        labels = to_numpy(labels).tolist()
    several = np.ndim(labels) > 0 and not isinstance(labels, (str, bytes))
    indices = [index(label) for label in (labels if several else [labels])]
    if several and len(indices) != len(numbers):
        raise ValueError(f"Expected {len(numbers)} labels. Received: {len(indices)}")
    return np.broadcast_to(np.array(indices, "int32"), len(numbers))


register_presets(HierarchicalImageGenerator, IMAGE_GENERATOR_PRESETS)
