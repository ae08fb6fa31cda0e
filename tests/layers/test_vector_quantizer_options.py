"""Cosine similarity, heads and orthogonal codes of `VectorQuantizer` and `VectorQuantizerEMA`."""

import numpy as np
import pytest
from keras import ops

from keras_vqvae2.layers import VectorQuantizer, VectorQuantizerEMA

LUCIDRAINS = {"epsilon": 1e-5, "data_initialization": False, "restart_threshold": 0.0}
CASES = {
    "cosine": {"similarity": "cosine", "decay": 0.9, "commitment_cost": 0.25},
    "cosine_rotation": {
        "similarity": "cosine",
        "decay": 0.8,
        "commitment_cost": 1.0,
        "gradient": "rotation",
    },
    "multi_head": {"num_heads": 2, "decay": 0.9, "commitment_cost": 1.0},
}


def numpy(x):
    return ops.convert_to_numpy(x)


def of_case(golden, case):
    data = golden("field_vector_quantize")
    return {k[len(case) + 1 :]: v for k, v in data.items() if k.startswith(f"{case}.")}


@pytest.mark.parametrize("case", CASES)
def test_golden_of_vector_quantize_pytorch(golden, gradient, case):
    data = of_case(golden, case)
    heads, number, width = data["codebook"].shape
    layer = VectorQuantizerEMA(number, heads * width, **CASES[case], **LUCIDRAINS)

    def of_heads(x):
        return x if heads > 1 else x[0]

    layer.set_codebook(of_heads(data["codebook"]))
    for step in range(len([k for k in data if k.endswith("inputs")])):
        expected = {k[6:]: v for k, v in data.items() if k.startswith(f"step{step}.")}
        x, weights = expected["inputs"], expected["output_gradient"]
        found = gradient(lambda x, w=weights: ops.multiply(layer(x)[0], w), x)
        np.testing.assert_allclose(found, expected["input_gradient"], atol=1e-5)
        found = gradient(lambda x: layer(x, return_loss=True)[2], x)
        np.testing.assert_allclose(found, expected["loss_gradient"], atol=1e-6)
        quantized, codes, loss = layer(x, training=True, return_loss=True)
        np.testing.assert_array_equal(numpy(codes), expected["indices"])
        np.testing.assert_allclose(numpy(quantized), expected["quantized"], atol=1e-5)
        np.testing.assert_allclose(numpy(loss), expected["loss"], rtol=1e-5)
        counts, sums = expected["cluster_size_after"], expected["sums_after"]
        np.testing.assert_allclose(numpy(layer.ema_counts), counts.ravel(), rtol=1e-5)
        np.testing.assert_allclose(numpy(layer.ema_sums), sums.reshape(-1, width), atol=1e-5)
        after = of_heads(expected["codebook_after"])
        np.testing.assert_allclose(numpy(layer.codebook), after, atol=1e-5)


def test_golden_orthogonal_codes(golden, gradient, weight_gradients):
    data = of_case(golden, "orthogonal")
    codebook = data["codebook"][0]
    layer = VectorQuantizer(
        *codebook.shape, commitment_cost=0.25, orthogonal_weight=10.0, restart_threshold=0.0
    )
    plain = VectorQuantizer(*codebook.shape, commitment_cost=0.25, restart_threshold=0.0)
    layer.set_codebook(codebook)
    plain.set_codebook(codebook)
    x = data["step0.inputs"]
    quantized, codes, loss = layer(x, return_loss=True)
    np.testing.assert_array_equal(numpy(codes), data["step0.indices"])
    np.testing.assert_allclose(numpy(quantized), data["step0.quantized"], atol=1e-6)
    added = numpy(loss) - numpy(plain(x, return_loss=True)[2])
    np.testing.assert_allclose(added, 10.0 * data["step0.orthogonal_loss"], rtol=1e-5)
    # The original leaves out the codebook's own term of the loss.
    error = np.square(x - numpy(quantized)).mean()
    np.testing.assert_allclose(numpy(loss) - error, data["step0.loss"], rtol=1e-5)
    found = gradient(lambda x: layer(x, return_loss=True)[2], x)
    np.testing.assert_allclose(found, data["step0.loss_gradient"], atol=1e-6)
    (found,) = weight_gradients(lambda: 10.0 * layer._orthogonality(), [layer.offsets])
    difference = numpy(quantized) - x
    of_error = np.zeros_like(codebook)
    np.add.at(of_error, numpy(codes), 0.5 * difference / x.size)
    expected = data["step0.codebook_gradient"][0]
    assert min(np.abs(found - expected).max(), np.abs(found + of_error - expected).max()) < 1e-5


@pytest.mark.parametrize("cls", [VectorQuantizer, VectorQuantizerEMA])
def test_heads_are_quantizers_side_by_side(rng, cls):
    both = cls(8, 6, num_heads=2, restart_threshold=0.0)
    codebook = rng.normal(size=(2, 8, 3)).astype("float32")
    both.set_codebook(codebook)
    parts = [cls(8, 3, restart_threshold=0.0) for _ in range(2)]
    for part, own in zip(parts, codebook):
        part.set_codebook(own)
    for _ in range(3):
        x = rng.normal(size=(40, 6)).astype("float32")
        quantized, codes, loss = both(x, training=True, return_loss=True)
        halves = np.split(x, 2, axis=-1)
        split = [part(half, training=True, return_loss=True) for part, half in zip(parts, halves)]
        for i, (own, chosen, _) in enumerate(split):
            np.testing.assert_array_equal(numpy(codes)[:, i], numpy(chosen))
            np.testing.assert_array_equal(numpy(quantized)[:, 3 * i : 3 * i + 3], numpy(own))
        losses = [numpy(own_loss) for _, _, own_loss in split]
        np.testing.assert_allclose(numpy(loss), np.mean(losses), rtol=1e-5)


def test_cosine_codes_lie_on_the_unit_sphere(rng):
    for cls in (VectorQuantizer, VectorQuantizerEMA):
        layer = cls(8, 4, similarity="cosine")
        x = 5.0 * rng.normal(size=(64, 4)).astype("float32")
        for _ in range(3):
            _, codes = layer(x, training=True)
        codebook = numpy(layer.codebook)
        np.testing.assert_allclose(np.linalg.norm(codebook, axis=-1), 1.0, rtol=1e-5)
        nearest = (x @ codebook.T / np.linalg.norm(x, axis=-1, keepdims=True)).argmax(-1)
        np.testing.assert_array_equal(numpy(layer(x)[1]), nearest)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"similarity": "angle"}, "Received: similarity='angle'"),
        ({"num_heads": 3}, "a divisor of embedding_dim=4. Received: num_heads=3"),
        ({"num_heads": 0}, "Received: num_heads=0"),
        ({"orthogonal_weight": -1.0}, "Received: orthogonal_weight=-1.0"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        VectorQuantizer(8, 4, **kwargs)


def test_what_trains_codes_is_refused_where_they_are_averages():
    with pytest.raises(ValueError, match="which here are averages.*gradient='diveq'"):
        VectorQuantizerEMA(8, 4, gradient="diveq")
    with pytest.raises(ValueError, match="which no loss trains.*orthogonal_weight=10.0"):
        VectorQuantizerEMA(8, 4, orthogonal_weight=10.0)
