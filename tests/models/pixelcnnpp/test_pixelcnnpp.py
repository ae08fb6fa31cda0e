import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae2 import PixelCNNPlusPlus

SIZES = {"hidden_units": 4, "num_blocks": 1, "num_mixtures": 2}


@pytest.mark.parametrize("shape", [(32, 30, 3), (6, 8, 3)])
def test_sizes_that_do_not_divide_by_4_are_refused(shape):
    with pytest.raises(ValueError, match="multiples of 4"):
        PixelCNNPlusPlus(shape, **SIZES)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_mixtures": 0}, "num_mixtures=0"),
        ({"hidden_units": 0}, "hidden_units=0"),
        ({"num_blocks": 0}, "num_blocks=0"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"image_shape": (8, 8, 2)}, "Expected 1 or 3. Received: colours=2"),
        ({"num_classes": 0}, "num_classes=0"),
    ],
)
def test_other_arguments_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        PixelCNNPlusPlus(**{"image_shape": (8, 8, 3), **SIZES, **changes})


def test_fit_starts_a_fresh_model_and_no_other(rng):
    images = rng.integers(256, size=(4, 8, 8, 1)).astype("uint8")
    images[:, :, :] = images[:, :1, :1]  # flat images: features that hardly vary
    model = PixelCNNPlusPlus((8, 8, 1), **SIZES, dropout=0.0)
    assert model.is_fresh
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    logs = model.fit(images, verbose=0).history
    assert np.isfinite(logs["loss"]).all() and logs["skipped_steps"] == [0]
    assert not model.is_fresh
    again = PixelCNNPlusPlus.from_config(model.get_config())
    again.set_weights(model.get_weights())
    again.compile(optimizer=keras.optimizers.Adam(0.0))
    again.fit(images, verbose=0)
    for a, b in zip(again.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_a_loader_of_pytorch_starts_from_as_many_images_as_an_array(rng):
    torch = pytest.importorskip("torch")
    images = rng.uniform(size=(4, 8, 8, 1)).round(1).astype("float32")
    images[0] = 0.5
    models = [PixelCNNPlusPlus((8, 8, 1), **SIZES, dropout=0.0) for _ in range(2)]
    models[1].set_weights(models[0].get_weights())
    pairs = torch.utils.data.TensorDataset(torch.from_numpy(images))
    for model, data in zip(models, (torch.utils.data.DataLoader(pairs, batch_size=4), images)):
        model.compile(keras.optimizers.SGD(0.0))
        model.fit(data, verbose=0)
    for a, b in zip(*(model.get_weights() for model in models)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_an_image_that_is_not_finite_is_left_out_of_the_start(rng):
    images = rng.uniform(size=(6, 4, 4, 1)).astype("float32")
    images[0, 1, 1] = np.nan
    images = np.round(images * 255) / 255
    model = PixelCNNPlusPlus((4, 4, 1), hidden_units=2, num_blocks=1, num_mixtures=1)
    model.compile("adam")
    logs = model.fit(images, batch_size=2, shuffle=False, verbose=0).history
    assert logs["skipped_steps"] == [1] and np.isfinite(logs["loss"][0])
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_black_images_do_not_blow_up_the_start():
    model = PixelCNNPlusPlus((8, 8, 3), **SIZES)
    parameters = model.start(np.zeros((4, 8, 8, 3), "uint8"))
    assert np.isfinite(parameters).all() and np.abs(parameters).max() < 100


def test_dropout_is_for_training_only(rng):
    images = rng.integers(256, size=(2, 8, 8, 1)).astype("uint8")
    model = PixelCNNPlusPlus((8, 8, 1), **SIZES, dropout=0.5)
    model.start(images)
    calm = [ops.convert_to_numpy(model(images, training=False)) for _ in range(2)]
    np.testing.assert_array_equal(*calm)
    lively = [ops.convert_to_numpy(model(images, training=True)) for _ in range(2)]
    assert np.abs(lively[0] - lively[1]).max() > 0.01


def test_temperature_towards_zero_draws_no_noise():
    model = PixelCNNPlusPlus((4, 4, 1), hidden_units=4, num_blocks=1, num_mixtures=1)
    model.get_layer("head").conv.bias.assign([0.0, 0.3, -1.0])  # a mean that no rounding splits
    images = model.generate(3, temperature=1e-6, verbose=0)
    assert (images == images[:1]).all()
    with pytest.raises(ValueError, match="no top_k"):
        model.generate(1, top_k=3)
