import errno
import json
import os
import shutil
import stat
import time
import types
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from keras_vqvae2.models import preset_files
from keras_vqvae2.models.preset_files import (
    load_weights,
    locate,
    read_config,
    verified_weights,
    write,
)
from keras_vqvae2.models.preset_model import PresetModel


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class Stack(PresetModel):
    def __init__(self, units=(4, 4), dtype=None, **kwargs):
        x = inputs = keras.Input((4,))  # (B, 4)
        for n in units:
            x = keras.layers.Dense(n, dtype=dtype)(x)  # (B, n)
        super().__init__(inputs=inputs, outputs=x, dtype=dtype, **kwargs)
        self.units = tuple(units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class Nested(PresetModel):
    """A model whose only weights are two lists deep."""

    def __init__(self, dtype=None, **kwargs):
        class Parts(keras.layers.Layer):
            def __init__(self):
                super().__init__(name="parts")
                self.parts = [[keras.layers.Dense(2)]]

            def build(self, shape):
                self.parts[0][0].build(shape)

            def call(self, x):
                return self.parts[0][0](x)

        x = keras.Input((4,))  # (B, 4)
        super().__init__(inputs=x, outputs=Parts()(x), dtype=dtype, **kwargs)


@pytest.fixture
def model():
    return Stack()


@pytest.fixture
def directory(model, tmp_path):
    write(model, tmp_path / "preset", max_shard_size=10)
    return tmp_path / "preset"


@pytest.fixture
def sharded(model, tmp_path):
    write(
        model, tmp_path / "sharded", max_shard_size=100 / 1024**3
    )  # 100 bytes, 20 weights a layer
    return tmp_path / "sharded"


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def contents(directory):
    return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


# === Writing ===


def test_what_is_written(directory, model):
    assert set(contents(directory)) == {"config.json", "metadata.json", "model.weights.h5"}
    config = json.loads((directory / "config.json").read_text())
    assert config["registered_name"] == "keras_vqvae2>Stack"
    assert config["config"]["units"] == [4, 4]
    metadata = json.loads((directory / "metadata.json").read_text())
    assert metadata["keras_version"] == keras.__version__
    assert metadata["parameter_count"] == model.count_params() == 40
    assert list(metadata["sha256"]) == ["config.json", "model.weights.h5"]
    assert set(metadata) == {
        "keras_version",
        "keras_vqvae2_version",
        "parameter_count",
        "date_saved",
        "sha256",
    }


def test_sharded_weights_round_trip(sharded, model):
    shards = {"model_00000.weights.h5", "model_00001.weights.h5"}
    assert set(contents(sharded)) == {"config.json", "metadata.json", "model.weights.json", *shards}
    assert set(json.loads((sharded / "metadata.json").read_text())["sha256"]) == {
        "config.json",
        "model.weights.json",
        *shards,
    }
    loaded = Stack.from_preset(sharded)
    for v, w in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(v, w)


def test_max_shard_size_none_writes_one_file(model, tmp_path):
    write(model, tmp_path / "preset", max_shard_size=None)
    assert "model.weights.h5" in contents(tmp_path / "preset")


def test_replaces_a_preset_and_leaves_nothing_of_it(sharded, tmp_path):
    Stack(units=(3,)).save_to_preset(sharded)
    assert set(contents(sharded)) == {"config.json", "metadata.json", "model.weights.h5"}
    assert Stack.from_preset(sharded).units == (3,)
    assert os.listdir(tmp_path) == ["sharded"]


def test_new_directory_has_ordinary_permissions(directory, tmp_path):
    (tmp_path / "ordinary").mkdir()
    assert stat.S_IMODE(directory.stat().st_mode) == stat.S_IMODE(
        (tmp_path / "ordinary").stat().st_mode
    )


def test_an_empty_directory_is_filled(model, tmp_path):
    write(model, tmp_path, max_shard_size=10)
    assert "config.json" in contents(tmp_path)


@pytest.mark.parametrize(
    "names", [["thesis.txt"], ["config.json", "metadata.json", "README.md"], ["config.json"]]
)
def test_other_directories_are_never_replaced(model, tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("precious")
    with pytest.raises(ValueError, match=f"holds a preset and nothing else.*{names[-1]}"):
        write(model, tmp_path, max_shard_size=10)
    assert set(contents(tmp_path)) == set(names)


def test_a_file_is_never_replaced(model, tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ValueError, match="Received: directory="):
        write(model, tmp_path / "file", max_shard_size=10)


def test_further_metadata_is_kept_beside_its_own(model, tmp_path):
    model.save_to_preset(tmp_path / "noted", metadata={"recipe": "mine.py"})
    metadata = json.loads((tmp_path / "noted" / "metadata.json").read_text())
    assert metadata["recipe"] == "mine.py" and metadata["parameter_count"] == model.count_params()
    with pytest.raises(ValueError, match=r"names other than .*Received: \['sha256'\]"):
        model.save_to_preset(tmp_path / "other", metadata={"sha256": {}})
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("failing", ["write_text", "rename"])
def test_a_failure_leaves_the_old_preset(directory, tmp_path, monkeypatch, failing):
    before = contents(directory)
    rename = os.rename

    def full_disk(source, *args, **kwargs):
        if failing == "rename" and Path(source).name != "new":
            return rename(source, *args, **kwargs)
        raise OSError("No space left on device")

    monkeypatch.setattr(*((Path, failing) if failing == "write_text" else (os, failing)), full_disk)
    with pytest.raises(OSError, match="No space left"):
        Stack(units=(3,)).save_to_preset(directory)
    monkeypatch.undo()
    assert contents(directory) == before
    assert os.listdir(tmp_path) == ["preset"]


@pytest.mark.parametrize("max_shard_size", [10, 100 / 1024**3])
def test_a_full_disk_is_one_sentence(directory, model, monkeypatch, max_shard_size):
    before = contents(directory)

    def full(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=r"Cannot write the preset .*preset: No space left") as error:
        model.save_to_preset(directory, max_shard_size=max_shard_size)
    assert error.value.errno == errno.ENOSPC
    assert contents(directory) == before and os.listdir(directory.parent) == ["preset"]


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini", "._config.json"])
def test_what_file_managers_leave_does_not_count(directory, tmp_path, name):
    (directory / name).touch()
    Stack(units=(3,)).save_to_preset(directory)
    assert Stack.from_preset(directory).units == (3,)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / name).touch()
    Stack().save_to_preset(tmp_path / "new")


def test_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Stack().save_to_preset("~/models/stack")
    assert os.listdir(tmp_path) == ["models"]
    assert Stack.from_preset("~/models/stack").units == (4, 4)


def test_a_file_that_arrives_while_saving_survives(directory, monkeypatch):
    sha256 = preset_files._sha256

    def visitor(path):
        (directory / "thesis.txt").write_text("precious")
        return sha256(path)

    monkeypatch.setattr(preset_files, "_sha256", visitor)
    with pytest.raises(ValueError, match="nothing else"):
        Stack().save_to_preset(directory)
    assert (directory / "thesis.txt").read_text() == "precious"


# === Reading ===


@pytest.mark.parametrize("name", ["config.json", "metadata.json", "model.weights.h5"])
def test_missing_file(directory, name):
    (directory / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"Expected .*{name}.*Received: .*\['"):
        Stack.from_preset(directory)


def test_missing_shard(sharded):
    (sharded / "model_00001.weights.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"Expected .*model_00001\.weights\.h5"):
        Stack.from_preset(sharded)


@pytest.mark.parametrize("name", ["config.json", "metadata.json"])
@pytest.mark.parametrize("text", ["", '{"a": ', "[]", "null"])
def test_invalid_json_names_the_file(directory, name, text):
    (directory / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name}.*Received:"):
        Stack.from_preset(directory)


def test_hostile_config_names_the_file(directory):
    edit(directory / "config.json", class_name="__lambda__")
    with pytest.raises(ValueError, match="config.json.*Received: class_name='__lambda__'"):
        read_config(directory)


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_checksum_mismatch(directory, damage):
    path = directory / "model.weights.h5"
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-1] ^= 1
    path.write_bytes(data if damage == "flip" else data[:-100])
    with pytest.raises(
        ValueError, match=r"model\.weights\.h5 is damaged.*expected sha256=.*Received"
    ):
        Stack.from_preset(directory)


def test_checksums_that_leave_a_file_out(directory):
    edit(directory / "metadata.json", sha256={"other": "0"})
    with pytest.raises(ValueError, match="expected sha256=None"):
        Stack.from_preset(directory)


def test_the_config_has_a_checksum(directory):
    path = directory / "config.json"
    path.write_text(path.read_text().replace("true", "false"))
    with pytest.raises(ValueError, match=r"config\.json is damaged.*expected sha256=.*Received"):
        Stack.from_preset(directory)
    # Presets that version 0.1 wrote have none.
    metadata = json.loads((directory / "metadata.json").read_text())
    del metadata["sha256"]["config.json"]
    (directory / "metadata.json").write_text(json.dumps(metadata))
    assert not Stack.from_preset(directory).trainable


@pytest.mark.parametrize("data", [b"", b"not HDF5 at all", None])
def test_truncated_file_without_checksum(directory, data):
    path = directory / "model.weights.h5"
    path.write_bytes(path.read_bytes()[:5000] if data is None else data)
    edit(directory / "metadata.json", sha256={})
    with pytest.raises(ValueError, match=r"model\.weights\.h5 to be a complete HDF5 file"):
        Stack.from_preset(directory)


@pytest.mark.parametrize("units", [(5, 4), (4,), (4, 4, 4), ()])
def test_foreign_weights(directory, tmp_path, units):
    """Other shapes, too many, too few: `load_weights` of Keras accepts (4,) and ()."""
    Stack(units=units).save_to_preset(tmp_path / "other")
    weights = verified_weights(directory)
    with pytest.raises(ValueError, match="do not fit this config of Stack.*Expected .*Received"):
        load_weights(Stack(units=units), weights)
    with pytest.raises(ValueError, match="do not fit this config of Stack"):
        Stack.from_preset(directory, units=units)


def test_weights_of_the_right_shapes_in_the_wrong_places(directory, tmp_path):
    with h5py.File(directory / "model.weights.h5", "r+") as file:
        file.move("layers/dense", "layers/conv")
    edit(directory / "metadata.json", sha256={})
    with pytest.raises(ValueError, match="do not fit this config of Stack"):
        Stack.from_preset(directory)


def test_layers_that_keras_would_skip_with_a_warning(tmp_path):
    model = Nested()
    model.save_to_preset(tmp_path / "preset")
    loaded = Nested.from_preset(tmp_path / "preset")
    np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])
    with h5py.File(tmp_path / "preset" / "model.weights.h5", "r+") as file:
        group = "layers/parts/parts"
        file.move(group, "elsewhere")
    edit(tmp_path / "preset" / "metadata.json", sha256={})
    with pytest.raises(ValueError, match="do not fit this config of Nested.*Skipping nested"):
        Nested.from_preset(tmp_path / "preset")


