"""Reading other projects' checkpoints as plain arrays, without running anything in them."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from keras_vqvae2.converters.torch_reader import read_torch_file
from keras_vqvae2.hints import FilePath, Tensor


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
        missing = [key for key in required if key not in self.arrays]
        if missing:
            raise ValueError(
                f"Expected a checkpoint with the keys {missing}. Received: keys "
                f"{sorted(self.arrays)[:10]}"
            )

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of an array that stays to be taken."""
        return np.shape(self.arrays[key])

    def numbers(self, pattern: str) -> int:
        """How many numbers fill the one group of a pattern that some keys begin with."""
        matches = (re.match(pattern, key) for key in self.arrays)
        return len({match[1] for match in matches if match})

    def take(self, key: str, shape: Sequence[int] | None = None) -> np.ndarray:
        """Removes an array and returns it as float32, if it has the shape."""
        if key not in self.arrays:
            raise ValueError(f"Expected the key {key!r}. Received: {sorted(self.arrays)[:10]}")
        value = np.asarray(self.arrays.pop(key), "float32")
        if shape is not None and value.shape != tuple(shape):
            raise ValueError(f"Expected {key!r} of shape {tuple(shape)}. Received: {value.shape}")
        return value

    def require_empty(self) -> None:
        """Raises `ValueError` if arrays are left over."""
        if self.arrays:
            raise ValueError(
                f"Expected no further keys. Received: a checkpoint with {sorted(self.arrays)[:10]}"
            )


def read_state_dict(path: FilePath) -> dict[str, np.ndarray]:
    """Reads a PyTorch checkpoint.

    Args:
        path: A `.safetensors` file, or one that `torch.save` wrote (`.pt`, `.pth`, `.bin`), which
            is read without PyTorch. The state may be wrapped in `{"model": …}` or
            `{"state_dict": …}`, and its keys may carry the prefix `module.` of a model that was
            trained on several devices.

    Returns:
        Dict from key to NumPy array.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not such a checkpoint.
        ImportError: If it is a `.safetensors` file and the package safetensors is absent.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected a checkpoint file. Received: path={str(path)!r}")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for wrapper in ("model", "state_dict"):
        if isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    arrays = {
        key.removeprefix("module."): np.asarray(value)
        for key, value in state.items()
        if hasattr(value, "shape")
    }
    if not arrays:
        raise ValueError(
            f"Expected a state dict of arrays, or one under 'model' or 'state_dict'. "
            f"Received: {path} with the keys {list(state)[:10]}"
        )
    return arrays


def _read_safetensors(path):
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("Reading .safetensors files needs `pip install safetensors`.") from error
    try:
        return safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"Expected a safetensors file. Received: {path} ({error})") from error


def _read_torch(path):
    state = read_torch_file(path)
    if not isinstance(state, dict):
        raise ValueError(f"Expected a dict. Received: {path} with a {type(state).__name__}")
    return state
