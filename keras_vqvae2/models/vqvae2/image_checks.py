"""What images may look like where they enter a model: the errors before any long work starts."""

import numpy as np
from keras import ops

from keras_vqvae2.models.source_checks import first_batch


def to_unit_range(images):
    """Floats in `[0, 1]` of integer pixels in `[0, 255]`; floats pass as they are."""
    if "int" in str(images.dtype):
        return ops.cast(images, "float32") / 255.0
    return images


def check_image_shape(shape, channels, stride, argument="images"):
    """Raises `ValueError` unless `shape` is `(batch, H, W, channels)` and `stride` divides H, W.

    Sizes that are `None` pass.
    """
    shape = tuple(shape)
    if len(shape) != 4 or shape[-1] not in (channels, None):
        raise ValueError(
            f"Expected images of shape (batch, height, width, {channels}). "
            f"Received: {argument} of shape {shape}"
        )
    if any(size is not None and (size == 0 or size % stride) for size in shape[1:3]):
        raise ValueError(
            f"Expected a height and a width that are multiples of {stride}, the model's "
            f"downsampling. Received: {argument} of shape {shape}"
        )


def check_images(images, channels, stride, argument="images"):
    """Raises `ValueError` unless `images` is a batch of pixels that a model can take.

    Args:
        images: Array of shape `(batch, H, W, channels)`: floats in `[0, 1]`, or uint8.
        channels: Expected number of channels.
        stride: Number that must divide height and width.
        argument: Name of the argument in the message.
    """
    check_image_shape(images.shape, channels, stride, argument)
    if images.shape[0] == 0:
        raise ValueError(
            f"Expected at least one image. Received: {argument} of shape {tuple(images.shape)}"
        )
    kind = str(images.dtype)
    if "uint8" in kind:
        return
    if "float" not in kind:
        raise ValueError(
            f"Expected floats in [0, 1] or uint8 in [0, 255]. Received: {argument} of dtype {kind}"
        )
    images = ops.convert_to_numpy(ops.cast(images, "float32"))
    low, high = float(np.min(images)), float(np.max(images))
    # A NaN passes: training counts and skips it. 1e-3 allows for resizing with overshoot.
    if low < -1e-3 or high > 1 + 1e-3:
        raise ValueError(
            "Expected pixels in [0, 1], or uint8 in [0, 255] (scaled here). "
            f"Received: {argument} with pixels from {low:.4g} to {high:.4g}"
        )


def check_source(source, channels, stride):
    """Checks what `fit`, `evaluate` or `predict` is given, as far as it can be seen up front."""
    images = first_batch(source)
    if isinstance(images, dict):
        raise ValueError(f"Expected images. Received: x, a dict with the keys {tuple(images)}")
    if images is not None:
        check_images(images, channels, stride, "x")
