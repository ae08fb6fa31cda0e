import argparse
import pickle
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_vqvae2.converters.checkpoint_files import StateDict, read_state_dict

torch = pytest.importorskip("torch")
ARRAYS = {"a.weight": np.arange(6, dtype="float32").reshape(2, 3), "b": np.array([1, 2])}


def tensors(prefix=""):
    return {prefix + key: torch.tensor(value) for key, value in ARRAYS.items()}


@pytest.mark.parametrize(
    "content",
    [
        tensors(),
        tensors("module."),
        {"model": tensors(), "epoch": 3},
        {"state_dict": tensors("module.")},
        {**tensors(), "epoch": 3},
        # As the port's train_pixelsnail.py saves them.
        {"model": tensors(), "args": argparse.Namespace(hier="top", lr=3e-4, ckpt=None)},
    ],
)
def test_torch_files_plain_prefixed_and_wrapped(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    state = read_state_dict(tmp_path / "a.pt")
    assert state.keys() == ARRAYS.keys()
    for key, value in ARRAYS.items():
        np.testing.assert_array_equal(state[key], value)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_safetensors(tmp_path, prefix):
    save_file({prefix + k: v for k, v in ARRAYS.items()}, tmp_path / "a.safetensors")
    state = read_state_dict(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(state["a.weight"], ARRAYS["a.weight"])


def test_bfloat16(tmp_path):
    torch.save({"a": torch.tensor([0.5, -3.0], dtype=torch.bfloat16)}, tmp_path / "a.pt")
    np.testing.assert_array_equal(StateDict(tmp_path / "a.pt", ["a"]).take("a"), [0.5, -3.0])


class Hostile:
    def __reduce__(self):
        return sys.exit, ("code in a checkpoint was run",)


def test_code_in_a_checkpoint_is_refused(tmp_path):
    torch.save({"a": Hostile()}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps({"a": Hostile()}))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(ValueError, match="file of tensors .* the file names"):
            read_state_dict(tmp_path / name)


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_truncated_and_foreign_files(tmp_path, name):
    (tmp_path / name).write_bytes(b"not a checkpoint at all")
    with pytest.raises(ValueError, match="Expected a .*Received: "):
        read_state_dict(tmp_path / name)


def test_no_file_and_no_arrays(tmp_path):
    with pytest.raises(FileNotFoundError, match="Received: path="):
        read_state_dict(tmp_path / "nowhere.pt")
    torch.save({"epoch": 3}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"keys \['epoch'\]"):
        read_state_dict(tmp_path / "a.pt")
