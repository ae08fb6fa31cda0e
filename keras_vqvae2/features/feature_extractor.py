from collections.abc import Callable, Iterator

import keras
import numpy as np
import tqdm

from keras_vqvae2.hints import Dataset, Tensor
from keras_vqvae2.image_batches import image_batches, to_numpy, to_unit_floats
from keras_vqvae2.validation import check_positive


class FeatureExtractor:
    """A network that makes of each image the features by which sets of images are compared.

    Distances between sets depend on the features, so each number is reported with their name:
    `distance_name` is "FD-" and `name`, and "FID" for the one network that the FID is defined by,
    which `inception_2015` loads.

    Args:
        model: Keras model, or callable, from preprocessed images to features of shape
            `(batch, features)`. A Keras model runs compiled and as at inference.
        name: Name of network and weights, such as `"EfficientNetLite0"`.
        preprocess: None, or function from float32 images in `[0, 1]`, `(batch, height, width, 3)`,
            to what `model` takes.
        classifier: None, or callable from features to probabilities of shape `(batch, classes)`.

    Raises:
        ValueError: If `name` is not a string, or is empty.

    Example:

    ```python
    import numpy as np
    from keras_vqvae2 import features

    extractor = features.FeatureExtractor(lambda x: x.mean(axis=(1, 2)), name="MeanColour")
    images = np.random.default_rng(0).integers(256, size=(5, 8, 8, 3), dtype="uint8")
    print(extractor.extract(images, batch_size=2, verbose=0).shape)  # (5, 3)
    print(extractor.distance_name)  # FD-MeanColour
    ```

    Reference:
        - Heusel et al. 2017, arXiv 1706.08500: the distance, on Inception's features.
        - Razavi et al. 2019, arXiv 1906.00446, section 5: what of it the paper reports.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        name: str,
        preprocess: Callable[[np.ndarray], Tensor] | None = None,
        classifier: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"Expected a name for the features. Received: name={name!r}")
        self.model = model
        self.name = name
        self.preprocess = preprocess
        self.classifier = classifier

    @property
    def distance_name(self) -> str:
        """What a Fréchet distance of these features is called."""
        return "FID" if self.name == "Inception-2015-12-05" else f"FD-{self.name}"

    def __call__(self, images: Tensor) -> np.ndarray:
        """Computes the features of one batch.

        Args:
            images: uint8, or floats in `[0, 1]`, of shape `(batch, height, width, 3)`.

        Returns:
            float32 array of shape `(batch, features)`.

        Raises:
            ValueError: If the images or what the model returns have another shape, or values of
                the images are out of range or NaN.
        """
        images = to_numpy(images)
        _check(images)
        inputs = to_unit_floats(images)  # a copy, which `preprocess` may overwrite
        if self.preprocess is not None:
            inputs = self.preprocess(inputs)
        model = self.model
        if isinstance(model, keras.Model):  # compiled: eager takes many times as long on JAX
            model = model.predict_on_batch
        return _rows(model(inputs), "features", self.name, len(images))

    def classify(self, features: Tensor) -> np.ndarray:
        """Computes the probabilities of the classes from features that are there already.

        Args:
            features: Of shape `(batch, features)`, as `__call__` or `extract` returns.

        Returns:
            float32 array of shape `(batch, classes)`.

        Raises:
            ValueError: If there is no classifier.
        """
        if self.classifier is None:
            raise ValueError(
                "Expected an extractor with a classifier, for probabilities. "
                f"Received: {self.name} with classifier=None"
            )
        return _rows(self.classifier(features), "probabilities", self.name, len(features))

    def probabilities(self, images: Tensor) -> np.ndarray:
        """Computes the probabilities of the classes of one batch; see `__call__` and `classify`."""
        return self.classify(self(images))

    def stream(
        self, images: Tensor | Dataset, batch_size: int = 32, verbose: int = 1
    ) -> Iterator[np.ndarray]:
        """Yields the features of any number of images, a batch at a time.

        Args:
            images: An array, or an iterable over batches, with labels (which are ignored) or
                without, such as a `tf.data.Dataset`; images as in `__call__`.
            batch_size: Images at a time of an array; an iterable brings its own batches.
            verbose: 1 shows a progress bar.

        Yields:
            float32 arrays of shape `(batch, features)`, in the order of the images.

        Raises:
            ValueError: If there are no images, or as in `__call__`.
        """
        check_positive(batch_size=batch_size)
        total = len(images) if hasattr(images, "shape") else None
        size = 0
        with tqdm.tqdm(total=total, desc=self.name, unit="image", disable=not verbose) as progress:
            for batch in image_batches(images, batch_size):
                count = len(batch)
                # A last batch that is not full would be compiled for once more: it is filled up.
                size = max(size, count)
                if 0 < count < size:
                    batch = np.concatenate([batch, np.repeat(batch[-1:], size - count, axis=0)])
                yield self(batch)[:count]
                progress.update(count)
        if not size:
            raise ValueError("Expected images. Received: an empty source")

    def extract(
        self, images: Tensor | Dataset, batch_size: int = 32, verbose: int = 1
    ) -> np.ndarray:
        """Computes the features of any number of images.

        Args:
            images: As in `stream`.
            batch_size: As in `stream`.
            verbose: As in `stream`.

        Returns:
            float32 array of shape `(images, features)`.

        Raises:
            ValueError: As in `stream`.
        """
        return np.concatenate(list(self.stream(images, batch_size, verbose)))


def _rows(outputs, what, name, count):
    outputs = to_numpy(outputs)
    if outputs.ndim != 2 or len(outputs) != count:
        raise ValueError(
            f"Expected {what} of shape ({count}, …) for {count} images. "
            f"Received: {outputs.shape} from {name}"
        )
    return outputs.astype("float32", copy=False)


def _check(images):
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        raise ValueError(
            "Expected images of shape (batch, height, width, 3), at least one. "
            f"Received: images of shape {images.shape}"
        )
    if images.dtype == np.uint8:
        return
    if images.dtype.kind != "f":
        raise ValueError(
            f"Expected uint8 pixels, or floats in [0, 1]. Received: images of {images.dtype}"
        )
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 1):
        raise ValueError(
            "Expected uint8 pixels, or floats in [0, 1] without NaN. "
            f"Received: floats from {low} to {high}"
        )
