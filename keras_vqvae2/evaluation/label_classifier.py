from collections.abc import Sequence
from typing import Self

import keras
import numpy as np

from keras_vqvae2.features import FeatureExtractor
from keras_vqvae2.files import replacing
from keras_vqvae2.hints import FilePath, Tensor
from keras_vqvae2.image_batches import to_numpy
from keras_vqvae2.validation import check_codes


class LabelClassifier:
    """Probabilities of labels, by softmax regression on a network's features of images.

    Scores the candidates of `HierarchicalImageGenerator.generate_best`.

    Args:
        extractor: `features.FeatureExtractor`.
        weights: Array of shape `(features + 1, classes)`; the last row is the bias.
        label_names: Names of the labels, in their order.

    Raises:
        ValueError: If there are not as many names as columns.

    Example:

    ```python
    import numpy as np
    from keras_vqvae2 import features
    from keras_vqvae2.evaluation import LabelClassifier

    extractor = features.FeatureExtractor(lambda x: x.mean(axis=(1, 2)), name="MeanColour")
    labels = np.arange(200) % 2
    images = np.zeros((200, 8, 8, 3)) + labels[:, None, None, None]
    seen = extractor.extract(images, verbose=0)
    classifier = LabelClassifier.fit(extractor, seen, labels, ["dark", "bright"])
    print(classifier.accuracy(seen, labels))  # 1.0
    classifier.save("classifier.npz")
    ```
    """

    def __init__(
        self, extractor: FeatureExtractor, weights: Tensor, label_names: Sequence[str]
    ) -> None:
        self.extractor = extractor
        self.weights = np.asarray(weights, "float32")
        self.label_names = list(label_names)
        if self.weights.ndim != 2 or self.weights.shape[1] != len(self.label_names):
            raise ValueError(
                f"Expected weights of shape (features + 1, {len(self.label_names)}). "
                f"Received: weights of shape {self.weights.shape}"
            )

    @classmethod
    def fit(
        cls,
        extractor: FeatureExtractor,
        features: Tensor,
        labels: Tensor,
        label_names: Sequence[str],
    ) -> Self:
        """Learns from features `(N, features)` of images and their labels, integers `(N,)`.

        Raises:
            ValueError: If a label is out of range, or there are not as many labels as features.
        """
        features = to_numpy(features)
        labels = _checked(features, labels, len(label_names))
        mean = features.mean(axis=0)
        scale = np.maximum(features.std(axis=0), 1e-2)  # what hardly varies is not blown up
        regularizer = keras.regularizers.L2(1e-3)
        dense = keras.layers.Dense(len(label_names), "softmax", kernel_regularizer=regularizer)
        model = keras.Sequential([keras.Input(features.shape[1:]), dense])
        model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
        model.fit((features - mean) / scale, labels, batch_size=64, epochs=30, verbose=0)
        kernel, bias = model.get_weights()
        kernel = kernel / scale[:, None]
        return cls(extractor, np.vstack([kernel, bias - mean @ kernel]), label_names)

    def __call__(self, images: Tensor) -> np.ndarray:
        """Probabilities `(N, classes)` of images, uint8 or floats in `[0, 1]`, `(N, H, W, 3)`."""
        return self.classify(self.extractor(images))

    def classify(self, features: Tensor) -> np.ndarray:
        """Probabilities `(N, classes)` of images whose features `(N, features)` are there."""
        logits = to_numpy(features) @ self.weights[:-1] + self.weights[-1]  # (N, classes)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Share of images, by their features `(N, features)`, whose label is the most probable."""
        labels = _checked(features, labels, len(self.label_names))
        return float((self.classify(features).argmax(axis=1) == labels).mean())

    def save(self, path: FilePath) -> None:
        """Writes weights (float16), names of the labels and of the features to an `.npz` file."""
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                weights=self.weights.astype("float16"),
                label_names=np.array(self.label_names),
                features=np.array(self.extractor.name),
            )

    @classmethod
    def load(cls, path: FilePath, extractor: FeatureExtractor) -> Self:
        """Reads what `save` wrote of a classifier for the features of the same extractor.

        Raises:
            ValueError: If the file is another, or its classifier is for other features.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                weights, names, features = file["weights"], file["label_names"], file["features"]
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"Expected a file that LabelClassifier.save wrote. Received: {path} ({error})"
            ) from error
        if str(features) != extractor.name:
            raise ValueError(
                f"Expected a classifier for features of {extractor.name}. "
                f"Received: one for {features} in {path}"
            )
        return cls(extractor, weights, names.tolist())


def _checked(features, labels, classes):
    labels = check_codes(labels, classes, (), "labels", what="labels")
    if len(labels) != len(features):
        raise ValueError(f"Expected {len(features)} labels. Received: {len(labels)}")
    return labels
