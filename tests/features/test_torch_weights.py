import hashlib

import keras
import numpy as np
import pytest
import torch

from keras_vqvae2.features.torch_weights import load_torch_weights, name_with_weights


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self._stem = torch.nn.Conv2d(3, 4, (3, 5), padding="same")
        self._blocks = torch.nn.ModuleList([torch.nn.Conv2d(4, 4, 3, padding=1, groups=4)])
        self.bn = torch.nn.BatchNorm2d(4)
        self.fc = torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.bn(self._blocks[0](self._stem(x))).mean(dim=(2, 3)))


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    network = Network().eval()
    network.bn.running_mean.normal_()
    network.bn.running_var.uniform_(0.5, 2)
    torch.nn.init.normal_(network.bn.weight)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    return network, tmp_path / "weights.pth"


@pytest.fixture
def model():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, (3, 5), padding="same", name="stem"),
            keras.layers.DepthwiseConv2D(3, padding="same", name="blocks_0"),
            keras.layers.BatchNormalization(epsilon=1e-5, name="bn"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, name="fc"),
        ]
    )


def test_layers_compute_what_the_modules_do(saved, model, rng):
    network, path = saved
    load_torch_weights(model.layers, path, "a network")
    images = rng.normal(size=(2, 8, 8, 3)).astype("float32")
    with torch.no_grad():
        expected = network(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(model.predict_on_batch(images), expected, rtol=1e-4, atol=1e-5)


def test_weights_of_another_network_are_named_and_none_is_assigned(saved, model):
    network, path = saved
    state = network.state_dict()
    state["fc.weight"] = state["fc.weight"][:, :3]
    state["aux.fc.bias"] = state.pop("fc.bias")
    del state["_stem.weight"]
    torch.save(state, path)
    before = model.get_weights()
    with pytest.raises(ValueError, match="Expected the weights of a network. Received") as error:
        load_torch_weights(model.layers, path, "a network")
    for part in (
        str(path),
        "2 missing: stem.weight, fc.bias",
        "1 unknown: aux_fc.bias",
        "1 of other shapes: fc.weight (2, 3) for (2, 4)",
    ):
        assert part in str(error.value)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    for value in (torch.zeros(2), {3: torch.zeros(2)}, {"fc": "bias"}):
        torch.save(value, path)
        with pytest.raises(
            ValueError, match="10 missing: stem.weight, stem.bias, blocks_0.weight …"
        ):
            load_torch_weights(model.layers, path, "a network")


def test_name_with_weights(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert name_with_weights("Net", path, digest) == "Net"
    assert name_with_weights("Net", path, "0" * 64) == f"Net-{digest[:8]}"
