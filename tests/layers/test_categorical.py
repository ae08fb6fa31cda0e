import numpy as np
import pytest
from keras import ops

from keras_vqvae2.layers import Categorical


def test_nats_are_the_sum_over_colours(rng):
    categorical = Categorical(3, 4)
    assert categorical.num_parameters == 12 and categorical.num_uniforms == 3
    logits = rng.normal(size=(2, 5, 12)).astype("float32")
    values = rng.integers(4, size=(2, 5, 3))
    probabilities = np.exp(logits.reshape(2, 5, 3, 4))
    probabilities /= probabilities.sum(-1, keepdims=True)
    expected = -np.log(np.take_along_axis(probabilities, values[..., None], -1)).sum((-1, -2))
    np.testing.assert_allclose(categorical.nats(values, logits), expected, rtol=1e-5)
    values = values.astype("float32")
    values[0, 0, 1] = np.nan
    nats = ops.convert_to_numpy(categorical.nats(values, logits))
    assert np.isnan(nats[0, 0]) and np.isfinite(nats[0, 1:]).all() and np.isfinite(nats[1]).all()


def test_draws_have_the_probabilities(rng):
    categorical = Categorical(2, 3)
    logits = rng.normal(size=6).astype("float32")
    uniforms = rng.uniform(size=(50_000, 2)).astype("float32")
    drawn = ops.convert_to_numpy(categorical(np.tile(logits, (len(uniforms), 1)), uniforms))
    for colour in range(2):
        probabilities = np.exp(logits[3 * colour :][:3])
        counts = np.bincount(drawn[:, colour], minlength=3) / len(drawn)
        np.testing.assert_allclose(counts, probabilities / probabilities.sum(), atol=0.01)


def test_config_and_other_sizes():
    made = Categorical(1, 2)
    assert Categorical.from_config(made.get_config()).get_config() == made.get_config()
    for arguments, message in (((0,), "colours=0"), ((3, 1), "levels=1")):
        with pytest.raises(ValueError, match=message):
            Categorical(*arguments)
