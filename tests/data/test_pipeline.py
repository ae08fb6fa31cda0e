import numpy as np
import pytest

from keras_vqvae2.data import Options, images_from_arrays


@pytest.mark.parametrize(
    "options, message",
    [
        ({"image_size": 0}, "Received: image_size=0"),
        ({"image_size": (16, -1)}, r"Received: image_size=\(16, -1\)"),
        ({"batch_size": 0}, "Received: batch_size=0"),
        ({"crop": "top"}, "Received: crop='top'"),
        ({"resize": 0}, "Received: resize=0"),
        ({"start_step": -1}, "Received: start_step=-1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Options(**{"image_size": 16, **options})


@pytest.mark.parametrize(
    "size, resize, image, expected",
    [
        ((16, 16), None, (32, 64), (16, 32)),
        ((16, 16), 20, (32, 64), (20, 40)),
        ((16, 16), False, (32, 64), (32, 64)),
        ((16, 16), False, (8, 64), (16, 128)),
        ((10, 30), None, (20, 20), (30, 30)),
    ],
)
def test_scaled_size(size, resize, image, expected):
    assert Options(size, resize=resize).scaled_size(*image) == expected


def test_augment_runs_on_float_batches_and_is_clipped(rng):
    images = rng.uniform(size=(5, 8, 8, 3)).astype("float32")
    labels = np.arange(5)
    dataset = images_from_arrays(
        images, labels=labels, batch_size=5, augment=[lambda x: x * 2, lambda x: x - 0.1]
    )
    ((batch, numbers),) = dataset.as_numpy_iterator()
    np.testing.assert_allclose(batch, np.clip(images * 2 - 0.1, 0, 1), atol=1e-6)
    np.testing.assert_array_equal(numbers, labels)


def test_augment_with_keras_cv(rng):
    keras_cv = pytest.importorskip("keras_cv")
    images = np.clip(rng.normal(0.5, 0.1, size=(8, 16, 16, 3)), 0, 1).astype("float32")
    layer = keras_cv.layers.RandomBrightness(factor=(0.2, 0.2), value_range=(0, 1))
    (batch,) = images_from_arrays(images, batch_size=8, augment=layer).as_numpy_iterator()
    np.testing.assert_allclose(batch, np.clip(images + 0.2, 0, 1), atol=1e-5)
