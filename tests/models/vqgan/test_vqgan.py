import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae2 import (
    VQGAN,
    VQVAE2,
    AdversarialVQVAE2,
    GatedPixelCNNPrior,
    HierarchicalImageGenerator,
    PatchDiscriminator,
)
from keras_vqvae2.compression import compress, decompress
from keras_vqvae2.layers import FiniteScalarQuantizer, VectorQuantizer
from keras_vqvae2.models.vqgan.vqgan_layers import (
    AttentionBlock,
    ResnetBlock,
    VQGANDecoder,
    VQGANEncoder,
)


def small(**kwargs):
    defaults = {
        "image_shape": (8, 8, 3),
        "hidden_units": 32,
        "channel_multipliers": (1, 2),
        "residual_blocks": 1,
        "latent_channels": 8,
        "quantizer": VectorQuantizer(16, 4),
    }
    return VQGAN(**{**defaults, **kwargs})


@pytest.fixture
def images(rng):
    return rng.uniform(size=(4, 8, 8, 3)).astype("float32")


@pytest.mark.compiled
def test_fits_and_takes_images_of_any_size(images, rng):
    model = small()
    model.compile("adam")
    history = model.fit(images, verbose=0).history
    assert np.isfinite(history["loss"]).all() and history["skipped_steps"] == [0]
    assert {"psnr", "perplexity_bottom"} <= set(model.evaluate(images, return_dict=True, verbose=0))
    for size in ((8, 8), (12, 16)):
        others = rng.uniform(size=(2, *size, 3))
        codes = model.encode(others)
        assert {k: v.shape for k, v in codes.items()} == {"bottom": (2, size[0] // 2, size[1] // 2)}
        expected = np.clip(model.predict(others, verbose=0), 0, 1)
        np.testing.assert_allclose(model.decode(codes), expected, atol=1e-5)
    with pytest.raises(ValueError, match="multiples of 2"):
        model.encode(images[:, :7])


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_is_finite_and_near(images, policy):
    whole, half = small(), small(dtype=policy)
    half.set_weights(whole.get_weights())
    steps = [model.step_outputs(images, training=False) for model in (whole, half)]
    pair = [ops.convert_to_numpy(outputs["vectors"]["bottom"]) for outputs in steps]
    assert "16" in str(pair[1].dtype) or policy == "mixed_bfloat16"
    np.testing.assert_allclose(pair[1].astype("float32"), pair[0], atol=0.1)
    half.compile("adam")
    assert np.isfinite(half.fit(images, verbose=0).history["loss"]).all()


def test_saves_and_loads(images, tmp_path):
    model = small(attention_factors=(1, 2), quantizer=VectorQuantizer(16, 4, similarity="cosine"))
    model.quantizers["bottom"].set_codebook(np.random.default_rng(0).normal(size=(16, 4)))
    expected = model.predict(images, verbose=0)
    model.save(tmp_path / "model.keras")
    model.save_to_preset(tmp_path / "preset")
    for again in (
        keras.models.load_model(tmp_path / "model.keras"),
        VQGAN.from_preset(tmp_path / "preset"),
        VQVAE2.from_preset(tmp_path / "preset"),
    ):
        assert type(again) is VQGAN and again.get_config() == model.get_config()
        np.testing.assert_allclose(again.predict(images, verbose=0), expected, atol=1e-6)
        assert again.fingerprint() == model.fingerprint()
    half = VQGAN.from_preset(tmp_path / "preset", dtype="mixed_bfloat16")
    assert half.get_layer("encoder_bottom").chain[1].conv_1.compute_dtype == "bfloat16"


def test_takes_other_quantizers_and_stands_in_generators(images, tmp_path):
    model = small(quantizer={"bottom": FiniteScalarQuantizer((3, 3))})
    codes = model.encode(images)
    assert model.num_embeddings == {"bottom": 9}
    prior = GatedPixelCNNPrior((4, 4), 9, level="bottom", hidden_units=8, num_layers=1)
    generator = HierarchicalImageGenerator(model, {"bottom": prior})
    generator.save_to_preset(tmp_path / "generator")
    generator = HierarchicalImageGenerator.from_preset(tmp_path / "generator")
    assert type(generator.vqvae) is VQGAN
    assert generator.generate(2, verbose=0).shape == (2, 8, 8, 3)
    decoded = decompress(model, compress(model, images))
    np.testing.assert_allclose(decoded, model.decode(codes), atol=1e-5)


@pytest.mark.parametrize("freeze_codes", [True, False])
def test_trains_against_a_discriminator(images, freeze_codes):
    model = small()
    judge = PatchDiscriminator((8, 8, 3), filters=8, num_layers=1)
    adversarial = AdversarialVQVAE2(model, judge, freeze_codes=freeze_codes, start=0, ramp=1)
    adversarial.compile("adam")
    fingerprint = model.fingerprint()
    history = adversarial.fit(images, epochs=2, verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values())
    assert history["adversarial_weight"][-1] > 0
    assert (model.fingerprint() == fingerprint) == freeze_codes


def test_without_its_bias_the_last_layer_is_its_product(images):
    decoder = small().get_layer("pixel_decoder")
    decoder.last.bias.assign([0.1, 0.2, 0.3])
    features = decoder.features(images[..., [0, 1, 2, 0]])
    expected = ops.convert_to_numpy(decoder.last(features)) - np.array([0.1, 0.2, 0.3])
    found = decoder.last_product(features, decoder.last.kernel)
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, atol=1e-5)


@pytest.mark.parametrize(
    "layer, output_shape",
    [
        (ResnetBlock(64), (2, 8, 4, 64)),
        (AttentionBlock(), (2, 8, 4, 32)),
        (VQGANEncoder(32, (1, 2, 1), 2, (4,), 8), (2, 2, 1, 8)),
        (VQGANDecoder(32, (1, 2, 1), 2, (1,), 8, output_channels=5), (2, 32, 16, 5)),
    ],
)
def test_layers_have_the_shapes_that_they_say(layer, output_shape, rng):
    x = rng.normal(size=(2, 8, 4, 32)).astype("float32")
    assert layer.compute_output_shape(x.shape) == output_shape == tuple(layer(x).shape)
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"image_shape": (9, 8, 3)}, r"multiples of 2.*Received: image_shape"),
        ({"hidden_units": 48}, "positive multiple of 32. Received: hidden_units=48"),
        ({"hidden_units": 0}, "positive multiple of 32. Received: hidden_units=0"),
        ({"channel_multipliers": (1,)}, r"two positive.*channel_multipliers=\(1,\)"),
        ({"channel_multipliers": (1, 0)}, r"two positive.*channel_multipliers=\(1, 0\)"),
        ({"residual_blocks": 0}, "Received: residual_blocks=0"),
        ({"latent_channels": -1}, "Received: latent_channels=-1"),
        ({"attention_factors": (4,)}, r"some of \(1, 2\).*attention_factors=\(4,\)"),
        ({"quantizer": {"top": VectorQuantizer(16, 4)}}, r"each of the levels \('bottom',\)"),
        ({"quantizer": "fsq"}, "Expected a keras_vqvae2.layers.Quantizer.*quantizer=fsq"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        small(**kwargs)


PARAMETERS = {
    "vqgan_imagenet_f16_1024": 72_404_869,
    "vqgan_imagenet_f16_16384": 80_284_549,
    "vqgan_llamagen_vq_16": 72_030_861,
}


def test_architectures_are_those_of_the_published_models():
    assert set(VQGAN.presets) == set(PARAMETERS)
    assert set(PARAMETERS) <= set(VQVAE2.presets)
    for name, entry in VQGAN.presets.items():
        assert entry["parameters"] == PARAMETERS[name] and not entry["has_weights"]
        with keras.StatelessScope(initialize_variables=False):
            model = VQGAN.from_preset(name, load_weights=False)
        assert model.count_params() == PARAMETERS[name]
        assert model.image_shape == entry["image_shape"] and model.downsampling == 16
        with pytest.raises(ValueError, match="No weights have been published"):
            VQGAN.from_preset(name)
        keras.backend.clear_session()
