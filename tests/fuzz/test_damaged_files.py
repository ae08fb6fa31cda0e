"""Files damaged at random: what was in them, or one clear error, soon and in little memory.

The small budget runs with every test. The large one is marked slow and runs in a process of its
own, whose end a crash of the interpreter would show:

    make test-slow PYTEST_ARGS=tests/fuzz
"""

import hashlib
import io
import json
import multiprocessing
import resource
import struct
import time
import zipfile

import keras
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from keras_vqvae2 import VQVAE2
from keras_vqvae2.converters.checkpoint_files import read_state_dict
from keras_vqvae2.models.preset_model import PresetModel

FEW, MANY = 20, 1000
SECONDS, MEGABYTES = 10, 1000
ARRAYS = {
    "enc.weight": np.arange(24, dtype="float32").reshape(2, 3, 4),
    "enc.bias": np.ones(5, "float16"),
    "steps": np.array([7]),
}


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class Fuzzed(PresetModel):
    """As small as a model can be."""

    def __init__(self, units=(3, 2), rate=0.5, dtype=None, **kwargs):
        x = inputs = keras.Input((4,))  # (B, 4)
        for n in units:
            x = keras.layers.Dense(n, dtype=dtype)(x)  # (B, n)
        x = keras.layers.Dropout(rate, seed=0)(x)
        super().__init__(inputs=inputs, outputs=x, dtype=dtype, **kwargs)
        self.units, self.rate = tuple(units), rate

    def get_config(self):
        return {**super().get_config(), "units": self.units, "rate": self.rate}


# === Damage ===

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**15, 10**6, 2**31, 10**9, 2**63, 10**30]),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(st.sampled_from(["class_name", "config", "a"]), st.integers(), max_size=2),
)


@st.composite
def damaged(draw, content):
    """Bytes with one to four of them, or of their ranges, changed."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        stop = start + draw(st.sampled_from([1, 1, 1, 2, 4, 8, 64, 1024]))
        kind = draw(st.sampled_from(["set", "set", "remove", "insert", "copy", "cut"]))
        if kind == "set":
            size = len(content[start:stop])
            content[start:stop] = draw(
                st.one_of(
                    st.binary(min_size=size, max_size=size),
                    st.sampled_from([bytes(size), b"\xff" * size]),
                )
            )
        elif kind == "remove":
            del content[start:stop]
        elif kind == "insert":
            content[start:start] = draw(st.binary(max_size=8))
        elif kind == "copy":
            content[start:start] = content[: stop - start]
        else:
            del content[start:]
    return bytes(content)


@st.composite
def changed(draw, value):
    """JSON with one to three of its values changed, left out or nested."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        node, keys = value, None
        while isinstance(node, (dict, list)) and node:
            keys = sorted(node) if isinstance(node, dict) else range(len(node))
            parent, key = node, draw(st.sampled_from(keys))
            node = node[key]
            if draw(st.integers(0, 2)) == 0:
                break
        if keys is None:
            return value
        if draw(st.integers(0, 5)) == 0:
            del parent[key]
        else:
            parent[key] = draw(VALUES)
    return value


