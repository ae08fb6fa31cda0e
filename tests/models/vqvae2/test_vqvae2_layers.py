import keras
import numpy as np
import pytest

from keras_vqvae2.models.vqvae2.vqvae2_layers import LevelDecoder, LevelEncoder

SIZES = {"hidden_units": 8, "residual_units": 4, "residual_blocks": 2}


def conv(size, inputs, outputs):
    return size * size * inputs * outputs + outputs


STACK = 2 * (conv(3, 8, 4) + conv(1, 4, 8))


@pytest.mark.parametrize(
    "factor, strided",
    [
        (2, conv(4, 3, 4) + conv(3, 4, 8)),
        (4, conv(4, 3, 4) + conv(4, 4, 8) + conv(3, 8, 8)),
        (8, conv(4, 3, 4) + conv(4, 4, 8) + conv(4, 8, 8) + conv(3, 8, 8)),
    ],
)
def test_encoder(factor, strided):
    encoder = LevelEncoder(factor, kernel_size=4, **SIZES)
    assert encoder(np.ones((1, 16, 24, 3), "float32")).shape == (1, 16 // factor, 24 // factor, 8)
    assert encoder.count_params() == strided + STACK
    assert encoder(keras.Input((None, None, 3))).shape == (None, None, None, 8)
    assert LevelEncoder.from_config(encoder.get_config()).get_config() == encoder.get_config()


@pytest.mark.parametrize(
    "factor, strided",
    [
        (2, conv(4, 8, 5)),
        (4, conv(4, 8, 4) + conv(4, 4, 5)),
        (8, conv(4, 8, 8) + conv(4, 8, 4) + conv(4, 4, 5)),
    ],
)
def test_decoder(factor, strided):
    decoder = LevelDecoder(factor, 5, kernel_size=4, **SIZES)
    assert decoder(np.ones((1, 2, 3, 6), "float32")).shape == (1, 2 * factor, 3 * factor, 5)
    assert decoder.count_params() == conv(3, 6, 8) + strided + STACK
    assert decoder(keras.Input((None, None, 6))).shape == (None, None, None, 5)
    assert LevelDecoder.from_config(decoder.get_config()).get_config() == decoder.get_config()
