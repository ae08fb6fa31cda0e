"""What holds for any model of pixels: the contract of `PixelModel`."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae2 import (
    GatedPixelCNN,
    PixelCNN,
    PixelCNNPlusPlus,
    PixelModel,
    PixelRNN,
    PresetModel,
)
from keras_vqvae2.evaluation import causality, mask_of_the_past

SHAPE = (4, 8, 3)


def pixelcnnpp(shape, **kwargs):
    sizes = {"hidden_units": 4, "num_blocks": 1, "num_mixtures": 2, "dropout": 0.0}
    return PixelCNNPlusPlus(shape, **{**sizes, **kwargs})


def pixelcnn(shape, **kwargs):
    return PixelCNN(shape, hidden_units=6, num_layers=2, head_units=24, **kwargs)


def gated_pixelcnn(shape, **kwargs):
    sizes = {"hidden_units": 6, "num_layers": 3, "kernel_size": 3, "head_units": 24}
    return GatedPixelCNN(shape, **sizes, **kwargs)


def row_lstm(shape, **kwargs):
    sizes = {"hidden_units": 6, "num_layers": 1, "head_units": 24}
    return PixelRNN(shape, "row_lstm", **sizes, **kwargs)


def diagonal_bilstm(shape, **kwargs):
    sizes = {"hidden_units": 6, "num_layers": 1, "head_units": 24}
    return PixelRNN(shape, "diagonal_bilstm", **sizes, **kwargs)


MODELS = {
    "pixelcnnpp": pixelcnnpp,
    "pixelcnn": pixelcnn,
    "gated_pixelcnn": gated_pixelcnn,
    "row_lstm": row_lstm,
    "diagonal_bilstm": diagonal_bilstm,
}


def make(kind, shape=SHAPE, scale=0.3, **kwargs):
    """A model with weights that tell pixels apart."""
    model = MODELS[kind](shape, **kwargs)
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        # Biases that do not hold a ReLU shut.
        value = rng.normal(scale=scale / (4 if variable.name == "bias" else 1), size=variable.shape)
        variable.assign(value + (variable.name == "g"))
    return model


@pytest.fixture(scope="module", params=MODELS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    return make(kind, num_classes=3)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(6, *SHAPE)).astype("uint8")
    return {"image": images, "label": np.arange(6) % 3, "else": np.zeros(1)}


def rows_of(model, data):
    """Parameters of given images, one position after the other."""
    inputs = {"image": data["image"].astype("int32"), "label": data["label"].astype("int32")}
    sampling = model.distribution.sampling()
    rows = model._rows(sampling, inputs, 0, np.arange(len(data["image"])))
    return np.stack([ops.convert_to_numpy(parameters) for _, parameters in rows], axis=1)


def test_nats_bits_and_loss_agree(model, data):
    model.compile(optimizer="adam")
    nats = model.nats(data, batch_size=4)
    assert nats.shape == (6, 4, 8) and nats.dtype == np.float32
    logs = model.evaluate(data, batch_size=3, verbose=0, return_dict=True)
    assert logs["nats_per_image"] == pytest.approx(nats.sum((1, 2)).mean(), rel=1e-4)
    assert logs["loss"] == pytest.approx(nats.mean() / 3, rel=1e-4)
    assert logs["bits_per_dim"] == pytest.approx(nats.mean() / 3 / np.log(2), rel=1e-4)


def test_weights_of_images_change_the_loss_and_not_the_bits(model, data):
    model.compile("adam")
    plain = model.evaluate(data, verbose=0, return_dict=True)
    weights = np.arange(len(data["image"])).astype("float32")
    labels = np.zeros(len(weights))
    logs = model.evaluate(data, labels, sample_weight=weights, verbose=0, return_dict=True)
    for name in ("bits_per_dim", "nats_per_image"):
        assert logs[name] == pytest.approx(plain[name], rel=1e-5)
    nats = model.nats(data).mean(axis=(1, 2)) / SHAPE[-1]
    assert logs["loss"] == pytest.approx((nats * weights).mean(), rel=1e-4)


def test_uint8_and_floats_mean_one_image(model, data):
    floats = {**data, "image": (data["image"] / 255).astype("float32")}
    np.testing.assert_allclose(model.nats(floats), model.nats(data), rtol=1e-5, atol=1e-5)
    off = {**data, "image": floats["image"] * np.float32(0.999)}
    with pytest.warns(UserWarning, match="not multiples of 1/255: each is rounded"):
        near = model.nats(off)
    assert np.isfinite(near).all()


@pytest.mark.compiled
def test_training_lowers_the_loss(kind, data):
    model = make(kind, num_classes=3, scale=0.05)
    model.compile(optimizer=keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5))
    losses = model.fit(data, batch_size=6, epochs=10, verbose=0).history["loss"]
    assert losses[-1] < losses[0] - 0.02


def test_one_position_after_the_other_equals_the_full_pass(model, data):
    whole = model.predict(data, verbose=0)
    np.testing.assert_allclose(rows_of(model, data).reshape(whole.shape), whole, atol=1e-4)


def test_an_image_is_the_same_whatever_the_batch(kind):
    model, labels = make(kind, (4, 4, 3), num_classes=3), np.arange(3)
    whole = model.generate(3, labels, seed=3, verbose=0)
    assert whole.dtype == np.uint8 and whole.shape == (3, 4, 4, 3)
    np.testing.assert_array_equal(model.generate(3, labels, seed=3, batch_size=2, verbose=0), whole)
    later = model.generate(1, labels[2:], seed=3, first_image=2, verbose=0)
    np.testing.assert_array_equal(later, whole[2:])
    assert (model.generate(1, labels[:1], seed=4, verbose=0) != whole[:1]).any()


def test_given_pixels_are_kept(model, data):
    mask = np.zeros(SHAPE[:2], bool)
    mask[2:, 1:] = True
    options = {"labels": data["label"], "seed": 2, "verbose": 0}
    drawn = model.complete(data["image"], mask, **options)
    np.testing.assert_array_equal(drawn[:, ~mask], data["image"][:, ~mask])
    assert (drawn[:, mask] != data["image"][:, mask]).any()
    everything = model.complete(data["image"], np.ones((6, *SHAPE[:2]), bool), **options)
    np.testing.assert_array_equal(everything, model.generate(6, **options))


@pytest.mark.parametrize("colours", [1, 3])
def test_all_of_the_past_and_nothing_else_is_seen(kind, colours):
    model = make(kind, (4, 4, colours))
    np.testing.assert_array_equal(causality(model, num_inputs=6), mask_of_the_past(model))


def test_files_bring_it_back(model, data, tmp_path):
    model.save_to_preset(tmp_path / "preset")
    model.save(tmp_path / "model.keras")
    for again in (
        PixelModel.from_preset(tmp_path / "preset"),
        PresetModel.from_preset(tmp_path / "preset"),
        keras.saving.load_model(tmp_path / "model.keras"),
    ):
        assert type(again) is type(model) and again.get_config() == model.get_config()
        a, b = (m.predict(data, verbose=0) for m in (again, model))
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_trains_and_draws(kind, data, policy):
    model = make(kind, num_classes=3, scale=0.1, dtype=policy)
    model.compile(optimizer="adam")
    logs = model.fit(data, verbose=0).history
    assert np.isfinite(logs["loss"]).all()
    assert model.generate(1, 0, verbose=0).shape == (1, *SHAPE)


def test_a_step_that_is_not_finite_changes_nothing(kind, data):
    model = make(kind, num_classes=3)
    model.compile(optimizer="adam")
    before = [np.array(ops.convert_to_numpy(v)) for v in model.trainable_variables]
    images = data["image"] / np.float32(255)
    images[0, 0, 0, 0] = np.nan
    logs = model.fit({**data, "image": images}, batch_size=6, verbose=0).history
    assert logs["skipped_steps"] == [1]
    for variable, value in zip(model.trainable_variables, before):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"image": np.zeros((6, 8, 4, 3), "uint8")}, r"shape \(batch, 4, 8, 3\)"),
        ({"image": np.zeros((6, 4, 8, 1), "uint8")}, r"shape \(batch, 4, 8, 3\)"),
        ({"image": np.full((6, 4, 8, 3), 256)}, r"in \[0, 255\].*from 256 to 256"),
        ({"image": np.full((6, 4, 8, 3), 1.5)}, r"floats in \[0, 1\].*from 1.5 to 1.5"),
        ({"image": np.full((6, 4, 8, 3), -1)}, "from -1 to -1"),
        ({"image": np.full((6, 4, 8, 3), True)}, "dtype bool"),
        ({"label": np.full(6, 3)}, r"labels in \[0, 3\)"),
        ({"label": np.zeros(5, int)}, "as many of each"),
    ],
)
def test_other_data_are_refused_before_the_first_step(model, data, changes, message):
    model.compile(optimizer="adam")
    for use in (model.fit, model.evaluate, model.nats):
        with pytest.raises(ValueError, match=message):
            use({**data, **changes})


def test_missing_labels_are_named(model, data):
    model.compile(optimizer="adam")
    for use in (model.fit, model.nats):
        with pytest.raises(ValueError, match="a dict of arrays with the keys .'image', 'label'"):
            use(data["image"])
        with pytest.raises(ValueError, match=r"keys \['image', 'label'\]"):
            use({"image": data["image"]})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_images": 0}, "num_images=0"),
        ({"labels": None}, "Expected labels below 3"),
        ({"labels": 3}, r"labels in \[0, 3\)"),
        ({"labels": [0, 1]}, "Expected 4 labels"),
        ({"temperature": 0.0}, "temperature=0"),
        ({"seed": -1}, "seed=-1"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_other_requests_are_refused(model, changes, message):
    with pytest.raises(ValueError, match=message):
        model.generate(**{"num_images": 4, "labels": 0, "verbose": 0, **changes})


def test_pixels_that_are_kept_are_numbers(model, data):
    images = (data["image"] / np.float32(255)).copy()
    images[1, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN in 1 of 6 images"):
        model.complete(images, np.zeros(SHAPE[:2], bool), labels=data["label"])
    with pytest.raises(ValueError, match="NaN in 1 of 6 images"):
        model.nats({"image": images, "label": data["label"]})


def test_what_is_no_array_or_no_number_is_named(model, data):
    with pytest.raises(ValueError, match="Expected an array of images. Received: list"):
        model.complete(data["image"].tolist(), np.ones(SHAPE[:2], bool))
    conditioned = PixelCNN((2, 2, 1), condition_channels=1, hidden_units=2, num_layers=1)
    with pytest.raises(ValueError, match="Received: condition with NaN in 1 of 1 images"):
        conditioned.generate(1, condition=[np.full((2, 2, 1), np.nan).tolist()])


def test_levels_of_any_number_fit_their_dtype():
    """A mixture has as many parameters whatever the levels."""
    for levels, dtype in ((256, "uint8"), (257, "uint16"), (2**17, "int32")):
        drawn = pixelcnnpp((4, 4, 1), levels=levels).generate(8, verbose=0)
        assert drawn.dtype == dtype and drawn.min() >= 0 and drawn.max() > levels / 2


def test_other_masks_are_refused(model, data):
    for mask in (np.zeros((8, 4), bool), np.zeros((4, 8))):
        with pytest.raises(ValueError, match="Expected booleans of shape"):
            model.complete(data["image"], mask, labels=0)


def test_a_model_that_diverged_draws_nothing(kind):
    model = make(kind)
    for variable in model.trainable_variables:
        variable.assign(np.full(variable.shape, np.nan))
    with pytest.raises(ValueError, match="Expected finite logits.*'pixels'"):
        model.generate(1, verbose=0)


def test_sizes_that_are_none_are_refused(kind):
    for shape in ((4, 0, 3), (4, 8), (4.5, 8, 3)):
        with pytest.raises(ValueError, match="Expected positive integers .height, width, colours"):
            MODELS[kind](shape)
