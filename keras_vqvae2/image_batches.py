"""Images on their way into NumPy: any array or batches of them, uint8 or floats."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_vqvae2.hints import Tensor


def to_unit_floats(images: np.ndarray) -> np.ndarray:
    """A new float32 array: uint8 pixels in `[0, 1]`, floats with the values they have."""
    return images / np.float32(255) if images.dtype == np.uint8 else images.astype("float32")


def image_batches(images: Any, size: int) -> Iterator[np.ndarray]:
    """NumPy arrays of an array, `size` images each, or of batches, whose labels are left out."""
    batches = images
    if hasattr(images, "shape"):
        batches = (images[i : i + size] for i in range(0, len(images), size))
    for batch in batches:
        yield to_numpy(batch[0] if isinstance(batch, (tuple, list)) else batch)


def to_numpy(x: Tensor) -> np.ndarray:
    """An array of any backend, or of none, as NumPy's."""
    return keras.ops.convert_to_numpy(x) if keras.ops.is_tensor(x) else np.asarray(x)
