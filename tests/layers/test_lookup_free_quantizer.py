import numpy as np
import pytest
from keras import ops

from keras_vqvae2.layers import LookupFreeQuantizer

CASES = {
    "a": {"bits": 6, "temperature": 0.01},
    "b": {"bits": 8, "temperature": 0.1, "diversity_gamma": 2.0},
    "c": {"bits": 7, "temperature": 0.2, "spherical": True},
}
MAGVIT = {
    "bits": 8,
    "entropy_weight": 1.0,
    "logarithm": "shifted",
    "first_channel": "least_significant",
}


def numpy(x):
    return ops.convert_to_numpy(x)


def channels_last(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def assert_gradient(found, expected):
    # A temperature of 0.01 makes 1e-5 of the originals' rounding of logits.
    np.testing.assert_allclose(found, expected, atol=5e-5 * np.abs(expected).max())


def loss_gradient(layer, gradient, x):
    return gradient(lambda x: layer(x, return_loss=True)[2], x)


@pytest.mark.parametrize("case", CASES)
def test_golden_of_vector_quantize_pytorch(golden, gradient, case):
    data = {k[2:]: v for k, v in golden("field_lfq").items() if k.startswith(f"{case}.")}
    layer = LookupFreeQuantizer(**CASES[case], logarithm="clipped")
    x = data["inputs"]
    quantized, codes, loss = layer(x, return_loss=True)
    np.testing.assert_array_equal(numpy(codes), data["indices"])
    np.testing.assert_allclose(numpy(quantized), data["quantized"], atol=1e-6)
    expected = 0.1 * data["aux_loss"] / 0.1
    np.testing.assert_allclose(numpy(loss), expected, rtol=1e-5)
    of_choice, of_codebook = layer.entropies(x)
    np.testing.assert_allclose(numpy(of_choice), data["per_sample_entropy"], rtol=1e-5)
    np.testing.assert_allclose(numpy(of_codebook), data["codebook_entropy"], rtol=1e-5)
    weights = data["output_gradient"]
    found = gradient(lambda x: ops.multiply(layer(x)[0], weights), x)
    np.testing.assert_allclose(found, data["input_gradient"], atol=1e-5)
    assert_gradient(loss_gradient(layer, gradient, x), data["loss_gradient"])


@pytest.mark.parametrize("case", ["magvit", "magvit_factorized"])
def test_golden_of_open_magvit2(golden, gradient, case):
    data = golden("field_lfq")
    data = {k.split(".")[1]: v for k, v in data.items() if k.startswith(f"{case}.")}
    factorized_bits = (3, 5) if case == "magvit_factorized" else None
    layer = LookupFreeQuantizer(**MAGVIT, factorized_bits=factorized_bits)
    x = channels_last(data["inputs_nchw"])
    quantized, codes, loss = layer(x, return_loss=True)
    if factorized_bits:
        codes = numpy(codes).reshape(-1, 2)
        np.testing.assert_array_equal(codes[:, 0], data["indices_first"])
        np.testing.assert_array_equal(codes[:, 1], data["indices_second"])
    else:
        np.testing.assert_array_equal(numpy(codes).ravel(), data["indices"])
    np.testing.assert_array_equal(numpy(quantized), channels_last(data["quantized_nchw"]))
    of_choice, of_codebook = layer.entropies(x)
    np.testing.assert_allclose(numpy(of_choice), data["per_sample_entropy"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(numpy(of_codebook), data["codebook_entropy"], rtol=1e-5)
    expected = data["entropy_loss"] + 0.25 * data["commitment"]
    np.testing.assert_allclose(numpy(loss), expected, rtol=1e-5)
    found = loss_gradient(layer, gradient, x)
    assert_gradient(found, channels_last(data["loss_gradient"]))


def test_first_channel_and_factorized_codes():
    vector = np.array([[1.0, -1.0, -1.0, 1.0, 1.0]], "float32")
    for first_channel, code, tokens in (
        ("most_significant", 0b10011, [0b10, 0b011]),
        ("least_significant", 0b11001, [0b01, 0b110]),
    ):
        order = {"first_channel": first_channel}
        assert numpy(LookupFreeQuantizer(5, **order)(vector)[1]).tolist() == [code]
        layer = LookupFreeQuantizer(5, factorized_bits=[2, 3], **order)
        quantized, codes = layer(vector)
        assert numpy(codes).tolist() == [tokens]
        assert numpy(layer.factorize(np.array([code, -1]))).tolist() == [tokens, [-1, -1]]
        assert layer.num_embeddings == 8
        np.testing.assert_array_equal(numpy(layer.lookup(codes)), numpy(quantized))
        assert numpy(layer.codebook).shape == (32, 5)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"bits": 0}, "Received: bits=0"),
        ({"bits": 20}, "a group_size for more than 18 bits. Received: bits=20"),
        ({"bits": 8, "group_size": 3}, "a divisor of bits=8.* Received: group_size=3"),
        ({"bits": 36, "group_size": 1}, "those of an int32 code.* Received: bits=36"),
        ({"bits": 8, "temperature": 0.0}, "Received: temperature=0.0"),
        ({"bits": 8, "entropy_weight": -1.0}, "Received: entropy_weight=-1.0"),
        ({"bits": 8, "logarithm": "log"}, "Received: logarithm='log'"),
        ({"bits": 8, "first_channel": "last"}, "Received: first_channel='last'"),
        ({"bits": 8, "factorized_bits": (3, 4)}, r"8 bits together.* factorized_bits=\(3, 4\)"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        LookupFreeQuantizer(**kwargs)