def test_weights_of_a_compiled_model_load_without_the_optimizer(directory):
    other = Stack()
    other.compile("adam")
    other.optimizer.build(other.trainable_variables)
    other.save_weights(directory / "model.weights.h5")
    edit(directory / "metadata.json", sha256={})
    np.testing.assert_array_equal(
        Stack.from_preset(directory).get_weights()[0], other.get_weights()[0]
    )


@pytest.mark.parametrize(
    "shard", ["../../x", "/etc/passwd", "..", "", "sub/model_00000.weights.h5", 3, ["../x"], None]
)
def test_shards_must_lie_beside_their_index(sharded, shard):
    edit(sharded / "model.weights.json", weight_map={"/layers/dense/vars": shard})
    edit(sharded / "metadata.json", sha256={})
    with pytest.raises(ValueError, match="files beside it.*Received:"):
        Stack.from_preset(sharded)


def test_index_without_a_map(sharded):
    (sharded / "model.weights.json").write_text('{"weight_map": []}')
    with pytest.raises(ValueError, match="files beside it"):
        verified_weights(sharded)


def test_links_out_of_the_weights_file_are_not_followed(directory, tmp_path):
    with h5py.File(directory / "model.weights.h5", "r+") as file:
        file.move("layers/dense/vars/0", "layers/dense_1/vars/stolen")
        file["layers/dense/vars/0"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "0")
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["0"] = np.zeros((4, 4), "float32")
    edit(directory / "metadata.json", sha256={})
    with pytest.raises(ValueError, match="vars/0 is a link"):
        Stack.from_preset(directory)


