import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae2 import VQVAE2, AdversarialVQVAE2, PatchDiscriminator, losses
from keras_vqvae2.models.adversarial.adversarial_vqvae2 import gradient_at
from keras_vqvae2.models.vqvae2.vqvae2_layers import to_pixels


def make(freeze_codes=True, dtype=None, normalization="batch", **kwargs):
    keras.utils.set_random_seed(0)
    vqvae = VQVAE2(
        (16, 16, 3),
        num_embeddings=8,
        embedding_dim=4,
        hidden_units=8,
        residual_units=4,
        dtype=dtype,
    )
    judge = PatchDiscriminator(
        (16, 16, 3), filters=8, num_layers=1, normalization=normalization, dtype=dtype
    )
    kwargs = {"start": 0, "ramp": 1, **kwargs}
    model = AdversarialVQVAE2(vqvae, judge, freeze_codes=freeze_codes, **kwargs)
    model.compile(keras.optimizers.SGD(0.1), discriminator_optimizer=keras.optimizers.SGD(0.1))
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(size=(8, 16, 16, 3)).astype("float32")


def values(variables):
    return {v.path: ops.convert_to_numpy(v).copy() for v in variables}


def changed(before, variables):
    return {v.path for v in variables if (before[v.path] != ops.convert_to_numpy(v)).any()}


@pytest.mark.compiled
def test_frozen_codes_stay_and_the_decoder_and_the_discriminator_learn(images):
    model = make()
    vqvae, judge = model.vqvae, model.discriminator
    codes, fingerprint = vqvae.encode(images), vqvae.fingerprint()
    before = values([*vqvae.variables, *judge.variables])
    history = model.fit(images, batch_size=4, epochs=2, verbose=0).history
    moved = changed(before, vqvae.variables)
    assert moved == {v.path for v in model.variables_to_train()}
    assert any("pixel_decoder" in path for path in moved)
    assert changed(before, judge.trainable_variables) == {v.path for v in judge.trainable_variables}
    for level, again in vqvae.encode(images).items():
        np.testing.assert_array_equal(again, codes[level])
    assert vqvae.fingerprint() == fingerprint
    assert all(np.isfinite(value).all() for value in history.values())
    assert {"discriminator_loss", "logits_real", "psnr", "usage_top"} <= set(history)
    assert "discriminator_loss" not in model.evaluate(images, verbose=0, return_dict=True)


@pytest.mark.parametrize("adaptive", [True, False])
def test_a_step_is_that_of_the_whole_loss(images, adaptive):
    """The decoder moves along the gradient of L + w d G, computed here in one piece."""
    images = ops.convert_to_tensor(images)
    model = make(adaptive=adaptive, weight=0.5, start=0, ramp=1, lecam_weight=0.0)
    model.optimizer.build(model.trainable_variables)
    model.optimizer.members["vqvae"].iterations.assign(1)
    vqvae, judge = model.vqvae, model.discriminator
    decoder = vqvae.get_layer("pixel_decoder")
    kernel = decoder.strided[-1].kernel
    known = ops.stop_gradient(model._to_known(images)["known"])

    def pixels(x, value):
        x = ops.conv_transpose(x, value, 2, "same", data_format="channels_last")
        return to_pixels(x + decoder.strided[-1].bias)

    def error(value, hidden=None):
        hidden = decoder.features(known) if hidden is None else hidden
        return 1.0 * ops.mean(ops.square(pixels(hidden, value) - images)), ()

    def adversarial(value, hidden=None):
        hidden = decoder.features(known) if hidden is None else hidden
        return -ops.mean(judge(pixels(hidden, value), training=True)), ()

    _, _, slope = gradient_at(ops.convert_to_tensor(kernel), error)
    g, _, adversarial_slope = gradient_at(
        ops.convert_to_tensor(kernel), adversarial, judge.variables
    )
    d = losses.adaptive_weight(slope, adversarial_slope) if adaptive else 1.0
    expected = ops.convert_to_numpy(kernel) - 0.1 * ops.convert_to_numpy(
        slope + 0.5 * d * adversarial_slope
    )
    logs = model.train_on_batch(images, return_dict=True)
    np.testing.assert_allclose(ops.convert_to_numpy(kernel), expected, atol=1e-6)
    assert logs["adversarial_weight"] == pytest.approx(0.5 * float(d), rel=1e-4)
    assert logs["generator_loss"] == pytest.approx(float(g), rel=1e-4)


@pytest.mark.compiled
@pytest.mark.parametrize("dtype", [None, "mixed_bfloat16", "mixed_float16"])
def test_codes_learn_too_where_they_are_not_frozen(images, dtype):
    model = make(freeze_codes=False, dtype=dtype)
    before = values(model.vqvae.variables)
    model.fit(images, batch_size=4, epochs=2, verbose=0)
    moved = changed(before, model.vqvae.variables)
    assert {v.path for v in model.vqvae.trainable_variables} - moved == set()
    assert any("quantizer_top" in path for path in moved)


