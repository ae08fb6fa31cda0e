"""Reading other projects' checkpoints as plain arrays, without running anything in them."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import ml_dtypes  # noqa: F401 - gives NumPy a bfloat16
import numpy as np

from keras_vqvae2.converters.torch_reader import read_torch_file
from keras_vqvae2.files import brief
from keras_vqvae2.hints import FilePath, Tensor

MAX_BLOCKS = 256  # far more than any network of the ports has
_SAFETENSORS = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16", "BOOL": "|b1"},
    **{"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1"},
    **{"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1"},
}


class StateDict:
    """The arrays of a checkpoint, each to be taken once; all of them, or an error.

    Args:
        checkpoint: Path of a `.pt`, `.pth` or `.safetensors` file, or its state dict.
        required: Keys without which the checkpoint is not of the expected network.
    """

    def __init__(self, checkpoint: FilePath | dict[str, Tensor], required: Iterable[str]) -> None:
        if not isinstance(checkpoint, dict):
            checkpoint = read_state_dict(checkpoint)
        self.arrays = dict(checkpoint)
        _require_strings(self.arrays)
        missing = [key for key in required if key not in self.arrays]
        if missing:
            raise ValueError(
                f"Expected a checkpoint with the keys {missing}. Received: keys {self._listed()}"
            )

    def shape(self, key: str, dims: int) -> tuple[int, ...]:
        """Shape of an array that stays to be taken, of so many dimensions and not empty."""
        shape = np.shape(self._array(key))
        if len(shape) != dims or 0 in shape:
            raise ValueError(
                f"Expected {key!r} of {dims} dimensions, none empty. Received: shape {shape}"
            )
        return shape

    def numbers(self, pattern: str) -> int:
        """How many numbers fill the one group of a pattern that some keys begin with."""
        matches = (re.match(pattern, key) for key in self.arrays)
        count = len({match[1] for match in matches if match})
        if count > MAX_BLOCKS:
            raise ValueError(
                f"Expected at most {MAX_BLOCKS} parts that are named {pattern!r}. Received: {count}"
            )
        return count

    def require(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Raises `ValueError` unless the arrays are there and have these shapes.

        Sizes that are read off a checkpoint say how large a model becomes. An array of each kind
        that grows with them shows, before it is built, that they are meant.
        """
        for key, shape in shapes.items():
            self._require_shape(key, np.shape(self._array(key)), shape)

    def take(self, key: str, shape: Sequence[int] | None = None) -> np.ndarray:
        """Removes an array and returns it as new float32, if it has the shape and is finite."""
        value = np.asarray(self._array(key))
        if value.dtype.kind in "cOSUMm":
            raise ValueError(f"Expected {key!r} to hold real numbers. Received: {value.dtype}")
        self._require_shape(key, value.shape, shape)
        with np.errstate(over="ignore", invalid="ignore"):
            value = np.array(value, "float32")
        if not np.isfinite(value).all():
            raise ValueError(f"Expected finite numbers in {key!r}. Received: NaN or infinity")
        del self.arrays[key]
        return value

    def require_empty(self) -> None:
        """Raises `ValueError` if arrays are left over."""
        if self.arrays:
            raise ValueError(
                f"Expected no further keys. Received: a checkpoint with {self._listed()}"
            )

    def _array(self, key):
        if key not in self.arrays:
            raise ValueError(f"Expected the key {key!r}. Received: {self._listed()}")
        return self.arrays[key]

    def _listed(self):
        return brief(sorted(self.arrays)[:10])

    def _require_shape(self, key, received, shape):
        if shape is not None and received != tuple(shape):
            raise ValueError(f"Expected {key!r} of shape {tuple(shape)}. Received: {received}")


def read_state_dict(path: FilePath) -> dict[str, np.ndarray]:
    """Reads a PyTorch checkpoint.

    Args:
        path: A `.safetensors` file, or one that `torch.save` wrote (`.pt`, `.pth`, `.ckpt`,
            `.bin`), which is read without PyTorch. The state may be wrapped in `{"model": …}` or
            `{"state_dict": …}`, and its keys may carry the prefix `module.` of a model that was
            trained on several devices.

    Returns:
        Dict from key to NumPy array.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not such a checkpoint.
        ImportError: If it is a `.safetensors` file and the package safetensors is absent.
    """
    path = Path(os.path.expanduser(path))
    if not path.is_file():
        raise FileNotFoundError(f"Expected a checkpoint file. Received: path={str(path)!r}")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for wrapper in ("model", "state_dict"):
        if isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    # Arrays are those that were made here, and nothing that looks like one.
    arrays = {key: value for key, value in state.items() if isinstance(value, np.ndarray)}
    if not arrays:
        raise ValueError(
            "Expected a state dict of arrays, or one under 'model' or 'state_dict'. "
            f"Received: {path} with the keys {brief(list(state))}"
        )
    _require_strings(arrays)
    return {key.removeprefix("module."): value for key, value in arrays.items()}


def _require_strings(arrays):
    for key in arrays:
        if not isinstance(key, str):
            raise ValueError(f"Expected keys that are strings. Received: {brief(key)}")


def _read_safetensors(path):
    try:
        import safetensors
    except ImportError as error:
        raise ImportError("Reading .safetensors files needs `pip install safetensors`.") from error
    try:
        return {
            key: np.frombuffer(entry["data"], _SAFETENSORS[entry["dtype"]]).reshape(entry["shape"])
            for key, entry in safetensors.deserialize(path.read_bytes())
        }
    except (safetensors.SafetensorError, ValueError) as error:
        raise ValueError(
            f"Expected a safetensors file. Received: {path} ({brief(error)})"
        ) from error
    except KeyError as error:
        raise ValueError(
            f"Expected numbers of the types {list(_SAFETENSORS)}. Received: {path} with {error}"
        ) from error


def _read_torch(path):
    state = read_torch_file(path)
    if not isinstance(state, dict):
        raise ValueError(f"Expected a dict. Received: {path} with a {type(state).__name__}")
    return state
