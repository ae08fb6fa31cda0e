import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae2.layers import ResidualStack


def numpy(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize("rectified_skip", [False, True])
def test_equals_the_formula(rng, rectified_skip):
    stack = ResidualStack(5, num_blocks=2, rectified_skip=rectified_skip)
    x = rng.normal(size=(2, 6, 7, 3)).astype("float32")
    result = numpy(stack(x))
    expected = x
    for wide, back in stack.blocks:
        rectified = np.maximum(expected, 0)
        skip = rectified if rectified_skip else expected
        expected = skip + numpy(back(np.maximum(numpy(wide(rectified)), 0)))
    np.testing.assert_allclose(result, np.maximum(expected, 0), atol=1e-5)
    assert (numpy(stack(x)) >= 0).all()


def test_weights_and_config():
    stack = ResidualStack(5, num_blocks=3, rectified_skip=True, dtype="mixed_bfloat16")
    stack.build((None, None, None, 4))
    assert stack.count_params() == 3 * (3 * 3 * 4 * 5 + 5 + 5 * 4 + 4)
    again = ResidualStack.from_config(stack.get_config())
    assert again.get_config() == stack.get_config()
    assert again(np.zeros((1, 4, 4, 4), "float32")).shape == (1, 4, 4, 4)
    assert stack.blocks[0][0].compute_dtype == "bfloat16"


def test_no_blocks_is_a_relu(rng):
    x = rng.normal(size=(1, 2, 2, 3)).astype("float32")
    np.testing.assert_array_equal(numpy(ResidualStack(5, num_blocks=0)(x)), np.maximum(x, 0))


def test_symbolic_shape():
    outputs = ResidualStack(5)(keras.Input((None, None, 8)))
    assert outputs.shape == (None, None, None, 8)


@pytest.mark.parametrize("kwargs", [{"residual_units": 0}, {"residual_units": 4, "num_blocks": -1}])
def test_bad_sizes(kwargs):
    with pytest.raises(ValueError, match="Received: "):
        ResidualStack(**kwargs)


def test_maps_are_channels_last_whatever_keras_is_set_to(rng):
    x = rng.normal(size=(2, 6, 5, 4)).astype("float32")
    stack = ResidualStack(residual_units=3, num_blocks=2)
    expected = ops.convert_to_numpy(stack(x))
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        again = ResidualStack(residual_units=3, num_blocks=2)
        again.build(x.shape)
        again.set_weights(stack.get_weights())
        np.testing.assert_allclose(ops.convert_to_numpy(again(x)), expected, atol=1e-6)
    finally:
        keras.config.set_image_data_format(before)
