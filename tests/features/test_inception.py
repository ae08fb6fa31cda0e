import functools
import hashlib
import importlib.util
import sys
import types

import keras
import numpy as np
import pytest
import torch

from keras_vqvae2.features import inception, inception_2015
from keras_vqvae2.features.inception import inception_network


@pytest.fixture(scope="module")
def reference_class():
    """torch-fidelity's network, without the package's other networks and what they import."""
    spec = importlib.util.find_spec("torch_fidelity")
    if spec is None:
        pytest.skip("needs `pip install --no-deps torch-fidelity`")
    package = types.ModuleType("torch_fidelity")
    package.__path__ = spec.submodule_search_locations
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch_fidelity", package)
        module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
        yield module.FeatureExtractorInceptionV3
        for name in [name for name in sys.modules if name.startswith("torch_fidelity.")]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def reference(reference_class, tmp_path_factory):
    """`(network, path)`: the network with random weights and statistics, and their file."""
    path = tmp_path_factory.mktemp("inception") / "weights.pth"

    class Unloaded(reference_class):
        def load_state_dict(self, state):
            return super().load_state_dict(state, strict=bool(state))

    torch.save({}, path)
    outputs = ["2048", "logits_unbiased", "logits"]
    network = Unloaded("inception", outputs, feature_extractor_weights_path=path)
    state, generator = network.state_dict(), torch.Generator().manual_seed(0)
    for key, value in state.items():
        if key.endswith(("running_var", "bn.weight")):
            value.uniform_(0.5, 1.5, generator=generator)
        elif key.endswith(("running_mean", "bn.bias", "fc.bias")):
            value.normal_(0, 0.1, generator=generator)
        elif value.ndim > 1:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
    torch.save(state, path)
    return reference_class("inception", outputs, feature_extractor_weights_path=path), path


@pytest.fixture(scope="module")
def loaded(reference):
    """The extractor with the same weights, and its last layer."""
    built = []

    def network():
        built.append(inception_network())
        return built[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "inception_network", network)
        extractor = inception_2015(reference[1])
    return extractor, built[0][1]


def test_equals_torch_fidelity(reference, loaded, rng):
    extractor, logits = loaded
    images = rng.integers(256, size=(2, 75, 80, 3), dtype="uint8")
    with torch.no_grad():
        outputs = reference[0](torch.from_numpy(images.transpose(0, 3, 1, 2)))
    features, unbiased, biased = (output.numpy() for output in outputs)
    ours = extractor(images)
    assert features.shape == (2, 2048) and features.std() > 1
    np.testing.assert_allclose(ours, features, atol=1e-4)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(logits(ours)), biased, atol=1e-4)
    assert np.abs(biased - unbiased).max() > 0.1
    exponentials = np.exp(unbiased)
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(extractor.classify(ours), probabilities, rtol=1e-4, atol=1e-6)


def test_only_the_published_weights_make_an_fid(reference, loaded, tmp_path, monkeypatch):
    path = reference[1]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded[0].name == f"Inception-2015-12-05-{digest[:8]}"
    assert loaded[0].distance_name.startswith("FD-")
    # A server that has the file, and a cache that is empty.
    cache = functools.partial(keras.utils.get_file, cache_dir=tmp_path)
    monkeypatch.setattr(keras.utils, "get_file", cache)
    monkeypatch.setattr(inception, "load_torch_weights", lambda layers, path, name: None)
    monkeypatch.setattr(inception, "inception_network", lambda: (keras.Sequential(), None))
    monkeypatch.setattr(inception, "_URL", path.as_uri())
    with pytest.raises(OSError, match="Expected to download file:.*pass the path"):
        inception_2015()
    monkeypatch.setattr(inception, "_SHA256", digest)
    assert inception_2015().distance_name == "FID"


def test_no_network(tmp_path, monkeypatch):
    cache = functools.partial(keras.utils.get_file, cache_dir=tmp_path)
    monkeypatch.setattr(keras.utils, "get_file", cache)
    monkeypatch.setattr(inception, "_URL", "https://nowhere.invalid/weights-6726825d.pth")
    with pytest.raises(OSError, match="Without a network, pass the path of that file"):
        inception_2015()


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        inception_2015(tmp_path / "absent.pth")
