import keras
import numpy as np
import pytest

from keras_vqvae2.layers import PostNormTransformerBlock


def test_outputs_are_normalised_and_dropout_drops(rng):
    x = rng.normal(size=(2, 5, 8)).astype("float32")
    block = PostNormTransformerBlock(2, 16, dropout=0.5)
    y, again = (keras.ops.convert_to_numpy(block(x)) for _ in range(2))
    np.testing.assert_array_equal(y, again)
    np.testing.assert_allclose(y.mean(axis=-1), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axis=-1), 1, atol=1e-3)


@pytest.mark.parametrize(
    "changes, message", [({"feed_forward_units": 0}, "units=0"), ({"dropout": 1.0}, "dropout=1.0")]
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        PostNormTransformerBlock(**{"num_heads": 2, "feed_forward_units": 4, **changes})