def link(file, dataset):
    file.move("layers/dense/vars/0", "elsewhere")
    file["layers/dense/vars/0"] = h5py.SoftLink("/elsewhere")


def virtual(file, dataset):
    layout = h5py.VirtualLayout((4, 4), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "0", (4, 4))
    del file["layers/dense/vars/0"]
    file.create_virtual_dataset("layers/dense/vars/0", layout)


def replacement(*values, **options):
    def change(file, dataset):
        del file["layers/dense/vars/0"]
        file.create_dataset("layers/dense/vars/0", *values, **options)

    return change


ONES = np.ones((4, 4), "float32")
HOSTILE_FILES = {
    "soft_link": link,
    "virtual": virtual,
    "in_another_file": replacement((4, 4), "f4", external=[("other.bin", 0, 64)]),
    "not_stored": replacement((4, 4), "f4"),
    "huge": replacement((10**6, 10**6), "f4"),
    "huge_chunks": replacement((4, 4), "f4", data=ONES, chunks=(2**9, 2**9), maxshape=(None,) * 2),
    "compressed": replacement(data=ONES, compression="gzip"),
    "checksummed": replacement(data=ONES, fletcher32=True),
    "text": replacement(data=[["a"] * 4] * 4, dtype=h5py.string_dtype()),
    "records": replacement((4, 4), [("a", "f4")], data=np.zeros((4, 4), [("a", "f4")])),
    "nothing": replacement(data=h5py.Empty("f4")),
    "nan": lambda file, dataset: dataset.write_direct(np.full((4, 4), np.nan, "float32")),
    "infinity": lambda file, dataset: dataset.write_direct(np.full((4, 4), np.inf, "float32")),
}


