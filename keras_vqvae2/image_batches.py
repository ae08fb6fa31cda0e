"""Images on their way into models: any array or batches of them, uint8 or floats."""

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2.hints import Tensor


def to_unit_floats(images: Tensor) -> Tensor:
    """float32 in `[0, 1]` of integer pixels in `[0, 255]`; floats keep their values.

    An array is copied to a NumPy array, a tensor stays a tensor.
    """
    if isinstance(images, np.ndarray):
        scaled = images.dtype.kind in "iu"
        return images / np.float32(255) if scaled else images.astype("float32")
    if "int" in keras.backend.standardize_dtype(images.dtype):
        return ops.cast(images, "float32") / 255.0
    return ops.cast(images, "float32")


def image_batches(images: Any, size: int) -> Iterator[np.ndarray]:
    """NumPy arrays of an array, `size` images each, or of batches, whose labels are left out."""
    batches = images
    if hasattr(images, "shape"):
        batches = (images[i : i + size] for i in range(0, len(images), size))
    for batch in batches:
        yield to_numpy(batch[0] if isinstance(batch, (tuple, list)) else batch)


def filled_batches(
    arrays: Mapping[str, np.ndarray], size: int
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Rows of arrays, `size` at a time: their numbers, and a dict of what stands there.

    The last batch is filled up with the last row: one size, one compiled program.
    """
    count = len(next(iter(arrays.values())))
    for start in range(0, count, size):
        numbers = np.minimum(np.arange(start, start + size), count - 1)
        yield numbers, {name: array[numbers] for name, array in arrays.items()}


def to_numpy(x: Tensor) -> np.ndarray:
    """An array of any backend, or of none, as NumPy's."""
    return ops.convert_to_numpy(x) if ops.is_tensor(x) else np.asarray(x)
