import keras
import numpy as np
from keras import ops

from keras_vqvae2.layers.dropout import DrawnSeed, dropout


def numpy(x):
    return ops.convert_to_numpy(x)


def test_share_and_scale():
    x = np.ones((100, 100), "float32")
    result = numpy(dropout(x, 0.25, keras.random.SeedGenerator(0)))
    assert set(np.unique(result)) == {np.float32(0.0), np.float32(4 / 3)}
    assert abs((result == 0).mean() - 0.25) < 0.02


def test_a_drawn_seed_drops_the_same_again():
    x = np.ones((10, 10), "float32")
    generator = keras.random.SeedGenerator(0)
    drawn = DrawnSeed(generator)
    first = numpy(dropout(x, 0.5, drawn))
    np.testing.assert_array_equal(numpy(dropout(x, 0.5, drawn)), first)
    assert not np.array_equal(numpy(dropout(x, 0.5, DrawnSeed(generator))), first)
