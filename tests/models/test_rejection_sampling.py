import tracemalloc

import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae2 import VQVAE2, HierarchicalImageGenerator, PixelSnailPrior
from keras_vqvae2.models.rejection_sampling import (
    RejectionResult,
    _BestOfEachLabel,
    rejection_sample,
)


def by_brightness(images):
    """Probabilities of "dark" and "bright"."""
    bright = np.asarray(images).mean(axis=(1, 2, 3))
    return np.stack([1 - bright, bright], axis=1)


def brute_force(images, labels, keep):
    """Numbers of the best of each label, the lower number first where scores are equal."""
    scores = by_brightness(images)[np.arange(len(labels)), labels]
    numbers = []
    for label in np.unique(labels):
        those = np.flatnonzero(labels == label)
        numbers += sorted(those, key=lambda i: (-scores[i], i))[:keep]
    return numbers, scores[numbers]


def batches(images, labels, size):
    return ((images[i : i + size], labels[i : i + size]) for i in range(0, len(images), size))


@pytest.fixture
def candidates(rng):
    # Of few brightnesses, so that many are equal.
    images = np.ones((60, 4, 4, 3), "float32") * rng.integers(8, size=(60, 1, 1, 1)) / 8
    return images.astype("float32"), rng.integers(2, size=60)


@pytest.mark.parametrize("keep", [1, 7])
@pytest.mark.parametrize("size", [1, 13, 60])
def test_a_stream_keeps_what_all_at_once_would(candidates, keep, size):
    images, labels = candidates
    result = rejection_sample(batches(images, labels, size), by_brightness, keep)
    numbers, scores = brute_force(images, labels, keep)
    assert result.numbers.tolist() == numbers
    np.testing.assert_array_equal(result.images, images[numbers])
    np.testing.assert_array_equal(result.labels, labels[numbers])
    np.testing.assert_allclose(result.scores, scores, rtol=1e-6)
    assert result.candidates == {k: int((labels == k).sum()) for k in (0, 1)}
    assert result.acceptance_rate == 2 * keep / 60


def test_a_stricter_rate_is_a_prefix(candidates):
    images, labels = candidates
    labels = np.arange(60) % 2
    everything = rejection_sample(batches(images, labels, 16), by_brightness, keep=30)
    for rate, keep in [(1.0, 30), (0.5, 15), (0.1, 3), (0.001, 1)]:
        strict = everything.best(rate)
        again = rejection_sample(batches(images, labels, 16), by_brightness, keep)
        np.testing.assert_array_equal(strict.numbers, again.numbers)
        np.testing.assert_array_equal(strict.images, again.images)
        assert strict.acceptance_rate == again.acceptance_rate == 2 * keep / 60
    with pytest.raises(ValueError, match="at most about 0.5, at.*Received: acceptance_rate=0.6"):
        everything.best(0.5).best(0.6)


def test_memory_does_not_grow_with_the_stream():
    """A hundred times what may be kept passes by: 4 of 96 KiB for each of two labels."""
    kept = {0: 4, 1: 4}
    rng = np.random.default_rng(0)

    def stream():
        for _ in range(100):
            yield rng.uniform(size=(8, 64, 64, 3)).astype("float16"), np.arange(8) % 2

    one = 64 * 64 * 3 * 2
    tracemalloc.start()
    result = rejection_sample(stream(), by_brightness, kept)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.images.shape == (8, 64, 64, 3) and sum(result.candidates.values()) == 800
    # Kept, kept and put in order, and the batch at hand in several types; all would be 800.
    assert peak < 300 * one


def test_only_copies_of_the_best_are_held(rng):
    best = _BestOfEachLabel({0: 3, 1: 2})
    for _ in range(5):
        best.add(rng.uniform(size=(8, 4, 4, 3)), np.arange(8) % 2, rng.uniform(size=8))
        held = {label: [entry[-1] for entry in heap] for label, heap in best._heaps.items()}
        assert {label: len(images) for label, images in held.items()} == best.keep
        # A view would hold all of its batch.
        assert all(image.base is None for images in held.values() for image in images)


