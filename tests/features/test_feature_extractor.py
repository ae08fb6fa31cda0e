import keras
import numpy as np
import pytest

from keras_vqvae2.features import FeatureExtractor


def colours(x):
    return x.mean(axis=(1, 2))


@pytest.fixture
def images(rng):
    return rng.integers(256, size=(10, 6, 8, 3), dtype="uint8")


def test_features_of_a_callable_are_those_of_pixels_between_0_and_1(images):
    extractor = FeatureExtractor(colours, name="Colours")
    expected = images.astype("float64").mean(axis=(1, 2)) / 255
    features = extractor(images)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, rtol=1e-5)
    np.testing.assert_array_equal(extractor((images / 255).astype("float32")), features)
    np.testing.assert_allclose(extractor(images / 255), features, rtol=1e-6)
    assert extractor.distance_name == "FD-Colours"
    assert FeatureExtractor(colours, "Inception-2015-12-05").distance_name == "FID"


def test_a_keras_model_runs_as_at_inference_on_images_of_any_size(images, rng):
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Dropout(0.9)(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    extractor = FeatureExtractor(model, name="Colours")
    for shape in [(2, 6, 8, 3), (2, 5, 5, 3), (1, 9, 4, 3)]:
        batch = rng.uniform(size=shape).astype("float32")
        np.testing.assert_allclose(extractor(batch), colours(batch), rtol=1e-5)


def test_preprocessing_may_write_into_its_copy(images):
    def preprocess(x):
        x *= 2
        return x

    before = (images / 255).astype("float32")
    given = before.copy()
    doubled = FeatureExtractor(colours, "Doubled", preprocess=preprocess)(given)
    np.testing.assert_array_equal(given, before)
    np.testing.assert_allclose(doubled, 2 * colours(before), rtol=1e-5)


def sources(images):
    import tensorflow as tf
    import torch

    labels = np.arange(len(images))
    pairs = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    tensors = torch.utils.data.TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))
    return {
        "array": images,
        "data set of pairs": pairs,
        "data set": pairs.map(lambda x, y: tf.cast(x, tf.float32) / 255),
        "loader": torch.utils.data.DataLoader(tensors, 4),
        "generator": (images[i : i + 3] for i in range(0, 10, 3)),
        "tensors of the backend": [keras.ops.convert_to_tensor(images)],
    }


def test_every_source_gives_the_features_of_all_at_once(images):
    extractor = FeatureExtractor(colours, name="Colours")
    expected = extractor(images)
    for source, batches in sources(images).items():
        features = extractor.extract(batches, batch_size=4, verbose=0)
        np.testing.assert_allclose(features, expected, rtol=1e-5, err_msg=source)


def test_streaming_reads_one_batch_at_a_time_and_fills_the_last_one(images):
    seen, read = [], []

    def model(x):
        seen.append(len(x))
        return colours(x)

    def batches():
        for i in range(0, 10, 4):
            read.append(i)
            yield images[i : i + 4]

    stream = FeatureExtractor(model, name="Colours").stream(batches(), verbose=0)
    assert len(next(stream)) == 4 and read == [0]
    assert [len(features) for features in stream] == [4, 2]
    assert seen == [4, 4, 4]
    # An array that is smaller than a batch is not filled up to one.
    FeatureExtractor(model, name="Colours").extract(images[:3], batch_size=64, verbose=0)
    assert seen[3:] == [3]


def test_progress_names_the_features(images, capsys):
    extractor = FeatureExtractor(colours, name="Colours")
    extractor.extract(images, batch_size=4)
    assert "Colours: 100%" in capsys.readouterr().err
    extractor.extract(images, batch_size=4, verbose=0)
    assert not capsys.readouterr().err


def test_probabilities(images):
    def shares(features):
        return features / features.sum(axis=1, keepdims=True)

    extractor = FeatureExtractor(colours, "Colours", classifier=shares)
    np.testing.assert_allclose(extractor.probabilities(images).sum(axis=1), 1, rtol=1e-6)
    features = extractor.extract(images, verbose=0)
    np.testing.assert_array_equal(extractor.classify(features), extractor.probabilities(images))
    with pytest.raises(ValueError, match="with a classifier.*Received: Colours"):
        FeatureExtractor(colours, "Colours").probabilities(images)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x: x / 127.5 - 1, "floats from -"),
        (lambda x: x.astype("float32"), r"floats in \[0, 1\].*floats from .* to 255"),
        (lambda x: np.where(x == x[0, 0, 0, 0], np.nan, x / 255), "without NaN.*from nan"),
        (lambda x: x.astype("int64"), "Received: images of int64"),
        (lambda x: x[0], r"\(batch, height, width, 3\).*shape \(6, 8, 3\)"),
        (lambda x: x[..., :1], r"shape \(10, 6, 8, 1\)"),
        (lambda x: x[:0], r"at least one.*shape \(0, 6, 8, 3\)"),
    ],
)
def test_images_that_do_not_fit(images, change, message):
    images[0, 0, 0] = 255
    with pytest.raises(ValueError, match=message):
        FeatureExtractor(colours, name="Colours")(change(images))


def test_other_errors(images):
    with pytest.raises(ValueError, match="Expected a name.*name=''"):
        FeatureExtractor(colours, name="")
    with pytest.raises(ValueError, match=r"of shape \(10, …\).*\(10, 6, 8, 3\) from Maps"):
        FeatureExtractor(lambda x: x, name="Maps")(images)
    with pytest.raises(ValueError, match=r"Received: \(1, 3\)"):
        FeatureExtractor(lambda x: colours(x)[:1], name="First")(images)
    extractor = FeatureExtractor(colours, name="Colours")
    for nothing in ([], images[:0]):
        with pytest.raises(ValueError, match="Expected images. Received: an empty source"):
            extractor.extract(nothing, verbose=0)
    with pytest.raises(ValueError, match="Expected a positive integer. Received: batch_size=0"):
        extractor.extract(images, batch_size=0)
