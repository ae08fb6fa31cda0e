import pytest

from keras_vqvae2 import PixelModel

PARAMETERS = {
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
    assert not entry["has_weights"]
    model = PixelModel.from_preset(name, load_weights=False)
    assert model.count_params() == PARAMETERS[name] == entry["parameters"]
