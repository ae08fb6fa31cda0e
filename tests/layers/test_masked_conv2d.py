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
    row = MaskedConv2D(4, (1, 5), "B")
    row.build((None, None, None, 3))
    assert row.kernel.shape == (1, 3, 3, 4)


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


@pytest.mark.parametrize("mask_type", ["A", "B"])
@pytest.mark.parametrize("kernel_size, gates", [(1, 1), (3, 2), ((1, 5), 4)])
def test_colours_see_those_before_them(rng, mask_type, kernel_size, gates):
    """At the centre group c sees groups before c, with B also c; elsewhere all see all."""
    conv = MaskedConv2D(6 * gates, kernel_size, mask_type, colours=3, gates=gates)
    x = rng.normal(size=(1, 4, 5, 3)).astype("float32")
    before = numpy(conv(x)).reshape(4, 5, gates, 3, 2)
    row, column = 1, 2
    for colour in range(3):
        changed = x.copy()
        changed[:, row, column, colour] += 1
        moved = np.abs(numpy(conv(changed)).reshape(4, 5, gates, 3, 2) - before).max((2, 4)) > 1e-6
        own = np.arange(3) > colour if mask_type == "A" else np.arange(3) >= colour
        np.testing.assert_array_equal(moved[row, column], own)
        rows, columns = np.indices((4, 5))
        later = (rows > row) | ((rows == row) & (columns > column))
        reach = conv.rows_above, conv.reach
        near = (rows - row <= reach[0]) & (np.abs(columns - column) <= reach[1])
        near[row, column] = False
        expected = (later & near)[..., None] & np.ones(3, bool)
        expected[row, column] = own
        np.testing.assert_array_equal(moved, expected)


@pytest.mark.parametrize("mask_type", ["A", "B"])
@pytest.mark.parametrize("kernel_size, gates", [(1, 1), (3, 2), ((1, 5), 4)])
def test_colour_by_colour_equals_the_whole_map(rng, mask_type, kernel_size, gates):
    conv = MaskedConv2D(6 * gates, kernel_size, mask_type, colours=3, gates=gates)
    x = rng.normal(size=(2, 4, 5, 6)).astype("float32")
    whole = numpy(conv(x)).reshape(2, 4, 5, gates, 3, 2)
    cache, weights = conv._cache(2, 5, 6), conv._step_weights()
    for row in range(4):
        above, left = conv._above(weights, cache), conv._start(2, 6)
        for column in range(5):
            parts = np.split(x[:, row, column], 3, axis=-1)
            for colour in range(3):
                known = [ops.convert_to_tensor(p) for p in parts[: colour + (mask_type == "B")]]
                y = conv._step_colour(weights, left, above[:, column], known, colour)
                expected = whole[:, row, column, :, colour].reshape(2, -1)
                np.testing.assert_allclose(numpy(y), expected, atol=1e-5)
            here = ops.convert_to_tensor(x[:, row, column])
            left = ops.concatenate([left, here], axis=-1)[:, 6:]
        if conv.rows_above:
            cache = ops.concatenate([cache[:, 1:], x[:, row : row + 1]], axis=1)


def test_groups_have_to_divide_channels():
    with pytest.raises(ValueError, match="multiple of 6 filters. Received: 8"):
        MaskedConv2D(8, 3, colours=3, gates=2)
    with pytest.raises(ValueError, match="multiple of 3 input channels. Received: 4"):
        MaskedConv2D(6, 3, colours=3)(np.zeros((1, 4, 4, 4), "float32"))
