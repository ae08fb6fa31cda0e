import keras
import numpy as np
import pytest

from keras_vqvae2.layers import SelfAttention, SwiGLU


def numpy(x):
    return keras.ops.convert_to_numpy(x).astype("float64")


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_it_is_what_numpy_computes(rng, causal, qk_norm):
    x = rng.normal(size=(2, 5, 8)).astype("float32")
    layer = SelfAttention(2, causal, qk_norm, use_bias=True)
    layer.build(x.shape)
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    projections = [layer.query_projection, layer.key_projection, layer.value_projection]
    q, k, v = (
        (x @ numpy(p.kernel) + numpy(p.bias)).reshape(2, 5, 2, 4).transpose(0, 2, 1, 3)
        for p in projections
    )
    if qk_norm:
        q, k = (
            y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-5) * numpy(norm.scale)
            for y, norm in zip((q, k), layer.norms)
        )
    scores = q @ k.transpose(0, 1, 3, 2) / 2
    if causal:
        scores = np.where(np.tril(np.ones((5, 5), bool)), scores, -np.inf)
    output = (softmax(scores) @ v).transpose(0, 2, 1, 3).reshape(2, 5, 8)
    last = layer.output_projection
    expected = output @ numpy(last.kernel) + numpy(last.bias)
    np.testing.assert_allclose(numpy(layer(x)), expected, atol=1e-4)


def test_heads_divide_the_channels():
    with pytest.raises(ValueError, match="divide the 8 channels. Received: num_heads=3"):
        SelfAttention(3)(np.zeros((1, 2, 8), "float32"))


def test_swiglu_is_what_numpy_computes(rng):
    x = rng.normal(size=(2, 5)).astype("float32")
    layer = SwiGLU(3)
    layer.build(x.shape)
    gate, up, down = (numpy(part.kernel) for part in (layer.gate, layer.up, layer.down))
    gated = x @ gate
    expected = (gated / (1 + np.exp(-gated)) * (x @ up)) @ down
    np.testing.assert_allclose(numpy(layer(x)), expected, atol=1e-6)
    point = layer._point(layer._step_weights(), keras.ops.convert_to_tensor(x))
    np.testing.assert_allclose(numpy(point), expected, atol=1e-6)
    with pytest.raises(ValueError, match="units=0"):
        SwiGLU(0)
