import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae2.layers import GumbelVectorQuantizer


def numpy(x):
    return ops.convert_to_numpy(x)


def softmax(x):
    p = np.exp(x - x.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


@pytest.fixture
def parts(rng):
    """Vectors, noise, what a loss weighs outputs by, and the weights of a layer."""
    shapes = {"x": (6, 3), "noise": (6, 5), "w": (6, 3), "kernel": (3, 5), "bias": (5,)}
    parts = {k: rng.normal(size=shape).astype("float32") for k, shape in shapes.items()}
    return {**parts, "embeddings": rng.normal(size=(5, 3)).astype("float32")}


def layer_of(parts, monkeypatch, **kwargs):
    layer = GumbelVectorQuantizer(5, 3, **kwargs)
    layer.build((None, 3))
    for name in ("kernel", "bias", "embeddings"):
        getattr(layer, name).assign(parts[name])
    noise = parts["noise"]
    monkeypatch.setattr(layer, "_noise", lambda shape: ops.convert_to_tensor(noise))
    return layer


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("hard", [False, True])
def test_values_and_gradients_are_the_equations(
    parts, monkeypatch, gradient, weight_gradients, training, hard
):
    layer = layer_of(parts, monkeypatch, temperature=0.7, straight_through=hard, kl_weight=0.3)
    x, w, e = parts["x"], parts["w"], parts["embeddings"]
    quantized, codes, loss = layer(x, training=training, return_loss=True)
    logits = x @ parts["kernel"] + parts["bias"]
    noisy = logits + (parts["noise"] if training else 0.0)
    shares = softmax(noisy / 0.7)
    np.testing.assert_array_equal(numpy(codes), noisy.argmax(-1))
    choice = np.eye(5)[noisy.argmax(-1)]
    one_code = hard or not training
    expected = (choice if one_code else shares) @ e
    np.testing.assert_allclose(numpy(quantized), expected, atol=1e-6)
    p = softmax(logits)
    kl = (p * np.log(p * 5)).sum(-1).mean()
    np.testing.assert_allclose(float(numpy(loss)), 0.3 * kl, rtol=1e-5)

    def output(x):
        return ops.sum(layer(x, training=training)[0] * ops.convert_to_tensor(w))

    at_shares = w @ e.T
    at_logits = shares * (at_shares - (shares * at_shares).sum(-1, keepdims=True)) / 0.7
    np.testing.assert_allclose(gradient(output, x), at_logits @ parts["kernel"].T, atol=1e-5)
    found = weight_gradients(lambda: output(x), [layer.kernel, layer.embeddings])
    np.testing.assert_allclose(found[0], x.T @ at_logits, atol=1e-5)
    np.testing.assert_allclose(found[1], (choice if one_code else shares).T @ w, atol=1e-5)


def test_codes_are_drawn_as_probable_as_the_softmax_says(rng):
    layer = GumbelVectorQuantizer(4, 2, seed=0)
    one = rng.normal(size=2).astype("float32")
    _, codes = layer(np.tile(one, (20_000, 1)), training=True)
    found = np.bincount(numpy(codes), minlength=4) / 20_000
    logits = one @ numpy(layer.kernel) + numpy(layer.bias)
    np.testing.assert_allclose(found, softmax(logits), atol=0.015)
    _, again = layer(np.tile(one, (20_000, 1)), training=True)
    assert (numpy(again) != numpy(codes)).mean() > 0.1
    _, chosen = layer(np.tile(one, (3, 1)))
    np.testing.assert_array_equal(numpy(chosen), logits.argmax())


def test_the_temperature_falls_along_a_cosine_and_only_in_training(rng):
    x = rng.normal(size=(2, 3)).astype("float32")
    layer = GumbelVectorQuantizer(4, 3, final_temperature=0.5, annealing_steps=4)
    found = []
    for _ in range(6):
        layer(x)
        layer(x, training=True)
        found.append(float(numpy(layer.current_temperature())))
    expected = 0.75 + 0.25 * np.cos(np.pi * np.array([1, 2, 3, 4, 4, 4]) / 4)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert GumbelVectorQuantizer(4, 3, temperature=2.0).current_temperature() == 2.0


def test_steps_count_in_fit(rng):
    layer = GumbelVectorQuantizer(4, 3, annealing_steps=100)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layer(inputs)[0])
    model.compile("adam", "mse")
    x = rng.normal(size=(8, 3)).astype("float32")
    losses = model.fit(x, x, batch_size=2, epochs=2, verbose=0).history["loss"]
    assert int(numpy(layer.steps)) == 8 and np.isfinite(losses).all()


def test_padding_may_hold_anything(rng, gradient):
    x = rng.normal(size=(3, 4, 3)).astype("float32")
    mask = np.arange(4) < np.array([[4], [2], [1]])
    padded = np.where(mask[..., None], x, np.float32("nan"))
    layer = GumbelVectorQuantizer(5, 3)
    layer.build(x.shape)
    losses = [layer(v, mask=mask, training=True, return_loss=True)[2] for v in (x, padded)]
    assert float(numpy(losses[0])) == float(numpy(losses[1])) > 0
    slope = gradient(lambda x: layer(x, mask=mask, training=True, return_loss=True)[2], padded)
    assert (slope[~mask] == 0).all() and (slope[mask] != 0).any(-1).all()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"final_temperature": float("inf")}, "final_temperature=inf"),
        ({"annealing_steps": -1}, "annealing_steps=-1"),
        ({"annealing_steps": 2.5}, "annealing_steps=2.5"),
        ({"kl_weight": -1.0}, "kl_weight=-1.0"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        GumbelVectorQuantizer(4, 3, **changes)
