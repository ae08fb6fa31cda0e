import argparse
import os
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import pytest
import torch

from keras_vqvae2.converters.torch_reader import read_torch_file

NEW_OR_OLD = pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])


def save(value, path, new=True):
    torch.save(value, path, _use_new_zipfile_serialization=new)
    return path


@NEW_OR_OLD
def test_equals_what_pytorch_reads(new, tmp_path, rng):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    whole = torch.arange(24.0).reshape(4, 6)
    value = {
        "state_dict": model.state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "views": [whole, whole.T, whole[1:, ::2], whole[2, 3], whole[:0]],
        "types": [
            torch.tensor([1, -2], dtype=getattr(torch, name))
            for name in ("float64", "float16", "int64", "int32", "int16", "int8")
        ],
        "bytes": torch.tensor([0, 255], dtype=torch.uint8),
        "halves": torch.tensor([[0.5, -3.0], [1e30, 0.0]], dtype=torch.bfloat16).T,
        "flags": argparse.Namespace(channel=256, sched=None),
        "bools": torch.tensor([True, False]),
        "epoch": 3,
        "name": "a model",
    }
    path = save(value, tmp_path / "weights.pth", new)
    with torch.serialization.safe_globals([argparse.Namespace]):
        read, expected = read_torch_file(path), torch.load(path, weights_only=True)
    assert type(read["state_dict"]) is dict
    assert list(read["state_dict"]) == list(expected["state_dict"])
    assert (read["epoch"], read["name"]) == (3, "a model")
    tensors = lambda x: [*x["state_dict"].values(), *x["views"], *x["types"], x["bytes"]]  # noqa: E731
    for a, b in zip(tensors(read), tensors(expected), strict=True):
        assert a.dtype == b.numpy().dtype
        np.testing.assert_array_equal(a, b.numpy())
    np.testing.assert_array_equal(read["halves"].astype("float32"), expected["halves"].float())
    assert read["flags"].state == vars(expected["flags"])
    np.testing.assert_array_equal(read["bools"], [True, False])
    np.testing.assert_array_equal(read["parameter"], [1, 1])


@NEW_OR_OLD
def test_the_class_that_lightning_saves_is_a_string(new, tmp_path, monkeypatch):
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": module.__name__})
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    value = {
        "state_dict": {"weight": torch.ones(2)},
        "callbacks": {module.ModelCheckpoint: {"best_model_score": torch.tensor(0.5)}},
    }
    read = read_torch_file(save(value, tmp_path / "last.ckpt", new))
    assert read["callbacks"]["ModelCheckpoint"]["best_model_score"] == 0.5
    save(module.ModelCheckpoint(), tmp_path / "called.ckpt", new)
    with pytest.raises(ValueError, match="a call of what is no name"):
        read_torch_file(tmp_path / "called.ckpt")


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@NEW_OR_OLD
@pytest.mark.parametrize(
    "value",
    [
        Call(os.system, "touch harmed"),
        {"weight": torch.ones(2), "x": Call(exec, "open('harmed', 'w')")},
        Call(getattr, "text", "upper"),
        np.ones(3),
        torch.nn.Linear(1, 1),
        torch.ones(2, dtype=torch.complex64),
    ],
    ids=["system", "exec", "getattr", "numpy", "module", "complex"],
)
def test_what_is_no_tensor_is_refused_and_not_run(value, new, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(value, "weights.pth", new)
    with pytest.raises(ValueError, match="Expected a file of tensors .* the file names"):
        read_torch_file("weights.pth")
    assert not os.path.exists("harmed")


@pytest.mark.parametrize(
    "offset, shape, strides",
    [
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (0, (2, 2), (1, 3)),
        (0, (2,), (-1,)),
        (-1, (2,), (1,)),
        (0, (10**9,), (0,)),
        (0, (2, 2), (2,)),
        (0, (2.0,), (1,)),
    ],
)
def test_a_view_that_leaves_its_storage_is_refused(offset, shape, strides, tmp_path, monkeypatch):
    # The tensor of a sound file, pickled with other numbers.
    def reduced(tensor, protocol):
        storage = torch.storage.TypedStorage(
            wrap_storage=tensor.untyped_storage(), dtype=tensor.dtype, _internal=True
        )
        return torch._utils._rebuild_tensor_v2, (storage, offset, shape, strides, False, {})

    monkeypatch.setattr(torch.Tensor, "__reduce_ex__", reduced)
    path = save(torch.zeros(4), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="a tensor of shape"):
        read_torch_file(path)


def rewritten(path, change, compression=zipfile.ZIP_STORED):
    """The zip file at `path`, with `change(name, content)` in the place of each content."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(name, change(name, content))
    return path


def test_damaged_zip_files_are_refused(tmp_path):
    state = {"weight": torch.arange(100.0)}
    path = tmp_path / "weights.pth"
    cut = lambda name, content: content[:-4] if "/data/" in name else content  # noqa: E731
    big = lambda name, content: b"big" if name.endswith("byteorder") else content  # noqa: E731
    # 100 numbers are said to be 10,000.
    more = lambda name, content: content.replace(b"Kd", b"M\x10\x27")  # noqa: E731
    for change, message in [
        (cut, "396 bytes"),
        (big, "big-endian"),
        (more, "larger than the file"),
    ]:
        rewritten(save(state, path), change)
        with pytest.raises(ValueError, match=message):
            read_torch_file(path)
    rewritten(save(state, path), lambda name, content: content, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="compressed"):
        read_torch_file(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/b.txt", "no weights")
    with pytest.raises(ValueError, match="Expected a file of tensors"):
        read_torch_file(path)


def test_damaged_legacy_files_are_refused(tmp_path):
    path = save({"weight": torch.arange(100.0)}, tmp_path / "weights.pth", new=False)
    content = path.read_bytes()
    size = struct.pack("<q", 100)
    for damaged in (
        content[:-4],
        content[: len(content) // 2],
        content.replace(size, struct.pack("<q", 99)),
        content.replace(size, struct.pack("<q", -1)),
        content.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"),
        content.replace(b"FloatStorage", b"FlootStorage"),
        pickle.dumps({"weight": [1.0]}),
        b"",
        b"no weights",
    ):
        assert damaged != content
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="Expected a file of tensors"):
            read_torch_file(path)
    with pytest.raises(FileNotFoundError):
        read_torch_file(tmp_path / "absent.pth")
