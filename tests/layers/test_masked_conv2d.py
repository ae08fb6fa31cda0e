import numpy as np
import pytest
from keras import ops

from keras_vqvae2.layers import MaskedConv2D


def numpy(x):
    return ops.convert_to_numpy(x)


def by_definition(x, conv):
    """The masked convolution as a sum over taps, in NumPy."""
    kernel, bias = numpy(conv.kernel), numpy(conv.bias)
    batch, rows, columns, _ = x.shape
    up, reach = conv.kernel_size[0] // 2, conv.kernel_size[1] // 2
    y = np.tile(bias, (batch, rows, columns, 1))
    for dy in range(-up, up + 1):
        for dx in range(-reach, reach + 1):
            later = dy > 0 or (dy == 0 and dx > 0)
            centre = dy == 0 and dx == 0
            if conv.mask_type and (later or (centre and conv.mask_type == "A")):
                continue
            for r in range(max(0, -dy), min(rows, rows - dy)):
                for c in range(max(0, -dx), min(columns, columns - dx)):
                    y[:, r, c] += x[:, r + dy, c + dx] @ kernel[dy + up, dx + reach]
    return y


@pytest.mark.parametrize("kernel_size", [1, 3, (5, 3), (1, 5), (9, 5)])
@pytest.mark.parametrize("mask_type", ["A", "B", None])
def test_equals_the_definition(rng, kernel_size, mask_type):
    conv = MaskedConv2D(4, kernel_size, mask_type)
    x = rng.normal(size=(2, 6, 7, 3)).astype("float32")
    result = numpy(conv(x))
    np.testing.assert_allclose(result, by_definition(x, conv), atol=1e-5)


@pytest.mark.parametrize("kernel_size", [1, 3, (5, 3), (1, 5), (9, 5)])
@pytest.mark.parametrize("mask_type", ["A", "B"])
def test_position_by_position_equals_the_whole_map(rng, kernel_size, mask_type):
    conv = MaskedConv2D(4, kernel_size, mask_type)
    x = rng.normal(size=(2, 6, 7, 3)).astype("float32")
    conv.build(x.shape)
    conv.built = True
    conv.bias.assign(rng.normal(size=4))
    whole = numpy(conv(x))
    cache, weights = conv._cache(2, 7, 3), conv._step_weights()
    for row in range(6):
        above, left = conv._above(weights, cache), conv._start(2, 3)
        for column in range(7):
            here = ops.convert_to_tensor(x[:, row, column])
            y, left = conv._step(weights, left, above[:, column], here)
            np.testing.assert_allclose(numpy(y), whole[:, row, column], atol=1e-5)
        if conv.rows_above:
            cache = ops.concatenate([cache[:, 1:], x[:, row : row + 1]], axis=1)


def test_rows_below_are_not_stored():
    conv = MaskedConv2D(4, (9, 5), "B")
    conv.build((None, None, None, 3))
    assert conv.kernel.shape == (5, 5, 3, 4)
    assert conv.count_params() == 5 * 5 * 3 * 4 + 4


def test_config():
    conv = MaskedConv2D(4, (5, 3), "A", dtype="mixed_bfloat16")
    again = MaskedConv2D.from_config(conv.get_config())
    assert again.get_config() == conv.get_config()
    outputs = again(np.zeros((1, 4, 4, 2), "float32"))
    assert outputs.shape == (1, 4, 4, 4)


@pytest.mark.parametrize(
    "args", [(4, 2), (4, (3, 0)), (4, (3, 3, 3)), (0, 3), (4, 3, "C")], ids=str
)
def test_bad_arguments(args):
    with pytest.raises(ValueError, match="Received: "):
        MaskedConv2D(*args)
