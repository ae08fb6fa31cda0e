import numpy as np
import pytest

from keras_vqvae2.evaluation import LabelClassifier
from keras_vqvae2.features import FeatureExtractor

COLOURS = FeatureExtractor(lambda images: images.mean(axis=(1, 2)), name="MeanColour")


@pytest.fixture
def colours(rng):
    """Images whose label is the colour that is strongest in them."""
    labels = np.arange(3000) % 3
    images = rng.uniform(0.0, 0.6, size=(3000, 4, 4, 3))
    images[np.arange(3000), :, :, labels] += 0.3
    return images.astype("float32"), labels


@pytest.mark.compiled
def test_it_learns_and_survives_its_file(colours, tmp_path):
    images, labels = colours
    features = COLOURS(images)
    fitted = LabelClassifier.fit(COLOURS, features, labels, ["red", "green", "blue"])
    assert fitted.accuracy(features, labels) > 0.95
    path = tmp_path / "classifier.npz"
    fitted.save(path)
    loaded = LabelClassifier.load(path, COLOURS)
    assert loaded.label_names == ["red", "green", "blue"]
    probabilities = loaded(images)
    np.testing.assert_allclose(probabilities, fitted.classify(features), atol=5e-3)  # float16
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_probabilities_are_those_of_a_softmax():
    weights = np.array([[1.0, 0.0], [0.0, 2.0], [0.5, 0.0]])
    classifier = LabelClassifier(COLOURS, weights, ["a", "b"])
    logits = np.array([[1 + 0.5, 2.0], [3 + 0.5, 8.0]])
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    received = classifier.classify(np.array([[1.0, 1.0], [3.0, 4.0]]))
    np.testing.assert_allclose(received, expected, rtol=1e-6)


def test_other_files_are_refused(tmp_path):
    pickled, text = tmp_path / "pickled.npz", tmp_path / "text.npz"
    np.savez(pickled, weights=np.array([{}], object), label_names=["a"], features="MeanColour")
    text.write_text("no weights")
    for path in (pickled, text, tmp_path / "none.npz"):
        with pytest.raises(ValueError, match="Expected a file that LabelClassifier.save wrote"):
            LabelClassifier.load(path, COLOURS)
    other = tmp_path / "other.npz"
    LabelClassifier(FeatureExtractor(None, name="Other"), np.zeros((4, 2)), ["a", "b"]).save(other)
    with pytest.raises(ValueError, match="features of MeanColour. Received: one for Other"):
        LabelClassifier.load(other, COLOURS)


def test_labels_and_names_must_fit(colours):
    images, labels = colours
    features = COLOURS(images)
    with pytest.raises(ValueError, match=r"in \[0, 2\). Received: labels from 0 to 2"):
        LabelClassifier.fit(COLOURS, features, labels, ["red", "green"])
    with pytest.raises(ValueError, match="Expected 3000 labels. Received: 5"):
        LabelClassifier.fit(COLOURS, features, labels[:5], ["red", "green", "blue"])
    with pytest.raises(ValueError, match=r"shape \(features \+ 1, 2\). Received: .* \(4, 3\)"):
        LabelClassifier(COLOURS, np.zeros((4, 3)), ["a", "b"])
