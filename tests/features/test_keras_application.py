import inspect
import sys

import keras
import numpy as np
import pytest

from keras_vqvae2.features import keras_application


def test_equals_the_network_on_its_own_preprocessing(rng):
    """VGG16's turns the channels round and subtracts means. In float32 whatever the policy."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        extractor = keras_application(keras.applications.VGG16, 32, weights=None)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    assert extractor.model.layers[-1].layers[1].compute_dtype == "float32"
    images = rng.integers(256, size=(2, 32, 32, 3), dtype="uint8")
    inputs = keras.applications.vgg16.preprocess_input(images.astype("float32"))
    expected = extractor.model.layers[-1].predict_on_batch(inputs)
    features = extractor(images)
    assert features.std() > 0
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-5 * features.max())
    assert extractor.distance_name == "FD-VGG16-untrained"


def test_every_constructor_has_its_preprocessing_beside_it():
    constructors = [f for _, f in inspect.getmembers(keras.applications, inspect.isfunction)]
    assert len(constructors) > 30
    for constructor in constructors:
        assert callable(sys.modules[constructor.__module__].preprocess_input)


def test_errors():
    for constructor in (keras.Model, "ResNet50", lambda **_: None):
        with pytest.raises(ValueError, match="Expected a constructor such as"):
            keras_application(constructor)
    with pytest.raises(ValueError, match="'imagenet' or None. Received: weights='coco'"):
        keras_application(keras.applications.MobileNet, weights="coco")