def bounded(read):
    """Runs a reader, and returns what it read, or None after one clear error."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        return read()
    except (ValueError, OSError) as error:
        assert 10 < len(str(error)) < 3000
        return None
    finally:
        assert time.monotonic() - start < SECONDS
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert (peak - before) / 1024 < MEGABYTES


def same(arrays, expected):
    assert arrays.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(arrays[key], value)


# === Targets ===


def fuzz_torch(folder, run):
    content, path = io.BytesIO(), folder / "a.pt"
    torch.save({"model": {k: torch.tensor(v) for k, v in ARRAYS.items()}, "epoch": 3}, content)
    legacy = io.BytesIO()
    torch.save(
        {k: torch.tensor(v) for k, v in ARRAYS.items()},
        legacy,
        _use_new_zipfile_serialization=False,
    )
    with zipfile.ZipFile(content) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = (name for name in entries if name.endswith("data.pkl"))

    def read():
        return bounded(lambda: read_state_dict(path))

    @run(damaged(content.getvalue()))
    def whole(content):
        path.write_bytes(content)
        arrays = read()
        if arrays is not None:  # the file has checksums of all that is read
            same(arrays, ARRAYS)

    @run(damaged(entries[pickled]))
    def pickles(content):
        with zipfile.ZipFile(path, "w") as archive:
            for name, value in entries.items():
                archive.writestr(name, content if name == pickled else value)
        read()

    @run(damaged(legacy.getvalue()))
    def before_1_6(content):
        path.write_bytes(content)
        read()


def fuzz_safetensors(folder, run):
    content, path = save(ARRAYS), folder / "a.safetensors"
    size = struct.unpack("<Q", content[:8])[0]
    header, numbers = json.loads(content[8 : 8 + size]), content[8 + size :]

    def read(content):
        path.write_bytes(content)
        arrays = bounded(lambda: read_state_dict(path))
        if arrays is not None:
            assert sum(value.nbytes for value in arrays.values()) <= len(content)

    run(damaged(content))(read)

    @run(changed(header))
    def headers(header):
        text = json.dumps(header).encode()
        read(struct.pack("<Q", len(text)) + text + numbers)


def fuzz_presets(folder, run, model=None):
    model = model or Fuzzed()
    path = folder / "preset"
    model.save_to_preset(path)
    files = {file.name: file.read_bytes() for file in path.iterdir()}
    weights = model.get_weights()
    arrays = {str(i): value for i, value in enumerate(weights)}

    def read(changes, keep_checksums):
        contents = {**files, **changes}
        if not keep_checksums:
            metadata = json.loads(files["metadata.json"])
            names = ("config.json", "model.weights.h5")
            sums = {name: hashlib.sha256(contents[name]).hexdigest() for name in names}
            contents["metadata.json"] = json.dumps({**metadata, "sha256": sums}).encode()
        for name, content in contents.items():
            (path / name).write_bytes(content)
        loaded = bounded(lambda: type(model).from_preset(path))
        if loaded is not None and keep_checksums:
            same({str(i): value for i, value in enumerate(loaded.get_weights())}, arrays)

    def damage(name):
        @run(damaged(files[name]))
        def file(content):
            read({name: content}, keep_checksums=name != "metadata.json")

    for name in files:
        damage(name)

    @run(damaged(files["model.weights.h5"]))
    def other_weights(content):
        read({"model.weights.h5": content}, keep_checksums=False)

    @run(changed(json.loads(files["config.json"])))
    def other_configs(config):
        read({"config.json": json.dumps(config).encode()}, keep_checksums=False)


TARGETS = {"torch": fuzz_torch, "safetensors": fuzz_safetensors, "presets": fuzz_presets}


def runner(examples, derandomize):
    """Decorator that tries a function on what a strategy gives, at once."""

    def run(strategy):
        def decorate(function):
            limits = settings(
                max_examples=examples,
                derandomize=derandomize,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            )
            limits(given(strategy)(function))()
            return function

        return decorate

    return run


@pytest.mark.parametrize("target", TARGETS)
def test_few(target, tmp_path):
    TARGETS[target](tmp_path, runner(FEW, derandomize=True))


def fuzz_in_a_process(target, folder):
    options = {}
    if target == "presets":
        sizes = {"hidden_units": 4, "residual_units": 2, "residual_blocks": 1}
        options["model"] = VQVAE2((8, 8, 3), num_embeddings=8, embedding_dim=2, **sizes)
    TARGETS[target](folder, runner(MANY, derandomize=False), **options)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_many(target, tmp_path):
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=fuzz_in_a_process, args=(target, tmp_path))
    process.start()
    process.join()
    assert process.exitcode == 0
