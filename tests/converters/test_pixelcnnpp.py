import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae2 import PixelCNNPlusPlus, PixelModel
from keras_vqvae2.converters import convert_openai_pixelcnnpp, convert_pytorch_pixelcnnpp


def numpy(x):
    return ops.convert_to_numpy(x)


def state_of(data, prefix):
    return {k.removeprefix(prefix): v for k, v in data.items() if k.startswith(prefix)}


def stepwise(model, data):
    """Parameters of given images, one pixel after the other."""
    images = model._image_of(data).astype("int32")
    inputs = {"image": images}
    if model.num_classes:
        inputs["label"] = data["label"].astype("int32")
    sampling = model.distribution.sampling()
    rows = model._rows(sampling, inputs, 0, np.arange(len(images)))
    return np.stack([numpy(parameters) for _, parameters in rows], axis=1)


def as_fed(images):
    """The file has the bytes of its images channels first, under a shape of channels last."""
    batch, height, width, channels = images.shape
    return images.reshape(batch, channels, height, width).transpose(0, 2, 3, 1)


@pytest.fixture(scope="module")
def authors(golden):
    data = golden("pixelcnnpp_tensorflow")
    data |= {name: as_fed(data[name]) for name in ("images", "init_images")}
    model = convert_openai_pixelcnnpp(state_of(data, "variables."), (12, 8, 3))
    return data, model


def test_golden_parameters_and_nats_of_the_authors(authors, tmp_path):
    data, model = authors
    model.save_to_preset(tmp_path / "preset")
    model = PixelModel.from_preset(tmp_path / "preset")
    assert (model.num_classes, model.num_blocks, model.num_mixtures) == (4, 2, 5)
    images = {"image": data["images"], "label": data["h"].argmax(-1)}
    np.testing.assert_allclose(model.predict(images, verbose=0), data["logits"], atol=1e-4)
    np.testing.assert_allclose(model.nats(images).sum((1, 2)), data["nats"], rtol=1e-5)


@pytest.mark.compiled
def test_golden_parameters_one_pixel_after_the_other(authors):
    data, model = authors
    images = {"image": data["images"], "label": data["h"].argmax(-1)}
    np.testing.assert_allclose(stepwise(model, images), data["logits"], atol=1e-4)


def test_golden_start(authors):
    data, expected = authors
    model = PixelCNNPlusPlus.from_config({**expected.get_config(), "name": "fresh"})
    for own, theirs in zip(model.trainable_variables, expected.trainable_variables, strict=True):
        if own.name in ("v", "label_table"):
            own.assign(theirs)
    assert model.is_fresh and not expected.is_fresh
    images = {"image": data["init_images"], "label": data["init_h"].argmax(-1)}
    parameters = model.start(images)
    np.testing.assert_allclose(parameters, data["init_logits"], atol=2e-4)
    np.testing.assert_allclose(parameters.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(parameters.std((0, 1, 2)), 1, atol=1e-3)
    for own, theirs in zip(model.trainable_variables, expected.trainable_variables, strict=True):
        np.testing.assert_allclose(numpy(own), numpy(theirs), rtol=2e-4, atol=2e-4)
    assert not model.is_fresh


def test_golden_parameters_of_the_port(golden):
    data = golden("pixelcnnpp_pytorch")
    model = convert_pytorch_pixelcnnpp(state_of(data, "state_dict."), (8, 12, 3))
    assert model.num_classes is None
    np.testing.assert_allclose(model.predict(data["images"], verbose=0), data["logits"], atol=1e-4)
    np.testing.assert_allclose(model.nats(data["images"]).sum((1, 2)), data["nats"], rtol=1e-5)


def test_names_may_come_in_any_order_and_with_a_prefix(authors):
    data, expected = authors
    state = state_of(data, "variables.")
    state = {f"model/{name}": state[name] for name in sorted(state, reverse=True)}
    model = convert_openai_pixelcnnpp(state, (12, 8, 3))
    for a, b in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("dense_3/V"), "9 B . 5 layers"),
        (lambda s: s.pop("conv2d_7/g"), "the key 'conv2d_7/g'"),
        (lambda s: s.update(more=np.zeros(3)), "Expected no further keys.*'more'"),
        (lambda s: s.update({"conv2d_0/V": np.zeros((2, 3, 2, 12))}), r"of shape \(2, 3, 4, 12\)"),
    ],
)
def test_other_variables_are_refused(authors, change, message):
    state = state_of(authors[0], "variables.")
    change(state)
    with pytest.raises(ValueError, match=message):
        convert_openai_pixelcnnpp(state, (12, 8, 3))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("u_init.conv.weight_v"), "Expected a checkpoint with the keys"),
        (lambda s: s.pop("nin_out.lin_a.weight_g"), "the key 'nin_out.lin_a.weight_g'"),
        (lambda s: s.update(more=np.zeros(3)), "Expected no further keys.*'more'"),
    ],
)
def test_other_checkpoints_are_refused(golden, change, message):
    state = state_of(golden("pixelcnnpp_pytorch"), "state_dict.")
    change(state)
    with pytest.raises(ValueError, match=message):
        convert_pytorch_pixelcnnpp(state, (8, 12, 3))


def test_what_is_converted_trains_on(authors):
    data, model = authors
    model = PixelCNNPlusPlus.from_config(model.get_config())
    model.start({"image": data["init_images"], "label": data["init_h"].argmax(-1)})
    model.compile(optimizer=keras.optimizers.Adam(1e-4))
    images = {"image": data["images"], "label": data["h"].argmax(-1)}
    assert np.isfinite(model.fit(images, verbose=0).history["loss"]).all()