def test_uint8_candidates_are_scaled_for_the_classifier_and_kept_as_they_are(rng):
    pixels = rng.integers(256, size=(6, 4, 4, 3), dtype="uint8")
    labels = np.ones(6, int)
    result = rejection_sample([(pixels, labels)], by_brightness, keep=2)
    expected = np.argsort(-pixels.mean(axis=(1, 2, 3)))[:2]
    assert result.images.dtype == np.uint8
    np.testing.assert_array_equal(result.images, pixels[expected])


def test_a_keras_model_of_other_classes(rng):
    model = keras.Sequential(
        [keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(5, "softmax")]
    )
    images, labels = rng.uniform(size=(9, 4, 4, 3)).astype("float32"), np.arange(9) % 2
    result = rejection_sample([(images, labels)], model, keep=9 // 2, class_indices=[4, 1])
    expected = ops.convert_to_numpy(model(images))[np.arange(9), np.array([4, 1])[labels]]
    np.testing.assert_allclose(result.scores, expected[result.numbers], rtol=1e-5)
    assert np.bincount(labels[result.numbers]).tolist() == [4, 4]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"keep": 0}, "Received: keep=0"),
        ({"keep": {0: 1, 1: 0}}, r"Received: keep\[1\]=0"),
        ({"keep": {0: 1}}, r"Expected labels among \[0\]. Received: 1"),
        ({"classifier": lambda x: 5 * by_brightness(x)}, "apply a softmax"),
        ({"classifier": lambda x: by_brightness(x) * [np.nan, 1]}, "apply a softmax"),
        ({"classifier": lambda x: np.full((4, 2), [1.5, -0.5])}, "from -0.5 to 1.5"),
        ({"classifier": lambda x: by_brightness(x)[:3]}, r"shape \(4, outputs\).* \(3, 2\)"),
        ({"classifier": lambda x: by_brightness(x)[:, 0]}, r"Received: shape \(4,\)"),
        ({"classifier": lambda x: np.ones((4, 1))}, "classes below 1.* from 0 to 1"),
        ({"class_indices": [0]}, "Expected labels below 1, the entries of class_indices"),
        ({"class_indices": [0, 2]}, "Expected classes below 2.* from 0 to 2"),
        ({"labels": np.zeros(3, int)}, r"4 integer labels. Received: labels of shape \(3,\)"),
        ({"labels": np.zeros(4)}, "dtype float64"),
        ({"labels": np.full(4, -1)}, "from -1 to -1"),
        ({"images": np.full((4, 4, 4, 3), 2.0)}, r"Expected pixels in \[0, 1\]"),
        ({"images": np.zeros((4, 4, 3))}, "Expected images of shape"),
    ],
)
def test_bad_streams(changes, message):
    batch = (
        changes.pop("images", np.full((4, 4, 4, 3), 0.5)),
        changes.pop("labels", np.arange(4) % 2),
    )
    arguments = {"classifier": by_brightness, "keep": 2, **changes}
    with pytest.raises(ValueError, match=message):
        rejection_sample([batch], **arguments)


def test_streams_that_change_or_are_empty():
    first, labels = np.zeros((2, 4, 4, 3), "float32"), np.zeros(2, int)
    for other in (np.zeros((2, 8, 8, 3), "float32"), first.astype("uint8")):
        with pytest.raises(ValueError, match=r"Expected images of shape \(4, 4, 3\) and dtype f"):
            rejection_sample([(first, labels), (other, labels)], by_brightness, 1)
    with pytest.raises(ValueError, match="Expected candidates. Received: none"):
        rejection_sample([], by_brightness, 1)
    with pytest.warns(UserWarning, match=r"keep=3 candidates of each label. Received: \{0: 2\}"):
        assert len(rejection_sample([(first, labels)], by_brightness, 3).images) == 2
    with pytest.raises(ValueError, match="Received: acceptance_rate=0"):
        RejectionResult(first, labels, labels, labels, {0: 2}).best(0)


# === A generator ===


