import numpy as np
import pytest
from keras import ops

from keras_vqvae2.layers import IndexBackpropagationQuantizer, index_backpropagation_quantizer


def numpy(x):
    return ops.convert_to_numpy(x)


def channels_last(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


@pytest.fixture(params=["whole", "in_parts"])
def parts(request, monkeypatch):
    if request.param == "in_parts":
        monkeypatch.setattr(index_backpropagation_quantizer, "rows_at_once", lambda _: 5)


@pytest.mark.parametrize("case", ["plain", "entropy"])
def test_golden_of_seed_voken(golden, gradient, weight_gradients, parts, case):
    data = golden("field_ibq")
    data = {k.split(".")[1]: v for k, v in data.items() if k.split(".")[0] == case}
    layer = IndexBackpropagationQuantizer(*data["codebook"].shape, entropy_weight=0.0)
    x = channels_last(data["inputs_nchw"])
    layer.build(x.shape)
    layer.embeddings.assign(data["codebook"])
    quantized, codes, loss = layer(x, return_loss=True)
    np.testing.assert_array_equal(numpy(codes).ravel(), data["indices"])
    np.testing.assert_allclose(numpy(quantized), channels_last(data["quantized_nchw"]), atol=1e-6)
    np.testing.assert_allclose(float(numpy(loss)), data["quantizer_loss"], rtol=1e-5)

    weights = channels_last(data["output_gradient"])

    def output(x):
        return ops.sum(ops.multiply(layer(x)[0], weights))

    def loss_of(x):
        return layer(x, return_loss=True)[2]

    expected = channels_last(data["input_gradient"])
    np.testing.assert_allclose(gradient(output, x), expected, atol=1e-5)
    (found,) = weight_gradients(lambda: output(x), [layer.embeddings])
    np.testing.assert_allclose(found, data["codebook_gradient"], atol=1e-5)
    expected = channels_last(data["loss_input_gradient"])
    np.testing.assert_allclose(gradient(loss_of, x), expected, atol=1e-5)
    (found,) = weight_gradients(lambda: loss_of(x), [layer.embeddings])
    np.testing.assert_allclose(found, data["loss_codebook_gradient"], atol=1e-5)
    if case == "plain":
        return

    of_choice, of_codebook = layer.entropies(x)
    np.testing.assert_allclose(numpy(of_choice), data["per_sample_entropy"], rtol=1e-5)
    np.testing.assert_allclose(numpy(of_codebook), data["codebook_entropy"], rtol=1e-5)
    weights = ops.full((24,), 1 / 24, "float32")

    def entropy_of(x):
        return layer._entropies(ops.reshape(x, (24, -1)), layer.codebook, weights)[2]

    assert len(data["indices"]) == 24
    with_entropy = IndexBackpropagationQuantizer(*data["codebook"].shape, entropy_weight=0.5)
    with_entropy.build(x.shape)
    with_entropy.embeddings.assign(data["codebook"])
    loss = with_entropy(x, return_loss=True)[2]
    expected = data["quantizer_loss"] + 0.5 * data["entropy_loss"]
    np.testing.assert_allclose(float(numpy(loss)), expected, rtol=1e-5)
    # At a temperature of 0.01 one rounding of the products moves these by up to 3e-4 of the largest
    # (the file's are 6e-5 from those of float64), and processors add them up in different orders.
    expected = channels_last(data["entropy_input_gradient"])
    found = gradient(entropy_of, x)
    np.testing.assert_allclose(found, expected, atol=6e-4 * np.abs(expected).max())
    (found,) = weight_gradients(lambda: entropy_of(x), [layer.embeddings])
    expected = data["entropy_codebook_gradient"]
    np.testing.assert_allclose(found, expected, atol=6e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"embedding_dim": 0}, "embedding_dim=0"),
        ({"commitment_cost": -0.5}, "commitment_cost=-0.5"),
        ({"entropy_weight": -1}, "entropy_weight=-1"),
        ({"entropy_temperature": 0}, "entropy_temperature=0"),
        ({"logarithm": "clipped"}, "logarithm='clipped'"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=f"Received: {message}"):
        IndexBackpropagationQuantizer(**{"num_embeddings": 8, "embedding_dim": 4, **kwargs})