def test_the_discriminator_learns_before_it_counts(images):
    model = make(start=2, ramp=4, adaptive=False, weight=1.0)
    weights = []
    for _ in range(8):
        model.reset_metrics()
        weights.append(float(model.train_on_batch(images, return_dict=True)["adversarial_weight"]))
    np.testing.assert_allclose(weights, [0, 0, 0, 0.25, 0.5, 0.75, 1, 1], atol=1e-6)


@pytest.mark.compiled
def test_a_batch_that_is_not_finite_changes_neither(images):
    model = make(freeze_codes=False)
    model.fit(images, batch_size=4, verbose=0)
    weights = [*model.vqvae.variables, *model.discriminator.variables, *model.lecam.variables]
    before = values(weights)
    bad = images.copy()
    bad[0, 3, 3] = np.nan
    logs = model.train_on_batch(bad, return_dict=True)
    assert changed(before, weights) == set()
    assert logs["skipped_steps"] == 1
    assert np.isnan(logs["loss"])


@pytest.mark.compiled
def test_a_saved_run_goes_on_to_the_same_end(images, tmp_path):
    model = make(freeze_codes=False, start=1, ramp=3)
    model.fit(images, batch_size=4, epochs=1, verbose=0, shuffle=False)
    model.save(tmp_path / "run.keras")
    again = keras.models.load_model(tmp_path / "run.keras")
    for run in (model, again):
        run.fit(images, batch_size=4, epochs=2, initial_epoch=1, verbose=0, shuffle=False)
    pairs = zip([*model.variables, *model.optimizer.variables],
                [*again.variables, *again.optimizer.variables])  # fmt: skip
    for a, b in pairs:
        np.testing.assert_allclose(
            ops.convert_to_numpy(a), ops.convert_to_numpy(b), atol=1e-6, err_msg=a.path
        )


def test_a_saved_run_keeps_how_its_steps_run(images, tmp_path):
    model = make()
    steps = 1 if keras.backend.backend() == "torch" else 2
    options = {"run_eagerly": True, "steps_per_execution": steps, "jit_compile": False}
    model.compile("adam", discriminator_optimizer="sgd", **options)
    model.fit(images, batch_size=4, verbose=0)
    model.save(tmp_path / "run.keras")
    again = keras.models.load_model(tmp_path / "run.keras")
    assert {name: getattr(again, name) for name in options} == options


def test_its_preset_is_that_of_the_vqvae(images, tmp_path):
    model = make()
    model.fit(images, verbose=0)
    model.save_to_preset(tmp_path / "preset")
    loaded = VQVAE2.from_preset(tmp_path / "preset")
    np.testing.assert_array_equal(
        loaded.predict(images, verbose=0), model.predict(images, verbose=0)
    )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"weight": -1.0}, "weight=-1"),
        ({"lecam_weight": float("nan")}, "lecam_weight=nan"),
        ({"start": -1}, "start=-1"),
        ({"ramp": 0}, "ramp=0"),
        ({"loss": "wasserstein"}, "loss='wasserstein'"),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_one_optimizer_for_both_is_refused():
    model, optimizer = make(), keras.optimizers.Adam()
    with pytest.raises(ValueError, match="two optimizers"):
        model.compile(optimizer, discriminator_optimizer=optimizer)


@pytest.mark.compiled
def test_the_adaptive_weight_of_a_decoder_of_one_convolution(
    vqgan, image_last, patch_discriminator
):
    discriminator = patch_discriminator()
    images, hidden = (
        ops.convert_to_tensor(image_last(vqgan[name])) for name in ("images_nchw", "hidden_nchw")
    )

    def decode(kernel):
        x = ops.conv(hidden, kernel, padding="same", data_format="channels_last")
        return x + ops.convert_to_tensor(vqgan["last_layer.bias"])

    def error(kernel):
        return ops.mean(ops.abs(images - decode(kernel))), ()

    def judge(kernel):
        fake = discriminator((decode(kernel) + 1) / 2, training=True)
        return losses.hinge_generator_loss(fake), ()

    kernel = ops.convert_to_tensor(vqgan["last_layer.weight"].transpose(2, 3, 1, 0))
    nll, _, slope = gradient_at(kernel, error)
    before = [ops.convert_to_numpy(v) for v in discriminator.non_trainable_variables]
    generator_loss, _, adversarial_slope = gradient_at(kernel, judge, discriminator.variables)
    for old, variable in zip(before, discriminator.non_trainable_variables):
        np.testing.assert_array_equal(old, variable)  # what it did was forgotten
    np.testing.assert_allclose(nll, vqgan["nll_loss"], rtol=1e-5)
    np.testing.assert_allclose(generator_loss, vqgan["generator_loss"], rtol=1e-4)
    weight = 0.8 * losses.adaptive_weight(slope, adversarial_slope)
    np.testing.assert_allclose(weight, vqgan["adaptive_weight_times_disc_weight"], rtol=1e-4)
    total = nll + weight * generator_loss + vqgan["codebook_loss"]
    np.testing.assert_allclose(total, vqgan["total_generator_loss_after_start"], rtol=1e-4)
