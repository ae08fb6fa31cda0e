"""The classifier that scores candidates for rejection sampling: softmax regression on features."""

import keras
import numpy as np

from keras_vqvae2.files import replacing


class LabelClassifier:
    """Probabilities of labels, by softmax regression on a network's features.

    Args:
        extractor: `features.FeatureExtractor`.
        weights: Array of shape `(features + 1, classes)`; the last row is the bias.
        label_names: Names of the labels, in their order.
    """

    def __init__(self, extractor, weights, label_names):
        self.extractor = extractor
        self.weights = np.asarray(weights, "float32")
        self.label_names = list(label_names)

    @classmethod
    def fit(cls, extractor, features, labels, label_names):
        """Learns from features `(N, features)` and integer labels `(N,)`."""
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

    def __call__(self, images):
        """Probabilities `(N, classes)` of images, uint8 or floats in `[0, 1]`, `(N, H, W, 3)`."""
        return self.classify(self.extractor(images))

    def classify(self, features):
        """Probabilities `(N, classes)` from features that are there already."""
        logits = features @ self.weights[:-1] + self.weights[-1]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def accuracy(self, features, labels):
        """Share of the labels that are the most probable ones."""
        return float((self.classify(features).argmax(axis=1) == labels).mean())

    def save(self, path):
        """Writes weights (float16), names of the labels and of the features to an `.npz` file."""
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                weights=self.weights.astype("float16"),
                label_names=np.array(self.label_names),
                features=np.array(self.extractor.name),
            )

    @classmethod
    def load(cls, path, extractor):
        """Reads what `save` wrote.

        Raises:
            ValueError: If the file is another, or its classifier is for other features.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                weights, names, features = file["weights"], file["label_names"], file["features"]
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"Expected a classifier that fit_classifier.py wrote. Received: {path} ({error})"
            ) from error
        if str(features) != extractor.name:
            raise ValueError(
                f"Expected a classifier for features of {extractor.name}. "
                f"Received: one for {features} in {path}"
            )
        return cls(extractor, weights, names.tolist())
