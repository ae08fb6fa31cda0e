"""Reading other projects' checkpoints as plain arrays, without running anything in them."""

from pathlib import Path

import numpy as np


def read_state_dict(path):
    """Reads a PyTorch checkpoint.

    Args:
        path: A `.safetensors` file, or one that `torch.save` wrote (`.pt`, `.pth`, `.bin`). The
            state may be wrapped in `{"model": …}` or `{"state_dict": …}`, and its keys may carry
            the prefix `module.` of a model that was trained on several devices.

    Returns:
        Dict from key to NumPy array.

    Raises:
        ValueError: If the file is not such a checkpoint.
        ImportError: If the package that reads it is absent.
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
    import pickle

    try:
        from keras_vqvae2.backend.torch_files import load_tensors
    except ImportError as error:
        raise ImportError("Reading PyTorch checkpoints needs `pip install torch`.") from error
    try:
        state = load_tensors(path)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"Expected a checkpoint that holds tensors and nothing else. Received: {path} ({error})"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"Expected a dict. Received: {path} with a {type(state).__name__}")
    return state
