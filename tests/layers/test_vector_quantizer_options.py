"""Cosine similarity, heads, orthogonal codes, k-means and drawn codes of both vector quantizers."""

import numpy as np
import pytest
from keras import ops

from keras_vqvae2.layers import ResidualVectorQuantizer, VectorQuantizer, VectorQuantizerEMA
from keras_vqvae2.layers.sampled_code import CODES_AT_ONCE, sampled_code

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


# === k-means ===

BOTH = pytest.mark.parametrize("cls", [VectorQuantizer, VectorQuantizerEMA])


def starting_from(cls, means):
    """`cls` whose codes start from given vectors of the batch."""

    class FromMeans(cls):
        def candidates(self, vectors, real):
            return ops.convert_to_tensor(means)

    return FromMeans


@BOTH
@pytest.mark.parametrize("case", ["kmeans", "kmeans_cosine"])
def test_golden_k_means(golden, cls, case):
    data = of_case(golden, case)
    similarity = "cosine" if case == "kmeans_cosine" else "euclidean"
    cls = starting_from(cls, data["first_means"])
    layer = cls(*data["means"].shape, similarity=similarity, kmeans_rounds=5)
    layer.build(data["samples"].shape)
    layer.start(ops.convert_to_tensor(data["samples"]), None)
    np.testing.assert_allclose(numpy(layer.codebook), data["means"], atol=1e-5)
    np.testing.assert_array_equal(numpy(layer.ema_counts), np.maximum(data["counts"], 1))


@BOTH
def test_a_code_that_no_vector_is_nearest_to_stays(rng, cls):
    x = np.concatenate([rng.normal(size=(20, 2)), 9.0 + rng.normal(size=(10, 2))])
    x = x.astype("float32")
    means = np.array([[0, 0], [9, 9], [500, 500]], "float32")
    layer = starting_from(cls, means)(3, 2, kmeans_rounds=3)
    layer.build(x.shape)
    layer.start(ops.convert_to_tensor(x), None)
    expected = [x[:20].mean(0), x[20:].mean(0), means[2]]
    np.testing.assert_allclose(numpy(layer.codebook), expected, rtol=1e-5)
    np.testing.assert_array_equal(numpy(layer.ema_counts), [20, 10, 1])


@BOTH
@pytest.mark.parametrize("options", [{}, {"num_heads": 2}, {"similarity": "cosine"}])
def test_k_means_lessens_the_error_of_the_first_batch_alone(rng, cls, options):
    x = rng.normal(size=(200, 4)).astype("float32")
    errors = {}
    for rounds in (0, 1, 10):
        layer = cls(8, 4, kmeans_rounds=rounds, **options)
        layer(x, training=True, return_loss=True)
        layer(x, training=True)
        errors[rounds] = numpy(layer(x, return_loss=True)[2])
    assert errors[10] < errors[1] < errors[0]
    assert abs(numpy(layer.codebook)).max() < 5
    layer(x + 100.0, training=True)  # the second batch starts nothing
    assert abs(numpy(layer.codebook)).max() < 50


def test_k_means_of_what_is_not_masked_and_finite(rng):
    x = rng.normal(size=(40, 4)).astype("float32")
    padded = np.concatenate([x, np.full((8, 4), np.nan, "float32")])
    layer, alone = (VectorQuantizerEMA(8, 4, kmeans_rounds=3) for _ in range(2))
    layer(padded, mask=np.arange(48) < 40, training=True)
    alone(x, training=True)
    np.testing.assert_allclose(numpy(layer.codebook), numpy(alone.codebook), rtol=1e-5)
    layer = VectorQuantizerEMA(8, 4, kmeans_rounds=3)
    layer(padded, training=True)
    assert np.isfinite(numpy(layer.codebook)).all()
    assert len(np.unique(numpy(layer(x)[1]))) > 4


# === Drawn codes ===


def test_golden_drawn_codes(golden):
    data = of_case(golden, "stochastic")
    spare = -len(data["codebook"]) % CODES_AT_ONCE
    uniforms = np.pad(data["uniforms"], ((0, 0), (0, spare)), constant_values=0.9999)
    uniforms = ops.reshape(uniforms, (len(uniforms), -1, CODES_AT_ONCE))
    inputs, codebook = (ops.convert_to_tensor(data[name]) for name in ("inputs", "codebook"))
    codes = sampled_code(inputs, codebook, 0.5, lambda i: ops.take(uniforms, i, axis=1))
    np.testing.assert_array_equal(numpy(codes), data["indices"])


@pytest.mark.parametrize("options", [{}, {"num_heads": 2}, {"similarity": "cosine"}])
def test_codes_are_drawn_by_their_probabilities_while_training(rng, options):
    heads = options.get("num_heads", 1)
    layer = VectorQuantizer(40, 2 * heads, sample_temperature=0.7, seed=0, **options)
    codebook = rng.normal(size=(heads, 40, 2))
    codebook = codebook.astype("float32")
    layer.set_codebook(codebook if heads > 1 else codebook[0])
    z = rng.normal(size=(2 * heads,)).astype("float32")
    many = np.broadcast_to(z, (4000, 2 * heads))
    nearest = numpy(layer(many)[1])
    assert len(np.unique(nearest)) <= heads
    drawn = numpy(layer(many, training=True)[1]).reshape(4000, heads)
    for i in range(heads):
        part, codes = z.reshape(heads, 2)[i], codebook[i]
        if options.get("similarity") == "cosine":
            codes = codes / np.linalg.norm(codes, axis=-1, keepdims=True)
            scores = codes @ (part / np.linalg.norm(part))
        else:
            scores = -np.linalg.norm(part - codes, axis=-1)
        expected = np.exp(scores / 0.7) / np.exp(scores / 0.7).sum()
        found = np.bincount(drawn[:, i], minlength=40) / 4000
        np.testing.assert_allclose(found, expected, atol=4.5 * np.sqrt(expected.max() / 4000))


def test_drawn_codes_follow_the_seed(rng):
    x = rng.normal(size=(64, 4)).astype("float32")
    runs = []
    for seed in (1, 1, 2):
        layer = VectorQuantizerEMA(40, 4, sample_temperature=1.0, seed=seed)
        runs.append([numpy(layer(x, training=True)[1]) for _ in range(2)])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0][0] != runs[0][1]).mean() > 0.5
    assert (runs[0][0] != runs[2][0]).mean() > 0.5
    # A vector that is no number has a code too.
    codes = numpy(layer(np.full((3, 4), np.nan, "float32"), training=True)[1])
    assert ((codes >= 0) & (codes < 40)).all()


def test_residual_quantizers_draw_too(rng):
    x = rng.normal(size=(64, 4)).astype("float32")
    for shared in (False, True):
        quantizer = VectorQuantizerEMA(8, 4, sample_temperature=1.0, seed=0)
        layer = ResidualVectorQuantizer(quantizer, 2, shared_codebook=shared)
        layer.build(x.shape)
        codes = numpy(layer(x, training=True)[1])
        assert (codes != numpy(layer(x)[1])).mean(0).min() > 0.3


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"kmeans_rounds": -1}, "Received: kmeans_rounds=-1"),
        (
            {"kmeans_rounds": 2, "data_initialization": False},
            "the start that k-means goes on from. Received: kmeans_rounds=2",
        ),
        ({"sample_temperature": -0.5}, "Received: sample_temperature=-0.5"),
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
