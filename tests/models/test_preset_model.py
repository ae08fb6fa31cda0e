import json
import sys
import types

import keras
import numpy as np
import pytest

from keras_vqvae2 import VQVAE2
from keras_vqvae2.models import preset_files, preset_registry
from keras_vqvae2.models.preset_model import PresetModel
from keras_vqvae2.models.preset_registry import register_presets


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class TwoHeads(PresetModel):
    """A normalised input, a frozen layer and two outputs."""

    def __init__(self, units=4, dtype=None, **kwargs):
        hidden = keras.layers.Dense(units, dtype=dtype)
        frozen = keras.layers.Dense(units, trainable=False, dtype=dtype)
        x = keras.Input((3,))  # (B, 3)
        h = keras.layers.BatchNormalization(dtype=dtype)(frozen(hidden(x)))  # (B, units)
        outputs = {"top": keras.layers.Dropout(0.5, dtype=dtype)(h), "bottom": h}
        super().__init__(inputs=x, outputs=outputs, dtype=dtype, **kwargs)
        self.units = units
        self.hidden = hidden
        self.frozen = frozen
        self.gradient_norm_tracker = keras.metrics.Mean(name="gradient_norm")
        self.skipped_steps_tracker = keras.metrics.Sum(name="skipped_steps")

    def get_config(self):
        return {**super().get_config(), "units": self.units}

    def compute_loss(self, x, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(keras.ops.square(y_pred["top"]))


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class OneHead(PresetModel):
    def __init__(self, units=4, dtype=None, **kwargs):
        x = keras.Input((3,))  # (B, 3)
        y = keras.layers.Dense(units, dtype=dtype)(x)  # (B, units)
        super().__init__(inputs=x, outputs=y, dtype=dtype, **kwargs)
        self.units = units

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Unregistered(OneHead):
    pass


PRESETS = {
    "two_heads_small": {"description": "Small.", "parameters": 40, "config": {"units": 4}},
    "two_heads_bundled": {"description": "With weights.", "parameters": 40},
}
X = np.arange(12, dtype="float32").reshape(4, 3) / 12  # (B, 3)


@pytest.fixture(autouse=True)
def presets(monkeypatch, tmp_path):
    monkeypatch.setattr(preset_registry, "_REGISTERED", {})
    monkeypatch.setattr(preset_files, "BUNDLED_PRESETS", tmp_path / "presets")
    register_presets(TwoHeads, PRESETS)
    register_presets(OneHead, {"one_head": {"description": "", "parameters": 16, "config": {}}})


def assert_same_weights(a, b):
    assert len(a.weights) == len(b.weights) > 0
    for v, w in zip(a.get_weights(), b.get_weights()):
        np.testing.assert_array_equal(v, w)


def randomized(model):
    """Makes every weight differ from what a constructor gives."""
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    return model


def test_save_and_load_round_trip(tmp_path):
    model = randomized(TwoHeads(units=5, name="mine"))
    model.save_to_preset(tmp_path / "a" / "preset")
    loaded = TwoHeads.from_preset(str(tmp_path / "a" / "preset"))

    assert type(loaded) is TwoHeads
    assert loaded.get_config() == model.get_config()
    assert_same_weights(loaded, model)
    np.testing.assert_allclose(
        loaded.predict(X, verbose=0)["top"], model.predict(X, verbose=0)["top"]
    )
    # Nothing but the preset is left behind.
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["preset"]


def test_trainable_is_kept_and_does_not_unfreeze(tmp_path):
    TwoHeads().save_to_preset(tmp_path / "preset")
    loaded = TwoHeads.from_preset(tmp_path / "preset")
    assert loaded.hidden.trainable
    assert not loaded.frozen.trainable
    assert TwoHeads.from_preset(tmp_path / "preset", trainable=False).trainable_weights == []


def test_layers_that_were_frozen_by_themselves_are_so_again(tmp_path):
    model = VQVAE2((16, 16, 3), hidden_units=8, residual_units=4)
    fingerprint, count = model.fingerprint(), len(model.trainable_variables)
    inner = model.get_layer("pixel_decoder")._layers[0]
    for layer in [*model.layers, inner]:
        layer.trainable = not layer.name.startswith(("encoder", "to_vectors", "quantizer", "cond"))
    inner.trainable = False
    model.compile(keras.optimizers.Adam(1e-2))
    images = np.random.default_rng(0).uniform(size=(4, 16, 16, 3))
    model.fit(images, verbose=0)
    model.save(tmp_path / "run.keras")
    model.save_to_preset(tmp_path / "preset")
    again = keras.saving.load_model(tmp_path / "run.keras")
    for loaded in (again, VQVAE2.from_preset(tmp_path / "preset")):
        paths = [v.path for v in model.trainable_variables]
        assert [v.path for v in loaded.trainable_variables] == paths
        assert 0 < len(paths) < count
    assert int(again.optimizer.iterations) == 1
    again.fit(images, verbose=0)
    assert again.fingerprint() == fingerprint
    with pytest.raises(ValueError, match="list of paths. Received: frozen_layers='all'"):
        VQVAE2.from_config({**model.get_config(), "frozen_layers": "all"})


def test_fit_then_save_leaves_the_optimizer_out(tmp_path):
    model = TwoHeads()
    model.compile("adam")
    model.fit(X, verbose=0)
    model.save_to_preset(tmp_path / "preset")

    config = json.loads((tmp_path / "preset" / "config.json").read_text())
    assert set(config) == {"module", "class_name", "config", "registered_name"}
    shapes = preset_files._stored_shapes([tmp_path / "preset" / "model.weights.h5"])
    assert shapes.total() == len(model.weights) == 8
    assert_same_weights(TwoHeads.from_preset(tmp_path / "preset"), model)
    assert model.compiled  # saving leaves the model as it was


@pytest.mark.parametrize("saved", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float32", keras.DTypePolicy("bfloat16")])
def test_dtype_overrides_the_saved_policy(tmp_path, saved, dtype):
    model = randomized(TwoHeads(dtype=saved))
    model.save_to_preset(tmp_path / "preset")
    assert TwoHeads.from_preset(tmp_path / "preset").dtype_policy.name == saved

    loaded = TwoHeads.from_preset(tmp_path / "preset", dtype=dtype)
    policy = keras.dtype_policies.get(dtype)
    assert loaded.dtype_policy == loaded.hidden.dtype_policy == policy
    expected = keras.ops.cast(model.get_weights()[0], policy.variable_dtype)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(keras.ops.cast(loaded.weights[0], "float32")),
        keras.ops.convert_to_numpy(keras.ops.cast(expected, "float32")),
    )


def test_base_class_resolves_the_class(tmp_path):
    OneHead().save_to_preset(tmp_path / "preset")
    assert type(PresetModel.from_preset(tmp_path / "preset")) is OneHead
    assert type(PresetModel.from_preset("one_head", load_weights=False)) is OneHead


def test_another_class_of_ours_is_an_error(tmp_path):
    OneHead().save_to_preset(tmp_path / "preset")
    with pytest.raises(ValueError, match=r"Expected a preset of TwoHeads.*OneHead\.from_preset"):
        TwoHeads.from_preset(tmp_path / "preset")


def test_presets_lists_a_class_and_its_subclasses():
    assert set(TwoHeads.presets) == set(PRESETS)
    assert set(PresetModel.presets) == {*PRESETS, "one_head"}
    assert TwoHeads.presets["two_heads_small"] == {
        **PRESETS["two_heads_small"],
        "has_weights": False,
    }
    assert TwoHeads.presets["two_heads_bundled"]["has_weights"]
    TwoHeads.presets["two_heads_small"]["config"]["units"] = 99
    assert TwoHeads.presets["two_heads_small"]["config"] == {"units": 4}


def test_architecture_only_preset():
    model = TwoHeads.from_preset("two_heads_small", load_weights=False, dtype="bfloat16", name="n")
    assert (model.units, model.name, model.dtype_policy.name) == (4, "n", "bfloat16")
    assert TwoHeads.from_preset("two_heads_small", load_weights=False, units=2).units == 2
    with pytest.raises(ValueError, match="No weights have been published.*load_weights=False"):
        TwoHeads.from_preset("two_heads_small")


def test_bundled_preset(tmp_path):
    model = randomized(TwoHeads())
    model.save_to_preset(tmp_path / "presets" / "two_heads_bundled")
    assert_same_weights(TwoHeads.from_preset("two_heads_bundled"), model)


def test_unknown_name_lists_near_names_and_all_names():
    with pytest.raises(ValueError) as error:
        TwoHeads.from_preset("two_heads_smal")
    message = str(error.value)
    assert "Near names: ['two_heads_small'" in message
    assert "All names: ['two_heads_bundled', 'two_heads_small']" in message
    assert message.endswith("Received: preset='two_heads_smal'")


def test_unknown_constructor_argument_is_an_error():
    with pytest.raises(TypeError, match="dtpye"):
        OneHead.from_preset("one_head", load_weights=False, dtpye="bfloat16")


@pytest.mark.parametrize(
    ("module", "function", "preset", "handle"),
    [
        ("huggingface_hub", "snapshot_download", "hf://me/repo", "me/repo"),
        ("kagglehub", "model_download", "kaggle://me/m/keras/v/2", "me/m/keras/v/2"),
    ],
)
def test_hubs(tmp_path, monkeypatch, module, function, preset, handle):
    model = randomized(OneHead())
    model.save_to_preset(tmp_path / "preset")
    hub = types.SimpleNamespace(**{function: {handle: str(tmp_path / "preset")}.__getitem__})
    monkeypatch.setitem(sys.modules, module, hub)
    assert_same_weights(OneHead.from_preset(preset), model)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"pip install {module}"):
        OneHead.from_preset(preset)


