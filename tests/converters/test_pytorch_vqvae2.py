import numpy as np
import pytest
from keras import ops

from keras_vqvae2 import VQVAE2
from keras_vqvae2.converters import convert_pytorch_vqvae2


@pytest.fixture
def data(golden):
    return golden("vqvae2_pytorch")


@pytest.fixture
def state(data):
    prefix = "state_dict."
    return {k.removeprefix(prefix): v for k, v in data.items() if k.startswith(prefix)}


def test_golden_codes_reconstruction_and_loss(data, state):
    model = convert_pytorch_vqvae2(state, (64, 64, 3))
    images = (data["images_nchw"].transpose(0, 2, 3, 1) + 1) / 2
    codes = model.encode(images)
    for level in ("top", "bottom"):
        np.testing.assert_array_equal(codes[level], data[f"{level}_indices"])
    expected = data["reconstruction_nchw"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(2 * model.predict(images, verbose=0) - 1, expected, atol=1e-4)
    model.compile(optimizer="adam")
    metrics = model.evaluate(images, verbose=0, return_dict=True)
    latent_loss = metrics["commitment_top"] + metrics["commitment_bottom"]
    assert latent_loss == pytest.approx(data["latent_loss"].item(), rel=1e-3)
    # data_variance=0.25 is the plain error on [-1, 1].
    error = ((expected - data["images_nchw"].transpose(0, 2, 3, 1)) ** 2).mean()
    assert metrics["loss"] == pytest.approx(error + 0.25 * latent_loss, rel=1e-4)


def test_inplace_relu_is_the_other_residual(state, data):
    images = (data["images_nchw"].transpose(0, 2, 3, 1) + 1) / 2
    plain = convert_pytorch_vqvae2(state, (64, 64, 3))
    inplace = convert_pytorch_vqvae2(state, (64, 64, 3), inplace_relu=True)
    assert inplace.rectified_skip and not plain.rectified_skip
    x = plain.get_layer("encoder_bottom").strided[0](images * 2 - 1)
    assert ops.convert_to_numpy(x).shape == (2, 32, 32, 16)
    difference = np.abs(inplace.predict(images, verbose=0) - plain.predict(images, verbose=0))
    assert difference.max() > 1e-3


def test_converted_models_train_and_save(state, tmp_path, rng):
    model = convert_pytorch_vqvae2(state, (64, 64, 3))
    model.compile(optimizer="adam")
    model.fit(rng.uniform(size=(2, 64, 64, 3)), verbose=0)
    model.save_to_preset(tmp_path / "preset")
    assert VQVAE2.from_preset(tmp_path / "preset").count_params() == model.count_params()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("enc_t.blocks.0.bias"), "Expected the key 'enc_t.blocks.0.bias'"),
        (lambda s: s.update(extra=np.zeros(3)), r"no further keys. .*\['extra'\]"),
        (lambda s: s.update({"upsample_t.bias": np.zeros(3)}), r"shape \(16,\). Received: \(3,\)"),
        (lambda s: s.pop("quantize_t.embed"), r"keys \['quantize_t.embed'\]"),
    ],
)
def test_foreign_checkpoints(state, change, message):
    change(state)
    with pytest.raises(ValueError, match=message):
        convert_pytorch_vqvae2(state, (64, 64, 3))


def test_wrong_channels(state):
    with pytest.raises(ValueError, match=r"3 channels.*image_shape=\(64, 64, 1\)"):
        convert_pytorch_vqvae2(state, (64, 64, 1))
