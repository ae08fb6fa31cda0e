import keras
import numpy as np
import pytest

from keras_vqvae2 import VQVAE2
from keras_vqvae2.data import images_from_arrays


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_values_come_through(rng, dtype):
    pixels = rng.integers(256, size=(7, 8, 9, 3), dtype="uint8")
    images = pixels if dtype == "uint8" else (pixels / np.float32(255))
    batches = list(images_from_arrays(images, batch_size=3).as_numpy_iterator())
    assert [len(b) for b in batches] == [3, 3, 1]
    np.testing.assert_allclose(np.concatenate(batches), pixels / 255, atol=1e-7)


def test_labels_stay_with_their_images(rng):
    images = np.linspace(0, 1, 10)[:, None, None, None] * np.ones((1, 8, 8, 3))
    dataset = images_from_arrays(images, labels=np.arange(10), shuffle=True, batch_size=10)
    ((batch, labels),) = dataset.as_numpy_iterator()
    np.testing.assert_allclose(batch[:, 0, 0, 0] * 9, labels, atol=1e-5)
    assert list(labels) != sorted(labels)


def test_labels_that_would_be_others_are_refused():
    labels = np.array([2**40 + 3, 0])
    with pytest.raises(ValueError, match="fit in int32. Received: labels from 0 to 1099511627779"):
        images_from_arrays(np.zeros((2, 8, 8, 3), "uint8"), labels=labels)


def test_resize(rng):
    dataset = images_from_arrays(rng.uniform(size=(2, 20, 30, 3)), (10, 10))
    (batch,) = dataset.as_numpy_iterator()
    assert batch.shape == (2, 10, 10, 3)
    assert batch.min() >= 0 and batch.max() <= 1


def test_of_a_very_long_image_the_middle_is_kept_in_shape():
    images = np.zeros((1, 8, 400, 3), "uint8")
    images[:, :, 196:204] = 255  # a square
    batch = next(iter(images_from_arrays(images, 64, batch_size=1)))
    assert np.asarray(batch)[0, 32, :, 0].mean() == pytest.approx(1.0, abs=0.05)


def test_feeds_fit(rng):
    model = VQVAE2((16, 16, 3), hidden_units=8, residual_units=4, num_embeddings=16)
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    images = rng.integers(256, size=(8, 20, 20, 3), dtype="uint8")
    dataset = images_from_arrays(images, 16, 4, shuffle=True, crop="random", flip=True)
    assert np.isfinite(model.fit(dataset, verbose=0).history["loss"]).all()
    labelled = images_from_arrays(images, 16, 4, labels=np.zeros(8, int))
    assert np.isfinite(model.evaluate(labelled, verbose=0)).all()


@pytest.mark.parametrize(
    "images, kwargs, message",
    [
        (np.zeros((0, 8, 8, 3)), {}, r"Received: images of shape \(0, 8, 8, 3\)"),
        (np.zeros((8, 8, 3)), {}, r"shape \(8, 8, 3\)"),
        (np.full((1, 8, 8, 3), 7.0), {}, "from 7.0 to 7.0"),
        (np.full((1, 8, 8, 3), np.nan), {}, "nan"),
        (np.zeros((1, 8, 8, 3), int), {}, "dtype int64"),
        (np.zeros((1, 8, 8, 3), bool), {}, "dtype bool"),
        (np.zeros((1, 8, 8, 3), object), {}, "dtype object"),
        (np.zeros((2, 3, 8, 8)), {}, r"channels last. Received: images of shape \(2, 3, 8, 8\)"),
        (np.zeros((2, 8, 8, 3)), {"labels": [1]}, r"2 images.*labels of shape \(1,\)"),
        (np.zeros((2, 8, 8, 3)), {"labels": [0.5, 1]}, "images, an integer.*dtype float64"),
    ],
)
def test_bad_arrays(images, kwargs, message):
    with pytest.raises(ValueError, match=message):
        images_from_arrays(images, **kwargs)