def prior(level, code_shape, **changes):
    model = PixelSnailPrior(
        code_shape, 12, level, hidden_units=8, residual_units=6, num_blocks=1, block_layers=1,
        kernel_size=3, attention_heads=2, output_blocks=0, **{"num_classes": 2, **changes},
    )  # fmt: skip
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(0.3 * rng.normal(size=variable.shape))
    return model


def vqvae():
    return VQVAE2(
        (16, 16, 3), num_embeddings=12, hidden_units=8, residual_units=4, num_levels=1,
        downsample_factors=(4,),
    )  # fmt: skip


@pytest.fixture(scope="module")
def generator():
    return HierarchicalImageGenerator(vqvae(), [prior("bottom", (4, 4))], ["dark", "bright"])


def test_all_are_accepted_at_rate_one(generator):
    labels = ["bright", "dark", "bright", "bright"]
    result = generator.generate_best(4, by_brightness, 1.0, labels, seed=2, verbose=0)
    images = generator.generate(4, labels, seed=2, verbose=0)
    np.testing.assert_allclose(result.images, images[result.numbers], atol=1e-6)
    assert sorted(result.numbers) == [0, 1, 2, 3]
    assert result.labels.tolist() == [1, 0, 1, 1] and result.acceptance_rate == 1
    assert (np.diff(result.scores[[0, 2, 3]]) <= 0).all()


@pytest.mark.parametrize("batch_size", [3, 32])
def test_the_best_candidates_are_images_of_the_generator(generator, batch_size):
    labels = [1, 1, 0]
    settings = {"temperature": 2.0, "seed": 5}
    result = generator.generate_best(
        3, by_brightness, 0.3, labels, **settings, batch_size=batch_size, verbose=0
    )
    # Of 2 bright ones ceil(2 / 0.3) = 7 candidates, of 1 dark one 4.
    competing = np.array([1, 1, 0] * 3 + [1, 0])
    assert result.candidates == {0: 4, 1: 7}
    images = generator.generate(11, competing, **settings, verbose=0)
    numbers, _ = brute_force(images, competing, 2)
    expected = [numbers[2], numbers[3], numbers[0]]
    assert result.numbers.tolist() == expected and result.labels.tolist() == labels
    np.testing.assert_allclose(result.images, images[expected], atol=1e-5)
    again = result.best(0.3)
    np.testing.assert_array_equal(again.numbers, result.numbers)
    lowest = int(result.numbers[0])
    alone = generator.generate(1, "bright", **settings, first_image=lowest, verbose=0)
    np.testing.assert_allclose(alone[0], result.images[0], atol=1e-5)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"acceptance_rate": 0}, r"Expected a rate in \(0, 1\]. Received: acceptance_rate=0"),
        ({"acceptance_rate": 1.01}, "Received: acceptance_rate=1.01"),
        ({"acceptance_rate": float("nan")}, "Received: acceptance_rate=nan"),
        ({"num_images": 0}, "Received: num_images=0"),
        ({"batch_size": 0}, "Received: batch_size=0"),
        ({"labels": "bird"}, "Received: 'bird'"),
        ({"temperature": -1}, "Received: temperature=-1"),
        ({"classifier": lambda x: np.ones((len(x), 1))}, "Expected classes below 1"),
        ({"classifier": lambda x: 3 * by_brightness(x)}, "apply a softmax"),
        ({"class_indices": [1]}, "Expected labels below 1"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_drawn(
    generator, monkeypatch, changes, message
):
    monkeypatch.setattr(generator.priors["bottom"], "generate", None)
    arguments = {"num_images": 4, "classifier": by_brightness, "acceptance_rate": 0.5, **changes}
    with pytest.raises(ValueError, match=message):
        generator.generate_best(**arguments, verbose=0)


def test_a_generator_without_classes():
    generator = HierarchicalImageGenerator(vqvae(), [prior("bottom", (4, 4), num_classes=None)])
    with pytest.raises(ValueError, match="Expected a generator with classes"):
        generator.generate_best(2, by_brightness, 0.5)
