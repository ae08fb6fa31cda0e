from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_vqvae2 import VQVAE2, HierarchicalImageGenerator, PixelSnailPrior
from keras_vqvae2.features import FeatureExtractor

EXAMPLES = Path(__file__).parents[2] / "examples"
COLOURS = FeatureExtractor(lambda images: images.mean(axis=(1, 2)), name="MeanColour")


@pytest.fixture
def classifier_class(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    from label_classifier import LabelClassifier

    return LabelClassifier


@pytest.fixture
def colours(rng):
    """Images whose label is the colour that is strongest in them."""
    labels = np.arange(3000) % 3
    images = rng.uniform(0.0, 0.6, size=(3000, 4, 4, 3))
    images[np.arange(3000), :, :, labels] += 0.3
    return images.astype("float32"), labels


def test_it_learns_and_survives_its_file(classifier_class, colours, tmp_path):
    images, labels = colours
    features = COLOURS(images)
    fitted = classifier_class.fit(COLOURS, features, labels, ["red", "green", "blue"])
    assert fitted.accuracy(features, labels) > 0.95
    path = tmp_path / "classifier.npz"
    fitted.save(path)
    loaded = classifier_class.load(path, COLOURS)
    assert loaded.label_names == ["red", "green", "blue"]
    probabilities = loaded(images)
    np.testing.assert_allclose(probabilities, fitted.classify(features), atol=5e-3)  # float16
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_probabilities_are_those_of_a_softmax(classifier_class):
    weights = np.array([[1.0, 0.0], [0.0, 2.0], [0.5, 0.0]])
    classifier = classifier_class(COLOURS, weights, ["a", "b"])
    logits = np.array([[1 + 0.5, 2.0], [3 + 0.5, 8.0]])
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    received = classifier.classify(np.array([[1.0, 1.0], [3.0, 4.0]]))
    np.testing.assert_allclose(received, expected, rtol=1e-6)


def test_other_files_are_refused(classifier_class, tmp_path):
    pickled, text = tmp_path / "pickled.npz", tmp_path / "text.npz"
    np.savez(pickled, weights=np.array([{}], object), label_names=["a"], features="MeanColour")
    text.write_text("no weights")
    for path in (pickled, text, tmp_path / "none.npz"):
        with pytest.raises(ValueError, match="Expected a classifier that fit_classifier.py wrote"):
            classifier_class.load(path, COLOURS)
    other = tmp_path / "other.npz"
    classifier_class(FeatureExtractor(None, name="Other"), np.zeros((4, 2)), ["a", "b"]).save(other)
    with pytest.raises(ValueError, match="features of MeanColour. Received: one for Other"):
        classifier_class.load(other, COLOURS)


def test_the_bundled_classifiers_know_their_presets_labels(classifier_class):
    extractor = FeatureExtractor(None, name="EfficientNetLite0")
    for name in ("clothing_64", "imagenette_128"):
        path = EXAMPLES / "classifiers" / f"{name}.npz"
        assert path.stat().st_size < 30_000
        classifier = classifier_class.load(path, extractor)
        assert len(classifier.label_names) == 10 and classifier.weights.shape == (1281, 10)
        assert np.isfinite(classifier.weights).all()


@pytest.fixture
def folder(tmp_path, rng):
    """A tiny generator's preset, and reddish and greenish images of its two labels."""
    vqvae = VQVAE2((32, 32, 3), num_embeddings=8, hidden_units=8, residual_units=4, num_levels=1)
    prior = PixelSnailPrior(
        (8, 8),
        level="bottom",
        num_classes=2,
        num_embeddings=8,
        hidden_units=8,
        residual_units=4,
        num_blocks=1,
        block_layers=1,
        output_blocks=0,
        attention_heads=2,
    )
    generator = HierarchicalImageGenerator(vqvae, [prior], ["green", "red"])
    generator.save_to_preset(tmp_path / "generator")
    for split in ("train", "validation"):
        for label, name in enumerate(("green", "red")):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(6):
                pixels = rng.integers(100, size=(32, 32, 3), dtype="uint8")
                pixels[..., 1 - label] += 150
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.png")
    return tmp_path


def test_the_script_fits_a_folder(folder, classifier_class, call):
    flags = [f"--preset={folder}/generator", f"--cache={folder}/cache"]
    flags += [f"--{split}={folder}/{split}" for split in ("train", "validation")]
    flags += [f"--classifier={folder}/classifier.npz"]
    done = call("fit_classifier", *flags)
    assert done.code == 0, done.err
    assert "100.0% of 12 validation images right" in done.out
    extractor = FeatureExtractor(None, name="EfficientNetLite0")
    classifier = classifier_class.load(folder / "classifier.npz", extractor)
    assert classifier.label_names == ["green", "red"]

    (folder / "validation" / "red").rename(folder / "validation" / "blue")
    done = call("fit_classifier", *flags)
    message = "fit_classifier: Expected the classes ['green', 'red']. Received: ['blue', 'green']"
    assert done.code == 1 and done.err.splitlines()[-1].startswith(message)