@pytest.mark.parametrize("name", HOSTILE_FILES)
def test_weights_are_plain_finite_numbers_in_one_piece(name, directory):
    with h5py.File(directory / "model.weights.h5", "r+") as file:
        HOSTILE_FILES[name](file, file["layers/dense/vars/0"])
    edit(directory / "metadata.json", sha256={})
    with pytest.raises(ValueError, match="a complete HDF5 file of weights"):
        Stack.from_preset(directory)


def test_bfloat16_is_finite_too(tmp_path):
    model = Stack(dtype="bfloat16")
    model.save_to_preset(tmp_path / "preset")
    loaded = Stack.from_preset(tmp_path / "preset")
    for v, w in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(v, w)
    model.weights[0].assign(np.full((4, 4), np.nan))
    model.save_to_preset(tmp_path / "preset")
    with pytest.raises(ValueError, match="vars/0 is not finite"):
        Stack.from_preset(tmp_path / "preset")


# === Configs ===


@pytest.mark.parametrize(
    "config, message",
    [
        ({"units": [4, 10**9]}, "no size above 1,048,576"),
        ({"units": [4, 10**6]}, "do not fit"),
        ({"units": [4] * 20_000}, "at most 1,024 sizes"),
        ({"units": [4, 4, -1]}, "Received"),
        ({"units": "four"}, "Received"),
        ({"units": None}, "Received"),
        ({"units": {"a": [1]}}, "Received"),
        ({"dtype": "float99"}, "Cannot convert"),
        ({"more": 1}, "can be built from. Received: TypeError"),
        ({"units": [4, float("nan")]}, "the number NaN"),
        ({"units": [4, float("inf")]}, "the number Infinity"),
        ({"name": "a/b"}, "Received"),
    ],
)
def test_configs_are_tried_before_anything_is_allocated(config, message, directory):
    """The checksum of the config is whatever somebody wrote."""
    path = directory / "config.json"
    whole = json.loads(path.read_text())
    whole["config"] |= config
    path.write_text(json.dumps(whole))
    edit(directory / "metadata.json", sha256={})
    start = time.process_time()
    with pytest.raises(ValueError, match=message) as error:
        Stack.from_preset(directory)
    assert time.process_time() - start < 10 and len(str(error.value)) < 1500


@pytest.mark.parametrize(
    "units, message",
    [
        ([4, 10**12], "no size above"),
        ([4, 10**6, 10**6], r"parameters, which the memory .*Stack\(\.\.\.\) itself.* 1,000,00"),
        ([4] * 70_000, "at most 65,536 sizes"),
    ],
)
def test_random_weights_fit_the_memory(units, message, directory):
    path = directory / "config.json"
    whole = json.loads(path.read_text())
    whole["config"] |= {"units": units}
    path.write_text(json.dumps(whole))
    edit(directory / "metadata.json", sha256={})
    start = time.process_time()
    with pytest.raises(ValueError, match=message):
        Stack.from_preset(directory, load_weights=False)
    assert time.process_time() - start < 10


def test_a_rehearsal_leaves_names_and_values_alone(directory):
    keras.utils.clear_session()
    first = Stack.from_preset(directory).layers[1].name
    keras.utils.clear_session()
    Stack()
    assert Stack.from_preset(directory).layers[1].name == "dense_2" and first == "dense"


# === Addresses ===


@pytest.mark.parametrize(
    "preset",
    ["hf://repo", "hf://a/b/c", "hf://../b", "kaggle://a/b", "kaggle://a/b/jax/c", "s3://a/b"],
)
def test_malformed_addresses(preset):
    with pytest.raises(ValueError, match="Expected 'hf://.*Received: preset="):
        locate(preset)


def test_folders_with_colons_are_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs("C:/models")
    assert locate("C://models") == Path("C:/models")
    os.makedirs("hf:/a/b")
    assert locate("hf") is None


def test_locate_directory(tmp_path):
    assert locate(str(tmp_path)) == tmp_path
    assert locate(str(tmp_path / "nothing")) is None
