import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae2.layers import Categorical, DiscretizedLogisticMixture
from keras_vqvae2.losses import LogisticMixtureLoss


def numpy(x):
    return ops.convert_to_numpy(x)


CASES = [(c, k) for c in ("rgb", "gray") for k in ("random", "close", "edges", "extreme")]


@pytest.mark.parametrize("colours, kind", CASES)
def test_golden_nats_and_gradients(golden, gradient, colours, kind):
    data = golden("logistic_mixture")
    get = {k: data[f"{colours}.{kind}.{k}"] for k in ("pixels", "logits")}
    mixture = DiscretizedLogisticMixture(3 if colours == "rgb" else 1, 10)
    nats = numpy(mixture.nats(get["pixels"], get["logits"]))
    expected = data[f"{colours}.{kind}.nats_float64"]
    np.testing.assert_allclose(nats.sum((1, 2), dtype="float64"), expected, rtol=3e-5)
    computed = gradient(lambda x: mixture.nats(get["pixels"], x), get["logits"])
    assert np.isfinite(computed).all()
    expected = data[f"{colours}.{kind}.gradient_float64"]
    np.testing.assert_allclose(computed, expected, atol=1e-3 * np.abs(expected).max())


def test_golden_draws(golden):
    data = golden("logistic_mixture")
    mixture = DiscretizedLogisticMixture(3, 10)
    uniforms = np.concatenate([data["sample.uniform_mixture"], data["sample.uniform_logistic"]], -1)
    drawn = numpy(mixture.draw(data["sample.logits"], uniforms, rounded=False))
    np.testing.assert_allclose(drawn, data["sample.values"], atol=2e-5)


@pytest.mark.parametrize("colours, levels", [(1, 5), (1, 256), (3, 4)])
def test_probabilities_sum_to_one(rng, colours, levels):
    mixture = DiscretizedLogisticMixture(colours, 3, levels)
    parameters = rng.normal(size=mixture.num_parameters).astype("float32")
    values = np.stack(np.meshgrid(*[np.arange(levels)] * colours), -1).reshape(-1, colours)
    nats = mixture.nats(values, np.tile(parameters, (len(values), 1)))
    assert np.exp(-numpy(nats).astype("float64")).sum() == pytest.approx(1, abs=1e-4)


def test_draws_have_the_probabilities(rng):
    mixture = DiscretizedLogisticMixture(3, 2, levels=3)
    parameters = rng.normal(size=mixture.num_parameters).astype("float32")
    uniforms = rng.uniform(size=(100_000, mixture.num_uniforms)).astype("float32")
    drawn = numpy(mixture(np.tile(parameters, (len(uniforms), 1)), uniforms))
    assert drawn.dtype == np.int32 and drawn.min() == 0 and drawn.max() == 2
    counts = np.bincount(drawn @ [9, 3, 1], minlength=27) / len(drawn)
    values = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    expected = np.exp(-numpy(mixture.nats(values, np.tile(parameters, (27, 1)))))
    np.testing.assert_allclose(counts, expected, atol=0.005)


@pytest.mark.parametrize("levels", [2, 4, 32])
@pytest.mark.parametrize("log_scale", [-7.0, -4.0, 3.0])
def test_what_is_all_but_impossible_has_exact_nats_of_few_levels(gradient, levels, log_scale):
    mixture = DiscretizedLogisticMixture(1, 1, levels)
    parameters = np.tile(np.float32([0.0, -0.5, log_scale]), (levels, 1))
    values = np.arange(levels)[:, None]
    half, scale = 1 / (levels - 1), np.exp(log_scale)
    centred = values[:, 0] * 2 * half - 1 + 0.5
    above, below = (centred + half) / scale, (centred - half) / scale
    nats = np.logaddexp(0, -above) + np.logaddexp(0, below) - np.log(-np.expm1(below - above))
    nats[[0, -1]] = np.logaddexp(0, -above[0]), np.logaddexp(0, below[-1])
    np.testing.assert_allclose(numpy(mixture.nats(values, parameters)), nats, rtol=1e-4, atol=1e-4)
    assert np.isfinite(gradient(lambda x: mixture.nats(values, x), parameters)).all()


