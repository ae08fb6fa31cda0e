import keras
import numpy as np
import pytest

from keras_vqvae2 import TransformerPrior

SMALL = {
    "num_embeddings": 12,
    "hidden_units": 16,
    "num_layers": 2,
    "num_heads": 2,
    "feed_forward_units": 24,
    "condition_blocks": 1,
    "dropout": 0.0,
}


@pytest.fixture
def make():
    """`make(code_shape, **changes)`: a small prior with random weights, tables too."""

    def build(code_shape=(3, 4), scale=0.3, **changes):
        prior = TransformerPrior(code_shape, **{**SMALL, **changes})
        rng = np.random.default_rng(1)
        for variable in prior.trainable_variables:
            variable.assign(scale * rng.normal(size=variable.shape))
        return prior

    return build


@pytest.fixture
def batch():
    """`batch(prior, count)`: random codes and labels for all that a prior takes."""

    def draw(prior, count=2, seed=0):
        rng = np.random.default_rng(seed)
        result = {}
        for name, tensor in prior.input.items():
            high = prior.num_classes if name == "label" else prior.num_embeddings
            result[name] = rng.integers(high, size=(count, *tensor.shape[1:])).astype("int32")
        return result

    return draw


@pytest.fixture
def stepwise():
    """`stepwise(prior, codes)`: logits of given codes, one position after the other."""
    from keras_vqvae2.decoding.sampling import Sampling

    def run(prior, codes):
        uniforms = np.zeros(codes[prior.level].shape, "float32")
        rows = list(prior._draw(Sampling(), codes, uniforms))
        return np.stack([keras.ops.convert_to_numpy(logits) for _, logits in rows], axis=1)

    return run
