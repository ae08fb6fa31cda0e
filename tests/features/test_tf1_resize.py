import keras
import numpy as np
import pytest

from keras_vqvae2.features import FeatureExtractor
from keras_vqvae2.features.tf1_resize import TF1BilinearResize


@pytest.mark.parametrize(
    "shape, size", [((5, 7), 4), ((32, 32), 299), ((1, 3), 6), ((301, 64), 60), ((8, 8), 8)]
)
def test_equals_tensorflow_1(shape, size, rng):
    import tensorflow as tf

    images = rng.integers(256, size=(2, *shape, 3)).astype("float32")
    expected = tf.compat.v1.image.resize_bilinear(images, (size, size), align_corners=False)
    resized = keras.ops.convert_to_numpy(TF1BilinearResize(size)(images))
    np.testing.assert_allclose(resized, expected, rtol=1e-6, atol=1e-4)
    if shape != (size, size):
        # Pixel centres upon each other, as later versions have it, are something else.
        other = tf.image.resize(images, (size, size)).numpy()
        assert np.abs(resized - other).max() > 1


def test_one_model_takes_images_of_any_size(rng):
    inputs = keras.Input((None, None, 3))
    x = TF1BilinearResize(4)(inputs)
    assert x.shape == (None, 4, 4, 3)
    extractor = FeatureExtractor(keras.Model(inputs, keras.layers.Flatten()(x)), name="Small")
    for size in [(2, 2), (8, 4), (5, 9), (4, 4)]:
        images = rng.uniform(size=(2, *size, 3)).astype("float32")
        expected = keras.ops.convert_to_numpy(TF1BilinearResize(4)(images)).reshape(2, -1)
        np.testing.assert_allclose(extractor(images), expected, rtol=1e-5)
    assert TF1BilinearResize.from_config(TF1BilinearResize(5).get_config()).size == 5
