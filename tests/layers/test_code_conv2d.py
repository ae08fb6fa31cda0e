import numpy as np
import pytest
from keras import ops

from keras_vqvae2.layers import CodeConv2D, MaskedConv2D


def numpy(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize("kernel_size", [1, 3, (3, 5)])
@pytest.mark.parametrize("mask_type", ["A", "B", None])
def test_equals_a_convolution_of_one_hot_codes(rng, kernel_size, mask_type):
    codes = rng.integers(-1, 6, size=(2, 5, 7)).astype("int32")  # -1: no code
    conv = CodeConv2D(4, kernel_size, num_embeddings=6, mask_type=mask_type)
    result = numpy(conv(codes))
    plain = MaskedConv2D(4, kernel_size, mask_type)
    one_hot = (codes[..., None] == np.arange(6)).astype("float32")
    plain.build(one_hot.shape)
    plain.built = True
    plain.kernel.assign(conv.kernel)
    np.testing.assert_allclose(result, numpy(plain(one_hot)), atol=1e-5)


@pytest.mark.parametrize("kernel_size", [1, 3, (3, 5)])
def test_position_by_position_equals_the_whole_map(rng, kernel_size):
    codes = rng.integers(6, size=(2, 5, 7)).astype("int32")
    conv = CodeConv2D(4, kernel_size, num_embeddings=6, mask_type="A")
    whole = numpy(conv(codes))
    cache, weights = conv._cache(2, 7), conv._step_weights()
    for row in range(5):
        above, left = conv._above(weights, cache), conv._start(2)
        for column in range(7):
            y = conv._step(weights, left, above[:, column])
            np.testing.assert_allclose(numpy(y), whole[:, row, column], atol=1e-5)
            left = ops.concatenate([left, codes[:, row, column : column + 1]], axis=1)[:, 1:]
        if conv.rows_above:
            cache = ops.concatenate([cache[:, 1:], codes[:, row : row + 1]], axis=1)


def test_config():
    conv = CodeConv2D(4, 3, num_embeddings=6, mask_type=None)
    assert CodeConv2D.from_config(conv.get_config()).get_config() == conv.get_config()
    conv.build((None, 5, 7))
    assert conv.count_params() == 3 * 3 * 6 * 4 + 4