@pytest.mark.parametrize("layer", [DiscretizedLogisticMixture(1, 2), Categorical(1)])
def test_a_global_half_precision_draws_as_float32_does(rng, layer):
    """A uniform next to 1 is 1 in bfloat16: an outlier where there should be none."""
    parameters = rng.normal(scale=0.5, size=(400, layer.num_parameters)).astype("float32")
    uniforms = 1 - np.geomspace(1e-6, 0.5, 400 * layer.num_uniforms).reshape(400, -1)
    uniforms = uniforms.astype("float32")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        again = type(layer).from_config({**layer.get_config(), "dtype": None})
        drawn = numpy(again(parameters, uniforms))
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_array_equal(drawn, numpy(layer(parameters, uniforms)))


def test_a_temperature_towards_zero_draws_the_most_probable_component():
    mixture = DiscretizedLogisticMixture(1, 3)
    parameters = np.float32([[5.0, 6.0, 7.0, -0.5, 0.0, 0.5, -7.0, -7.0, -7.0]])
    for temperature in (1e-3, 1e-30, 1e-38):
        sampling = mixture.sampling(temperature)
        drawn = sampling.draw(parameters, np.full((1, 4), 0.5, "float32"), sampling.numbers())
        assert numpy(drawn).item() == 191


def test_temperature_narrows_and_top_k_is_refused(rng):
    mixture = DiscretizedLogisticMixture(1, 3)
    parameters = rng.normal(size=(1, 9)).astype("float32").repeat(500, axis=0)
    uniforms = rng.uniform(size=(500, 4)).astype("float32")
    spread = []
    for temperature in (1.0, 0.3, 1e-30):
        sampling = mixture.sampling(temperature)
        spread.append(numpy(sampling.draw(parameters, uniforms, sampling.numbers())).std())
    assert spread[0] > spread[1] > spread[2] == 0
    parameters[3] = np.nan
    drawn = numpy(sampling.draw(parameters, uniforms, sampling.numbers()))
    assert drawn[3] == -1 and (np.delete(drawn, 3) >= 0).all()
    for message, arguments in {
        "top_k=5": {"top_k": 5},
        "top_p=0.5": {"top_p": 0.5},
        "temperature=0": {"temperature": 0},
    }.items():
        with pytest.raises(ValueError, match=message):
            mixture.sampling(**arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_mixtures": 0}, "num_mixtures=0"),
        ({"colours": 2}, "Expected 1 or 3. Received: colours=2"),
        ({"levels": 1}, "levels=1"),
    ],
)
def test_other_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DiscretizedLogisticMixture(**arguments)


def test_config_of_layer_and_loss():
    for made in (DiscretizedLogisticMixture(1, 4, 16), LogisticMixtureLoss(1, 4, 16)):
        again = type(made).from_config(made.get_config())
        assert again.get_config() == made.get_config()


def test_the_loss_is_the_mean_of_the_nats(rng):
    loss = LogisticMixtureLoss(num_mixtures=2)
    pixels = rng.integers(256, size=(2, 3, 3, 3))
    parameters = rng.normal(size=(2, 3, 3, 20)).astype("float32")
    nats = numpy(DiscretizedLogisticMixture(3, 2).nats(pixels, parameters))
    assert float(loss(pixels, parameters)) == pytest.approx(nats.mean(), rel=1e-5)
    model = keras.Sequential([keras.Input((3, 3, 20)), keras.layers.Conv2D(20, 1)])
    model.compile(optimizer=keras.optimizers.Adam(0.05), loss=loss)
    losses = model.fit(parameters, pixels, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
