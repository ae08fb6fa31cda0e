import numpy as np
import pytest

from keras_vqvae2 import PixelModel
from keras_vqvae2.data import sample_photographs

PARAMETERS = {
    "pixelcnnpp_cifar10_32": 912_020,
    "pixelcnnpp_cifar10": 53_659_080,
    "gated_pixelcnn_imagenet_32": 132_257_151,
    "pixelcnn_cifar10": 4_624_761,
    "diagonal_bilstm_cifar10": 8_932_071,
    "row_lstm_imagenet_32": 55_806_975,
    "diagonal_bilstm_mnist": 65_602,
}
LARGE = {name for name, count in PARAMETERS.items() if count > 10**7}


def test_every_preset_is_counted():
    assert set(PixelModel.presets) == set(PARAMETERS)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in PARAMETERS]
)
def test_architectures_have_the_parameters_they_say(name):
    entry = PixelModel.presets[name]
    assert entry["has_weights"] == (name == "pixelcnnpp_cifar10_32")
    model = PixelModel.from_preset(name, load_weights=False)
    assert model.count_params() == PARAMETERS[name] == entry["parameters"]


def test_the_trained_one_knows_photographs_from_noise():
    model = PixelModel.from_preset("pixelcnnpp_cifar10_32")
    photographs = sample_photographs((32, 32))
    noise = np.random.default_rng(0).integers(256, size=photographs.shape, dtype="uint8")
    bits = [
        model.nats({"image": images, "label": np.zeros(8, int)}).mean() / 3 / np.log(2)
        for images in (photographs, noise)
    ]
    # Photographs that are no JPEG of this size: sharper than what it learned from.
    assert bits[0] < 6.5 and bits[1] > 8.0
