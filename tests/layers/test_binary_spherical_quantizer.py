import numpy as np
import pytest
from keras import ops

from keras_vqvae2.layers import BinarySphericalQuantizer

CASES = {
    "a": {"bits": 8, "group_size": 1, "per_sample_entropy": "analytical", "inv_temperature": 1.0},
    "b": {"bits": 12, "group_size": 4, "per_sample_entropy": "group", "inv_temperature": 2.0},
}
LOSS = {"commitment_cost": 0.25, "gamma0": 1.0, "gamma": 1.1, "zeta": 1.0}


def numpy(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize("case", CASES)
def test_golden_of_bsq_vit(golden, gradient, case):
    data = {k[2:]: v for k, v in golden("field_bsq").items() if k.startswith(f"{case}.")}
    layer = BinarySphericalQuantizer(**CASES[case], **LOSS)
    x = data["inputs"]
    quantized, codes, loss = layer(x, return_loss=True)
    np.testing.assert_array_equal(numpy(codes), data["indices"])
    np.testing.assert_allclose(numpy(quantized), data["quantized"], atol=1e-6)
    np.testing.assert_allclose(numpy(loss), data["loss"], rtol=1e-5)
    of_choice, of_codebook = layer.entropies(x)
    np.testing.assert_allclose(numpy(of_choice), data["per_sample_entropy"], rtol=1e-5)
    np.testing.assert_allclose(numpy(of_codebook), data["codebook_entropy"], rtol=1e-5)
    weights = data["output_gradient"]
    found = gradient(lambda x: ops.multiply(layer(x)[0], weights), x)
    np.testing.assert_allclose(found, data["input_gradient"], atol=1e-5)
    found = gradient(lambda x: layer(x, return_loss=True)[2], x)
    np.testing.assert_allclose(found, data["loss_gradient"], atol=1e-6)
    # The codes of groups of bits are codes of a quantizer that has one for each.
    bits, group = CASES[case]["bits"], CASES[case]["group_size"]
    grouped = BinarySphericalQuantizer(bits, factorized_bits=[group] * (bits // group))
    np.testing.assert_array_equal(numpy(grouped(x)[1]), data["group_indices"])


def test_analytical_entropies_are_those_of_single_bits(rng):
    x = rng.normal(size=(50, 6)).astype("float32")
    analytical = BinarySphericalQuantizer(6, group_size=3).entropies(x)
    single = BinarySphericalQuantizer(6, group_size=1, per_sample_entropy="group").entropies(x)
    grouped = BinarySphericalQuantizer(6, group_size=3, per_sample_entropy="group").entropies(x)
    np.testing.assert_allclose(numpy(analytical[1]), numpy(single[1]), rtol=1e-6)
    np.testing.assert_allclose(numpy(analytical[0]), numpy(grouped[0]), rtol=1e-6)
    assert numpy(grouped[1]) < numpy(analytical[1])


def test_more_bits_than_an_integer_has(rng):
    layer = BinarySphericalQuantizer(36, factorized_bits=[12, 12, 12])
    quantized, codes = layer(rng.normal(size=(2, 5, 36)).astype("float32"))
    assert layer.num_embeddings == 4096 and tuple(codes.shape) == (2, 5, 3)
    np.testing.assert_array_equal(numpy(layer.lookup(codes)), numpy(quantized))
    np.testing.assert_allclose(np.linalg.norm(numpy(quantized), axis=-1), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"bits": -1}, "Received: bits=-1"),
        ({"bits": 8, "group_size": 3}, "a divisor of bits=8. Received: group_size=3"),
        ({"bits": 8, "per_sample_entropy": "none"}, "Received: per_sample_entropy='none'"),
        ({"bits": 8, "inv_temperature": 0}, "Received: inv_temperature=0"),
        ({"bits": 8, "gamma": -1.0}, "Received: gamma=-1.0"),
        ({"bits": 36}, "at most 30 bits.* Received: bits=36"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        BinarySphericalQuantizer(**kwargs)
