import numpy as np
import pytest

from keras_vqvae2 import PatchDiscriminator


@pytest.fixture(scope="session")
def image_last():
    return lambda x: np.ascontiguousarray(np.moveaxis(x, 1, -1))


@pytest.fixture(scope="session")
def assign():
    """`assign(layer, state, name)`: PyTorch's weights of a convolution or normalization."""
    names = {"kernel": "weight", "gamma": "weight", "bias": "bias", "beta": "bias"}
    names |= {"moving_mean": "running_mean", "moving_variance": "running_var"}

    def run(layer, state, name):
        for variable in layer.weights:
            kind = variable.path.split("/")[-1]
            value = state[f"state_dict.{name}.{names[kind]}"]
            variable.assign(value.transpose(2, 3, 1, 0) if kind == "kernel" else value)

    return run


@pytest.fixture(scope="session")
def vqgan(golden):
    return golden("field_vqgan")


@pytest.fixture
def patch_discriminator(vqgan, assign):
    """`patch_discriminator()`: with the weights of the file."""

    def make():
        model = PatchDiscriminator((32, 32, 3), filters=8, num_layers=3)
        places = {"conv_0": 0, "conv_1": 2, "norm_1": 3, "conv_2": 5, "norm_2": 6, "conv_3": 8}
        for layer, place in {**places, "norm_3": 9, "logits": 11}.items():
            assign(model.get_layer(layer), vqgan, f"main.{place}")
        return model

    return make
