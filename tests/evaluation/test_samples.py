import math

import numpy as np
import pytest

from keras_vqvae2 import VQVAE2, HierarchicalImageGenerator, PixelSnailPrior, metrics
from keras_vqvae2.evaluation import LabelClassifier, evaluate_samples, features_at_rates
from keras_vqvae2.features import FeatureExtractor
from keras_vqvae2.models.rejection_sampling import candidate_labels


def colours(images):
    return np.concatenate([images.mean(axis=(1, 2)), images.std(axis=(1, 2))], axis=1)


def shares(features):
    return features[:, :3] / features[:, :3].sum(axis=1, keepdims=True)


def test_a_row_is_the_metrics_of_the_features(rng):
    extractor = FeatureExtractor(colours, name="Colours", classifier=shares)
    samples, real = rng.uniform(size=(2, 12, 8, 8, 3))
    samples, real = extractor(samples), extractor(real[:9])
    measured = evaluate_samples(samples, real, extractor)
    expected = {
        "FD-Colours": metrics.frechet_distance(samples, real),
        **metrics.precision_recall(samples[:9], real),
        **metrics.density_coverage(samples[:9], real),
        "IS-Colours": metrics.inception_score(shares(samples), splits=1)[0],
    }
    assert measured == pytest.approx(expected)
    plain = FeatureExtractor(colours, name="Colours")
    assert list(evaluate_samples(samples, real, plain)) == list(expected)[:-1]


@pytest.fixture(scope="module")
def generator():
    vqvae = VQVAE2((16, 16, 3), num_embeddings=8, hidden_units=8, residual_units=4, num_levels=1)
    prior = PixelSnailPrior(
        (4, 4), 8, "bottom", num_classes=3, hidden_units=8, residual_units=8, num_blocks=1,
        block_layers=1, attention_heads=0, output_blocks=0,
    )  # fmt: skip
    return HierarchicalImageGenerator(vqvae, [prior])


@pytest.fixture
def classifier(rng):
    weights = rng.normal(size=(7, 3), scale=9.0)
    return LabelClassifier(FeatureExtractor(colours, name="Colours"), weights, "abc")


def test_what_is_kept_is_what_generate_best_keeps(generator, classifier):
    labels = np.array([0, 2, 2, 1])
    kept = features_at_rates(generator, classifier, labels, [1, 0.5, 0.25], 7, 5, verbose=0)
    for rate, (features, of) in kept.items():
        best = generator.generate_best(4, classifier, rate, labels, seed=7, verbose=0)
        assert sum(best.candidates.values()) == math.ceil(4 / rate)
        order = np.argsort(best.numbers)
        np.testing.assert_array_equal(of, best.labels[order])
        np.testing.assert_allclose(features, colours(best.images[order]), atol=1e-5)
    assert not np.allclose(kept[1][0], kept[0.25][0])


def test_every_label_has_its_share_of_candidates(generator, classifier):
    """Where labels are sorted and 1 / rate is not whole."""
    labels = np.repeat([0, 2], 10)
    kept = features_at_rates(generator, classifier, labels, [0.7, 0.4], seed=3, verbose=0)
    best = generator.generate_best(20, classifier, 0.4, labels, seed=3, verbose=0)
    assert best.candidates == {0: 25, 2: 25}
    order = np.argsort(best.numbers)
    np.testing.assert_allclose(kept[0.4][0], colours(best.images[order]), atol=1e-5)
    competing = candidate_labels(labels, 0.4)
    images = generator.generate(50, competing, seed=3, verbose=0)
    scores, stays = classifier(images)[np.arange(50), competing], []
    for label in (0, 2):
        first = np.flatnonzero(competing == label)[:15]  # ceil(10 / 0.7)
        stays += sorted(first, key=lambda i: -scores[i])[:10]
    np.testing.assert_allclose(kept[0.7][0], colours(images[np.sort(stays)]), atol=1e-5)
    np.testing.assert_array_equal(kept[0.7][1], competing[np.sort(stays)])


def test_what_does_not_fit_is_refused(generator, classifier):
    with pytest.raises(ValueError, match=r"rates in \(0, 1\]. Received: .*=\[0.5, 0\]"):
        features_at_rates(generator, classifier, [0], [0.5, 0])
    with pytest.raises(ValueError, match=r"\[0, 3\). Received: labels from 3 to 3"):
        features_at_rates(generator, classifier, [3], [1])
