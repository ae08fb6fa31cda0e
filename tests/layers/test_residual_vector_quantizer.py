import numpy as np
import pytest
from keras import ops

from keras_vqvae2.layers import (
    FiniteScalarQuantizer,
    ResidualVectorQuantizer,
    SimVectorQuantizer,
    VectorQuantizerEMA,
)

LUCIDRAINS = {"epsilon": 1e-5, "data_initialization": False, "restart_threshold": 0.0}
CASES = {
    "residual": {"num_quantizers": 4},
    "residual_rotation": {"num_quantizers": 4},
    "shared": {"num_quantizers": 4, "shared_codebook": True},
    "grouped": {"num_quantizers": 2, "groups": 2},
}


def numpy(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize("case", CASES)
def test_golden_of_vector_quantize_pytorch(golden, gradient, case):
    data = golden("field_residual_vq")
    data = {k[len(case) + 1 :]: v for k, v in data.items() if k.startswith(f"{case}.")}
    codebooks = data["codebooks"]  # (groups, quantizers, K, D / groups)
    groups, depth, number, width = codebooks.shape
    template = VectorQuantizerEMA(
        number,
        width,
        commitment_cost=0.25 if case == "residual" else 1.0,
        decay=0.9,
        gradient="rotation" if case == "residual_rotation" else "straight_through",
        **LUCIDRAINS,
    )
    layer = ResidualVectorQuantizer(template, **CASES[case])
    layer.build((None, None, groups * width))
    for group, own in zip(layer.quantizers, codebooks):
        for quantizer, codebook in zip(group, own):
            quantizer.set_codebook(codebook)
    for step in range(2 if "step1.inputs" in data else 1):
        expected = {k[6:]: v for k, v in data.items() if k.startswith(f"step{step}.")}
        x = expected["inputs"]
        indices = expected["indices"]
        if case == "grouped":  # (groups, batch, n, quantizers)
            indices = np.concatenate(list(indices), axis=-1)
        weights = expected["output_gradient"]
        found = gradient(lambda x, w=weights: ops.multiply(layer(x)[0], w), x)
        np.testing.assert_allclose(found, expected["input_gradient"], atol=2e-5)
        found = gradient(lambda x: layer(x, return_loss=True)[2], x)
        np.testing.assert_allclose(found, expected["loss_gradient"], atol=1e-6)
        quantized, codes, loss = layer(x, training=True, return_loss=True)
        np.testing.assert_array_equal(numpy(codes), indices)
        np.testing.assert_allclose(numpy(quantized), expected["quantized"], atol=1e-5)
        np.testing.assert_allclose(numpy(loss), expected["losses"].sum(), rtol=1e-5)
        np.testing.assert_allclose(numpy(layer.codebook), expected["codebooks_after"], atol=1e-5)


def test_more_quantizers_leave_less_over(rng):
    x = rng.normal(size=(64, 8, 4)).astype("float32")
    errors = []
    for number in (1, 2, 4):
        layer = ResidualVectorQuantizer(VectorQuantizerEMA(16, 4, decay=0.8), number)
        for _ in range(8):
            layer(x, training=True)
        errors.append(np.square(numpy(layer(x)[0]) - x).mean())
    assert errors[2] < 0.5 * errors[1] < 0.25 * errors[0]


def test_codes_do_not_start_where_nothing_is_left_over(rng):
    layer = ResidualVectorQuantizer(VectorQuantizerEMA(16, 4, decay=0.999999), 3)
    layer(rng.normal(size=(2000, 4)).astype("float32"), training=True)
    norms = np.linalg.norm(numpy(layer.codebook)[0], axis=-1)  # (3, 16)
    assert (norms > 1e-3).mean() > 0.95
    assert norms[0].mean() > norms[1].mean() > norms[2].mean()


def test_first_codes_alone_are_a_coarse_vector_and_none_the_mean(rng):
    x = rng.normal(size=(30, 4)).astype("float32")
    layer = ResidualVectorQuantizer(VectorQuantizerEMA(8, 4), 3)
    _, codes = layer(x, training=True)
    codes = numpy(layer(x)[1]).copy()
    first = layer.quantizers[0][0]
    codes[:, 1:] = -1
    np.testing.assert_array_equal(numpy(layer.lookup(codes)), numpy(first.lookup(codes[:, 0])))
    nothing = numpy(layer.lookup(np.full((1, 3), -1)))[0]
    np.testing.assert_allclose(nothing, numpy(first.mean_code), rtol=1e-6)


@pytest.mark.parametrize("shared", [False, True])
def test_dropout_leaves_late_codes_out_and_teaches_them_nothing(rng, shared):
    template = VectorQuantizerEMA(8, 4, data_initialization=False, restart_threshold=0.0)
    layer = ResidualVectorQuantizer(template, 4, shared, quantizer_dropout=0.8, seed=1)
    x = rng.normal(size=(40, 5, 4)).astype("float32")
    quantized, codes = layer(x, training=True)
    codes = numpy(codes)
    dropped = codes < 0
    assert not dropped[..., 0].any() and 0.2 < dropped[..., -1].mean() < 0.95
    assert (dropped == dropped[:, :1]).all()  # whole examples
    assert (np.diff(dropped.astype(int), axis=-1) >= 0).all()  # late ones only
    if not shared:
        for i, quantizer in enumerate(layer.quantizers[0]):
            expected = 0.99 * 8 + 0.01 * (~dropped[..., i]).sum()
            np.testing.assert_allclose(numpy(quantizer.ema_counts).sum(), expected, rtol=1e-5)
    codes_again = numpy(layer(x)[1])
    assert (codes_again >= 0).all()  # not in inference


def test_codes_that_dropout_left_out_start_when_vectors_come(rng):
    template = VectorQuantizerEMA(16, 4, restart_threshold=0.0)
    layer = ResidualVectorQuantizer(template, 4, quantizer_dropout=0.9, seed=0)
    for _ in range(12):
        layer(10.0 * rng.normal(size=(2, 64, 4)).astype("float32"), training=True)
    assert all(numpy(quantizer.initialized) == 1 for quantizer in layer.quantizers[0])
    spread = [np.abs(numpy(quantizer.codebook)).max() for quantizer in layer.quantizers[0]]
    assert min(spread) > 1.0  # a codebook that waits is within 0.05


def test_quantizers_of_a_seed_draw_their_own(rng):
    template = VectorQuantizerEMA(64, 4, sample_temperature=1e6, seed=3, data_initialization=False)
    layer = ResidualVectorQuantizer(template, 2, groups=2)
    codes = numpy(layer(rng.normal(size=(200, 8)).astype("float32"), training=True)[1])
    for i, j in ((0, 1), (0, 2), (2, 3)):
        assert (codes[:, i] == codes[:, j]).mean() < 0.1
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize("shared", [False, True])
def test_a_quantizer_that_is_not_trainable_learns_nothing(rng, shared):
    layer = ResidualVectorQuantizer(VectorQuantizerEMA(8, 4), 2, shared)
    x = rng.normal(size=(40, 4)).astype("float32")
    layer(x, training=True)
    layer.quantizers[0][0].trainable = False
    before = numpy(layer.codebook)[0, 0].copy()
    layer(x + 1.0, training=True)
    np.testing.assert_array_equal(numpy(layer.codebook)[0, 0], before)


def test_of_other_quantizers(rng):
    x = rng.normal(size=(3, 5, 3)).astype("float32")
    for template in (FiniteScalarQuantizer([5, 5, 5]), SimVectorQuantizer(16, 3)):
        layer = ResidualVectorQuantizer(template, 2, shared_codebook=True)
        quantized, codes = layer(x)
        np.testing.assert_array_equal(numpy(layer.lookup(codes)), numpy(quantized))
        assert layer.num_embeddings == template.num_embeddings


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"quantizer": 3}, "one code a vector. Received: quantizer=3"),
        ({"num_quantizers": 0}, "Received: num_quantizers=0"),
        ({"groups": 0}, "Received: groups=0"),
        ({"quantizer_dropout": 1.0}, "Received: quantizer_dropout=1.0"),
    ],
)
def test_bad_arguments(kwargs, message):
    arguments = {"quantizer": VectorQuantizerEMA(8, 4), "num_quantizers": 2, **kwargs}
    with pytest.raises(ValueError, match=message):
        ResidualVectorQuantizer(**arguments)


def test_a_residual_of_residuals_is_refused():
    inner = ResidualVectorQuantizer(VectorQuantizerEMA(8, 4), 2)
    with pytest.raises(ValueError, match="one code a vector"):
        ResidualVectorQuantizer(inner, 2)
