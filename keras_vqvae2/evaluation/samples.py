"""How near generated images come to real ones, with and without rejection sampling."""

import math
from collections.abc import Sequence

import numpy as np
import tqdm

from keras_vqvae2 import metrics
from keras_vqvae2.evaluation.label_classifier import LabelClassifier
from keras_vqvae2.features import FeatureExtractor
from keras_vqvae2.hints import Tensor
from keras_vqvae2.image_batches import to_numpy
from keras_vqvae2.models.image_generator import HierarchicalImageGenerator
from keras_vqvae2.models.rejection_sampling import candidate_labels, num_candidates
from keras_vqvae2.validation import check_codes


def evaluate_samples(
    features: Tensor, reference: Tensor, extractor: FeatureExtractor
) -> dict[str, float]:
    """Compares a set of images with real ones, by their features.

    Args:
        features: Of the images, shape `(N, features)`, as `extractor.extract` makes them.
        reference: Of the real images, shape `(M, features)`.
        extractor: `features.FeatureExtractor` that made both.

    Returns:
        Dict of floats: the Fréchet distance under the extractor's `distance_name`; `precision`,
        `recall`, `density` and `coverage`, of the first `min(N, M)` of each; and, of an extractor
        with a classifier, the Inception score of the images over its classes, in one part (`IS`,
        and `IS-…` of other networks than Inception).

    Raises:
        ValueError: If the features do not fit each other, or there are too few.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2
    from keras_vqvae2 import features

    extractor = features.FeatureExtractor(lambda x: x.mean(axis=(1, 2)), name="MeanColour")
    images = np.random.default_rng(0).uniform(size=(2, 20, 8, 8, 3))
    samples, real = (extractor.extract(x, verbose=0) for x in images)
    print(list(keras_vqvae2.evaluation.evaluate_samples(samples, real, extractor)))
    # ['FD-MeanColour', 'precision', 'recall', 'density', 'coverage']
    ```

    Reference:
        - Razavi, van den Oord, Vinyals 2019, arXiv 1906.00446, section 5.
    """
    features, reference = to_numpy(features), to_numpy(reference)
    count = min(len(features), len(reference))
    measured = {
        extractor.distance_name: metrics.frechet_distance(features, reference),
        **metrics.precision_recall(features[:count], reference[:count]),
        **metrics.density_coverage(features[:count], reference[:count]),
    }
    if extractor.classifier is not None:
        name = "IS" if extractor.distance_name == "FID" else f"IS-{extractor.name}"
        measured[name], _ = metrics.inception_score(extractor.classify(features), splits=1)
    return measured


def features_at_rates(
    generator: HierarchicalImageGenerator,
    classifier: LabelClassifier,
    labels: Tensor,
    acceptance_rates: Sequence[float],
    seed: int = 0,
    batch_size: int = 64,
    verbose: int = 1,
) -> dict[float, tuple[np.ndarray, np.ndarray]]:
    """Features of what `generate_best` keeps at each of several rates, from one set of candidates.

    At every rate a label that is asked for `m` times has `ceil(m / rate)` candidates: the first of
    those that it has at a lower one. Features and scores are held in memory, pixels are not.

    Args:
        generator: `HierarchicalImageGenerator` with classes.
        classifier: `LabelClassifier`.
        labels: Integers of shape `(N,)`: as many samples of each label are kept at every rate.
        acceptance_rates: Floats in `(0, 1]`.
        seed: Of the candidates.
        batch_size: Positive integer, candidates at a time.
        verbose: 1 shows a progress bar.

    Returns:
        Dict from rate to a tuple: features `(N, features)`, and labels `(N,)`.

    Raises:
        ValueError: If a rate or a label is out of range, or the generator has no classes.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2
    from keras_vqvae2.evaluation import LabelClassifier, features_at_rates

    vqvae = keras_vqvae2.VQVAE2((16, 16, 3), hidden_units=8, residual_units=4, num_levels=1)
    prior = keras_vqvae2.PixelSnailPrior(
        (4, 4), level="bottom", num_classes=2, hidden_units=8, residual_units=8, num_blocks=1,
        block_layers=1, attention_heads=2, output_blocks=0,
    )
    generator = keras_vqvae2.HierarchicalImageGenerator(vqvae, [prior])
    mean = keras_vqvae2.features.FeatureExtractor(lambda x: x.mean(axis=(1, 2)), "MeanColour")
    classifier = LabelClassifier(mean, np.eye(4, 2), ["red", "green"])
    kept = features_at_rates(generator, classifier, [0, 1, 0], [1, 0.5], verbose=0)
    print(kept[0.5][0].shape)  # (3, 3)
    ```

    Reference:
        - Razavi, van den Oord, Vinyals 2019, arXiv 1906.00446, section 3.3.
    """
    rates = list(acceptance_rates)
    if not rates or not all(0 < rate <= 1 for rate in rates):
        raise ValueError(f"Expected rates in (0, 1]. Received: acceptance_rates={rates}")
    if generator.num_classes is None:
        raise ValueError("Expected a generator with classes. Received: one without")
    labels = check_codes(labels, generator.num_classes, (), "labels", what="labels")
    competing = candidate_labels(labels, min(rates))
    batches = generator.generate_batches(
        len(competing), competing, seed=seed, batch_size=batch_size, verbose=0
    )
    total = math.ceil(len(competing) / batch_size)
    progress = tqdm.tqdm(batches, "candidates", total, unit="batch", disable=not verbose)
    features = np.concatenate([classifier.extractor(images) for images in progress])
    scores = classifier.classify(features)[np.arange(len(competing)), competing]
    kept = {}
    for rate in rates:
        places = []
        for label, count in zip(*np.unique(labels, return_counts=True)):
            of_label = np.flatnonzero(competing == label)[: num_candidates(count, rate)]
            places.append(of_label[np.argsort(-scores[of_label], kind="stable")[:count]])
        stays = np.sort(np.concatenate(places))
        kept[rate] = features[stays], competing[stays]
    return kept
