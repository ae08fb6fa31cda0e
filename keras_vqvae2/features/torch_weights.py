"""Weights of PyTorch networks for Keras layers that bear their modules' names."""

import hashlib
from collections.abc import Iterable

import keras
import numpy as np

from keras_vqvae2.converters.torch_reader import read_torch_file
from keras_vqvae2.files import brief
from keras_vqvae2.hints import FilePath

# Keras' name of a variable -> PyTorch's.
_NAMES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def load_torch_weights(layers: Iterable[keras.layers.Layer], path: FilePath, network: str) -> None:
    """Assigns the arrays of a state dict to layers, all of them or none.

    Args:
        layers: Keras layers, named as the modules in the file with `_` for `.` and each part's
            leading `_` left out: `_blocks.0._bn1` is `blocks_0_bn1`. (PyTorch's backend of Keras
            takes no dots.) Those without weights are passed over.
        path: A file that `torch.save` wrote.
        network: Name of the network, for errors.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not one of tensors, or they are of another network.
    """
    state = read_torch_file(path)
    arrays = {
        _layer_key(key): value
        for key, value in (state.items() if isinstance(state, dict) else ())
        if isinstance(key, str) and isinstance(value, np.ndarray)
        if not key.endswith(".num_batches_tracked")
    }
    places = {
        f"{layer.name}.{_NAMES[variable.name]}": (variable, _axes(layer, variable))
        for layer in layers
        for variable in layer.variables
    }
    missing = [key for key in places if key not in arrays]
    unknown = [key for key in arrays if key not in places]
    shapes = {
        key: (arrays[key].shape, tuple(variable.shape[axis] for axis in axes))
        for key, (variable, axes) in places.items()
        if key in arrays
    }
    other = [f"{key} {got} for {wanted}" for key, (got, wanted) in shapes.items() if got != wanted]
    damaged = [key for key in shapes if not np.isfinite(arrays[key]).all()]
    faults = {
        "missing": missing,
        "unknown": unknown,
        "of other shapes": other,
        "with NaN or infinity": damaged,
    }
    if any(faults.values()):
        listed = "; ".join(
            f"{len(keys)} {fault}: {_listed(keys)}" for fault, keys in faults.items() if keys
        )
        raise ValueError(f"Expected the weights of {network}. Received: {path} ({listed})")
    for key, (variable, axes) in places.items():
        variable.assign(np.array(np.transpose(arrays[key], np.argsort(axes)), "float32"))


def _listed(keys):
    # Out of a file: on one line, and not too long.
    shown = [brief(key)[1:-1] for key in keys[:3]]
    return ", ".join(shown) + (" …" if len(keys) > 3 else "")


def _layer_key(key):
    *parts, weight = key.split(".")
    return "_".join(part.lstrip("_") for part in parts) + "." + weight


def _axes(layer, variable):
    """Keras' axes in PyTorch's order: kernels (h, w, in, out) -> (out, in, h, w)."""
    if isinstance(layer, keras.layers.DepthwiseConv2D) and len(variable.shape) == 4:
        return (2, 3, 0, 1)  # (h, w, channels, 1) -> (channels, 1, h, w)
    return {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}[len(variable.shape)]


def name_with_weights(network: str, path: FilePath, published: str) -> str:
    """`network` if the file at `path` has the SHA-256 `published`; else a digest is appended."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return network if digest == published else f"{network}-{digest[:8]}"
