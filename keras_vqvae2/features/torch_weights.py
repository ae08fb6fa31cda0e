"""Weights of PyTorch networks for Keras layers that bear their modules' names."""

import hashlib
from collections.abc import Iterable

import keras
import numpy as np

from keras_vqvae2.converters.torch_reader import read_torch_file
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
        if isinstance(key, str) and not key.endswith(".num_batches_tracked")
    }
    places = {
        f"{layer.name}.{_NAMES[variable.name]}": (variable, _axes(layer, variable))
        for layer in layers
        for variable in layer.variables
    }
    missing = [key for key in places if key not in arrays]
    unknown = [key for key in arrays if key not in places]
    shapes = {
        key: (np.shape(arrays[key]), tuple(variable.shape[axis] for axis in axes))
        for key, (variable, axes) in places.items()
        if key in arrays
    }
    other = [f"{key} {got} for {wanted}" for key, (got, wanted) in shapes.items() if got != wanted]
    faults = {"missing": missing, "unknown": unknown, "of other shapes": other}
    if any(faults.values()):
        listed = "; ".join(
            f"{len(keys)} {fault}: {', '.join(keys[:3])}{' …' if len(keys) > 3 else ''}"
            for fault, keys in faults.items()
            if keys
        )
        raise ValueError(f"Expected the weights of {network}. Received: {path} ({listed})")
    for key, (variable, axes) in places.items():
        variable.assign(np.transpose(arrays[key], np.argsort(axes)))


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
