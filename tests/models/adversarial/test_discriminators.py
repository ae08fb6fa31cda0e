import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae2 import BlurDiscriminator, PatchDiscriminator


@pytest.mark.compiled
def test_patch_discriminator_is_that_of_vqgan(vqgan, image_last, patch_discriminator):
    model = patch_discriminator()
    # The file's images are in [-1, 1], as its discriminator takes them.
    real, fake = (
        (image_last(vqgan[name]) + 1) / 2 for name in ("images_nchw", "reconstruction_nchw")
    )
    logits = ops.convert_to_numpy(model(real, training=False))
    np.testing.assert_allclose(logits, image_last(vqgan["eval.logits_real"]), atol=1e-4)
    for images, name in ((real, "real"), (fake, "fake")):
        logits = ops.convert_to_numpy(model(images, training=True))
        np.testing.assert_allclose(logits, image_last(vqgan[f"train.logits_{name}"]), atol=1e-4)


def test_the_first_batch_moves_the_running_means(vqgan, image_last, patch_discriminator):
    model = patch_discriminator()
    model((image_last(vqgan["reconstruction_nchw"]) + 1) / 2, training=True)
    mean = ops.convert_to_numpy(model.get_layer("norm_1").moving_mean)
    np.testing.assert_allclose(mean, vqgan["running_after_one_batch.mean"], atol=1e-5)


def test_blur_discriminator_is_that_of_maskbit(golden, image_last, assign):
    state = golden("field_discriminator_maskbit")
    model = BlurDiscriminator((64, 64, 3), filters=32, num_stages=2)
    places = {"conv_in": "block_in.0", "conv_out": "to_logits.0", "logits": "to_logits.2"}
    for i in range(2):
        places |= {f"conv_{i}": f"blocks.{i}.0", f"norm_{i}": f"blocks.{i}.2"}
    for layer, name in places.items():
        assign(model.get_layer(layer), state, name)
    np.testing.assert_allclose(
        model.get_layer("blur_0").kernel[..., 0, 0], state["state_dict.blocks.0.1.kernel"][0, 0]
    )
    logits = ops.convert_to_numpy(model(image_last(state["images_nchw"])))
    np.testing.assert_allclose(logits, image_last(state["logits_nchw"]), atol=1e-4)


@pytest.mark.parametrize(
    "model",
    [
        lambda: PatchDiscriminator((32, 32, 1), 24, 2, normalization="group", name="judge"),
        lambda: PatchDiscriminator((32, 32, 1), 4, 2, normalization=None, dtype="mixed_bfloat16"),
        lambda: BlurDiscriminator((32, 32, 1), 32, 1, (1, 2, 1), logits_size=8, name="judge"),
    ],
)
def test_config_and_float32_logits(model):
    model = model()
    again = type(model).from_config(model.get_config())
    assert again.get_config() == model.get_config()
    images = np.random.default_rng(0).uniform(size=(2, 32, 32, 1)).astype("float32")
    again.set_weights(model.get_weights())
    logits = again(images)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    expected = ops.convert_to_numpy(model(images))
    np.testing.assert_allclose(ops.convert_to_numpy(logits), expected, rtol=0.05, atol=1e-5)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: PatchDiscriminator(filters=0), "filters=0"),
        (lambda: PatchDiscriminator(num_layers=1.5), "num_layers=1.5"),
        (lambda: PatchDiscriminator(normalization="layer"), "normalization='layer'"),
        (lambda: BlurDiscriminator((64, 60, 3), num_stages=2), r"multiples of 64.*\(64, 60, 3\)"),
        (lambda: BlurDiscriminator(filters=48), "filters=48"),
    ],
)
def test_sizes_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()