def test_load_weights_false_needs_no_weights_file(tmp_path):
    OneHead(units=7).save_to_preset(tmp_path / "preset")
    (tmp_path / "preset" / "model.weights.h5").unlink()
    assert OneHead.from_preset(tmp_path / "preset", load_weights=False).units == 7
    with pytest.raises(FileNotFoundError, match=r"model\.weights\.h5 or model\.weights\.json"):
        OneHead.from_preset(tmp_path / "preset")


def test_weights_outside_the_graph_are_not_lost_silently(tmp_path):
    model = OneHead()
    model.extra = keras.layers.Dense(2)
    model.extra.build((None, 3))
    with pytest.raises(ValueError, match="outside="):
        model.save_to_preset(tmp_path / "preset")


def test_unregistered_class_is_refused_on_saving(tmp_path):
    with pytest.raises(ValueError, match="register_keras_serializable.*Unregistered"):
        Unregistered().save_to_preset(tmp_path / "preset")
    assert list(tmp_path.iterdir()) == []


def test_keras_hub_can_read_it(tmp_path):
    """KerasHub's reader, and the check of `keras_hub.upload_preset`."""
    pytest.importorskip("keras_hub")
    from keras_hub.src.utils import preset_utils

    model = randomized(TwoHeads(units=5))
    model.save_to_preset(tmp_path / "preset")
    preset_utils._validate_backbone(str(tmp_path / "preset"))
    loader = preset_utils.get_preset_loader(str(tmp_path / "preset"))
    assert loader.check_backbone_class() is TwoHeads
    assert_same_weights(loader.load_backbone(TwoHeads, load_weights=True), model)
