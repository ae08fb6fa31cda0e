import numpy as np
import pytest
from keras import ops

from keras_vqvae2.layers import VectorQuantizerEMA
from keras_vqvae2.metrics import CodebookPerplexity

SONNET = {
    "zero_debias": True,
    "epsilon": 1e-5,
    "data_initialization": False,
    "restart_threshold": 0,
}


def numpy(x):
    return ops.convert_to_numpy(x)


def test_update_is_the_papers_equation(rng):
    codes = rng.normal(size=(5, 3)).astype("float32")
    layer = VectorQuantizerEMA(5, 3, decay=0.9, data_initialization=False, restart_threshold=0)
    layer.set_codebook(codes)
    counts, sums = np.ones(5), codes.astype("float64")
    for _ in range(4):
        x = rng.normal(size=(20, 3)).astype("float32")
        _, indices = layer(x, training=True)
        chosen = np.eye(5)[numpy(indices)]  # (20, 5)
        counts = 0.9 * counts + 0.1 * chosen.sum(0)
        sums = 0.9 * sums + 0.1 * chosen.T @ x
        np.testing.assert_allclose(numpy(layer.ema_counts), counts, rtol=1e-5)
        np.testing.assert_allclose(numpy(layer.codebook), sums / counts[:, None], rtol=1e-4)


def test_golden_trajectory_of_haiku(golden):
    data = golden("vector_quantizer_ema")
    dim, codes = data["initial_embeddings"].shape
    layer = VectorQuantizerEMA(codes, dim, commitment_cost=0.25, decay=0.99, **SONNET)
    layer.set_codebook(data["initial_embeddings"].T)
    steps = sorted({int(key[4:].split(".")[0]) for key in data if key.startswith("step")})
    assert len(steps) == 6
    for step in steps:
        expected = {
            key.split(".")[1]: v for key, v in data.items() if key.startswith(f"step{step}.")
        }
        quantized, indices = layer(expected["inputs"], training=True)
        np.testing.assert_array_equal(numpy(indices).ravel(), expected["indices"].ravel())
        np.testing.assert_allclose(numpy(quantized), expected["quantized"], atol=1e-5)
        np.testing.assert_allclose(float(layer.losses[0]), expected["loss"].item(), atol=1e-5)
        np.testing.assert_allclose(numpy(layer.codebook).T, expected["embeddings_after"], atol=1e-5)
        perplexity = CodebookPerplexity(codes)
        perplexity.update_state(indices)
        np.testing.assert_allclose(
            float(perplexity.result()), expected["perplexity"].item(), rtol=1e-4
        )


def test_hand_case_of_haiku():
    layer = VectorQuantizerEMA(7, 5, commitment_cost=0.5, decay=0.9, **SONNET)
    layer.set_codebook(np.arange(35, dtype="float32").reshape(5, 7).T)
    x = np.arange(10, dtype="float32").reshape(2, 5)
    losses = []
    for step in range(3):
        layer(x + step, training=True)
        losses.append(float(layer.losses[0]))
        if step == 0:
            columns = numpy(layer.codebook).T
            expected = np.zeros((5, 7))
            expected[:, 0] = np.linspace(2.500075, 6.500196, 5)
            np.testing.assert_allclose(columns, expected, atol=2e-6)
    np.testing.assert_allclose(losses, [84.25, 3.62486, 4.21065], rtol=1e-5)


def test_config_round_trip():
    layer = VectorQuantizerEMA(8, 4, zero_debias=True, epsilon=1e-3)
    again = VectorQuantizerEMA.from_config(layer.get_config())
    assert (again.zero_debias, again.epsilon) == (True, 1e-3)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"epsilon": -1.0}, "Received: epsilon=-1.0"),
        ({"zero_debias": True}, "needs epsilon > 0. Received: epsilon=0.0"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        VectorQuantizerEMA(8, 4, **kwargs)
