"""How near generated images come to real ones: what evaluate.py and choose_settings.py share."""

import hashlib
import math

import numpy as np
import tqdm
from label_classifier import LabelClassifier

from keras_vqvae2 import metrics
from keras_vqvae2.data import images_from_folder
from keras_vqvae2.files import replacing
from keras_vqvae2.plots import save_curves

CHUNK = 64  # images at a time


def read_images(folder, size):
    """Images `(N, H, W, 3)`, uint8, and labels `(N,)` of a folder with a folder a class."""
    batches = images_from_folder(folder, size, CHUNK, labels=True)
    pairs = [(np.rint(x * 255).astype("uint8"), y) for x, y in batches.as_numpy_iterator()]
    images, labels = zip(*pairs)
    return np.concatenate(images), np.concatenate(labels)


def markdown_table(columns, rows):
    """Markdown of rows of texts and numbers."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [format(cell, ".4g") if isinstance(cell, float) else str(cell) for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cached_features(extractor, images, folder):
    """Features of images, read from `folder` if the same images were measured before.

    Args:
        extractor: `features.FeatureExtractor`.
        images: uint8 of shape `(N, H, W, 3)`; the name of the file is a digest of them.
        folder: `pathlib.Path`.

    Returns:
        float32 of shape `(N, features)`.
    """
    digest = hashlib.sha256(str(images.shape).encode() + np.ascontiguousarray(images).tobytes())
    path = folder / f"{extractor.name}-{digest.hexdigest()[:16]}.npy"
    if path.exists():
        return np.load(path, allow_pickle=False)
    features = extractor.extract(images, batch_size=CHUNK)
    with replacing(path) as temporary:
        np.save(temporary, features)
    return features


def compare(extractor, features, reference):
    """Compares a set of images with real ones.

    Precision, recall, density and coverage take as many real images as there are others. The
    Inception score is over the extractor's own classes, in one part.

    Args:
        extractor: `features.FeatureExtractor` with a classifier.
        features: Of the images, `(N, features)`.
        reference: Of the real images, `(M, features)`.

    Returns:
        Dict of floats.
    """
    count = min(len(features), len(reference))
    score, _ = metrics.inception_score(extractor.classify(features), splits=1)
    is_inception = extractor.distance_name == "FID"
    return {
        extractor.distance_name: metrics.frechet_distance(features, reference),
        **metrics.precision_recall(features[:count], reference[:count]),
        **metrics.density_coverage(features[:count], reference[:count]),
        "IS" if is_inception else f"IS-{extractor.name}": score,
    }


class SampleQuality:
    """Compares sets of images with real ones, and scores candidates for rejection sampling.

    Args:
        extractor: `features.FeatureExtractor`.
        train: Features and labels of training images, `(N, features)` and `(N,)`: the classifier
            that scores candidates learns from them.
        reference: Features and labels of the real images to compare with, likewise.
        count: How many images a compared set has; as many as the reference if None.
    """

    def __init__(self, extractor, train, reference, count=None):
        self.extractor = extractor
        self.train_features, self.train_labels = train
        self.reference, self.labels = reference
        self.count = min(count or len(self.labels), len(self.labels), len(self.train_labels))
        names = [str(label) for label in range(int(self.train_labels.max()) + 1)]
        self.classifier = LabelClassifier.fit(
            extractor, self.train_features, self.train_labels, names
        )

    def classify(self, images):
        """Probabilities of the classes of images, `(N, classes)`."""
        return self.classifier(images)

    def compare(self, features):
        return compare(self.extractor, features, self.reference)

    def rows_of_real_images(self, reconstructions):
        """Rows of training images and of reconstructions of the reference, for comparison."""
        some = np.random.default_rng(1).permutation(len(self.train_labels))[: self.count]
        count = self.count
        return {
            "training images": {
                **self.compare(self.train_features[some]),
                "label found": self.classifier.accuracy(
                    self.train_features[some], self.train_labels[some]
                ),
            },
            "reconstructions": {
                **self.compare(reconstructions[:count]),
                "label found": self.classifier.accuracy(
                    reconstructions[:count], self.labels[:count]
                ),
            },
        }

    def rows_of_samples(self, generator, rates, seed, reconstructions):
        """A row for each acceptance rate.

        Candidates have the labels of the reference in turn. Those of a rate are the first of those
        of a lower one, and as many are kept of each label as the reference has: sets of all rates
        are equally large. Features and scores are kept, pixels are not.

        Args:
            generator: `HierarchicalImageGenerator` with classes.
            rates: Floats in `(0, 1]`.
            seed: Seed of the candidates.
            reconstructions: Features of reconstructions, which the samples are compared with too.

        Returns:
            Dict from name to row.
        """
        wanted = self.labels[: self.count]
        labels = np.resize(wanted, math.ceil(self.count / min(rates)))
        features = []
        for start in tqdm.trange(0, len(labels), CHUNK, desc="candidates", unit=f"{CHUNK} images"):
            part = labels[start : start + CHUNK]
            settings = {"seed": seed, "first_image": start, "batch_size": CHUNK, "verbose": 0}
            features.append(self.extractor(generator.generate(len(part), part, **settings)))
        features = np.concatenate(features)
        scores = self.classifier.classify(features)[np.arange(len(labels)), labels]
        rows = {}
        for rate in rates:
            among = np.arange(math.ceil(self.count / rate))
            kept = []
            for label, count in zip(*np.unique(wanted, return_counts=True)):
                places = among[labels[among] == label]
                kept.append(places[np.argsort(-scores[places], kind="stable")[:count]])
            kept = np.sort(np.concatenate(kept))
            star = metrics.frechet_distance(features[kept], reconstructions)
            rows[f"samples, rate {rate:g}"] = {
                **self.compare(features[kept]),
                "label found": self.classifier.accuracy(features[kept], labels[kept]),
                f"{self.extractor.distance_name}*": star,
            }
        return rows

    def report(self, rows):
        """The rows beside what they were measured with."""
        return {
            "images": self.count,
            "real_images": len(self.reference),
            "classifier_accuracy": self.classifier.accuracy(self.reference, self.labels),
            "rows": rows,
        }


def draw_rates(rates, rows, path):
    """Writes a picture of precision and recall against the acceptance rate."""
    curves = {
        name: (rates, [rows[f"samples, rate {rate:g}"][name] for rate in rates])
        for name in ("precision", "recall", "density", "coverage")
    }
    save_curves(curves, path, "acceptance rate", "share")
