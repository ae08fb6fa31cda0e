import numpy as np
import pytest
from keras import ops

from keras_vqvae2.layers import SimVectorQuantizer

CASES = {
    "original": {"commitment_cost": 1.0, "codebook_cost": 0.25},
    "original_nonlegacy": {},
    "lucidrains": {"use_bias": False, "gradient": "rotation"},
    "lucidrains_straight_through": {"use_bias": False},
}


def numpy(x):
    return ops.convert_to_numpy(x)


def channels_last(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


@pytest.mark.parametrize("case", CASES)
def test_golden_of_the_original_and_vector_quantize_pytorch(
    golden, gradient, weight_gradients, case
):
    data = golden("field_simvq")
    data = {k.split(".")[1]: v for k, v in data.items() if k.split(".")[0] == case}
    for name in ("inputs", "quantized"):
        if f"{name}_nchw" in data:
            data[name] = channels_last(data[f"{name}_nchw"])
    if case.startswith("original"):
        for name in ("output_gradient", "input_gradient", "loss_gradient"):
            data[name] = channels_last(data[name])
    layer = SimVectorQuantizer(*data["frozen_codebook"].shape, **CASES[case])
    x = data["inputs"]
    layer.build(x.shape)
    layer.frozen_codebook.assign(data["frozen_codebook"])
    layer.kernel.assign(data["projection_weight"].T)
    if layer.use_bias:
        layer.bias.assign(data["projection_bias"])

    quantized, codes, loss = layer(x, return_loss=True)
    np.testing.assert_array_equal(numpy(codes).ravel(), data["indices"].ravel())
    np.testing.assert_allclose(numpy(quantized), data["quantized"], atol=1e-5)
    np.testing.assert_allclose(float(numpy(loss)), data["loss"], rtol=1e-5)
    weights = data["output_gradient"]
    found = gradient(lambda x: ops.multiply(layer(x)[0], weights), x)
    np.testing.assert_allclose(found, data["input_gradient"], atol=1e-5)
    found = gradient(lambda x: layer(x, return_loss=True)[2], x)
    np.testing.assert_allclose(found, data["loss_gradient"], atol=1e-6)
    found = weight_gradients(lambda: layer(x, return_loss=True)[2], layer.trainable_variables)
    np.testing.assert_allclose(found[0].T, data["weight_gradient"], atol=1e-6)
    if layer.use_bias:
        np.testing.assert_allclose(found[1], data["bias_gradient"], atol=1e-6)


def test_one_linear_layer_is_all_that_trains():
    layer = SimVectorQuantizer(32, 4)
    layer.build((None, 4))
    assert [tuple(v.shape) for v in layer.trainable_variables] == [(4, 4), (4,)]
    assert [tuple(v.shape) for v in layer.non_trainable_variables] == [(32, 4)]
    assert abs(numpy(layer.frozen_codebook).std() - 0.5) < 0.1


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"num_embeddings": 0}, "num_embeddings=0"),
        ({"commitment_cost": -0.5}, "commitment_cost=-0.5"),
        ({"codebook_cost": -1}, "codebook_cost=-1"),
        ({"gradient": "magic"}, "gradient='magic'"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=f"Received: {message}"):
        SimVectorQuantizer(**{"num_embeddings": 8, "embedding_dim": 4, **kwargs})
