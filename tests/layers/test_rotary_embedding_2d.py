import keras
import numpy as np
import pytest

from keras_vqvae2.layers import RotaryEmbedding2D

POSITIONS = np.stack(np.indices((3, 4)), axis=-1).reshape(-1, 2)


def numpy(x):
    return keras.ops.convert_to_numpy(x)


def test_pairs_turn_as_complex_numbers_do(rng):
    x = rng.normal(size=(2, 12, 3, 8)).astype("float32")
    turns = 100.0 ** (-np.arange(2) / 2)  # of d = 8: two pairs by rows, two by columns
    angles = np.concatenate([POSITIONS[:, :1] * turns, POSITIONS[:, 1:] * turns], axis=1)
    expected = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)[:, None]
    turned = numpy(RotaryEmbedding2D(base=100.0)(x, POSITIONS))
    np.testing.assert_allclose(turned[..., 0::2], expected.real, atol=1e-5)
    np.testing.assert_allclose(turned[..., 1::2], expected.imag, atol=1e-5)


def test_products_depend_on_the_way_between_positions(rng):
    q, k = (np.tile(rng.normal(size=(1, 1, 1, 16)), (1, 12, 1, 1)).astype("float32") for _ in "qk")
    rotary = RotaryEmbedding2D()
    q, k = (numpy(rotary(x, POSITIONS))[0, :, 0] for x in (q, k))
    products = (q @ k.T).reshape(3, 4, 3, 4)
    np.testing.assert_allclose(products[1:, 1:, 1:, 1:], products[:-1, :-1, :-1, :-1], atol=1e-4)
    assert np.ptp(products[0, 0]) > 0.1


def test_what_is_outside_of_the_map_vanishes(rng):
    x = rng.normal(size=(1, 2, 1, 4)).astype("float32")
    turned = numpy(RotaryEmbedding2D()(x, np.array([(-1, -1), (0, 0)])))
    np.testing.assert_array_equal(turned[:, 0], 0)
    np.testing.assert_array_equal(turned[:, 1], x[:, 1])


def test_bad_arguments():
    with pytest.raises(ValueError, match="base=-1"):
        RotaryEmbedding2D(base=-1)
    with pytest.raises(ValueError, match="that 4 divides. Received: 6"):
        RotaryEmbedding2D()(np.zeros((1, 1, 1, 6), "float32"), np.zeros((1, 2), "int32"))
