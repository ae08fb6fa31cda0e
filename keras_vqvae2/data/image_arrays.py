from typing import Any

import numpy as np

from keras_vqvae2.data.optional_imports import import_tensorflow
from keras_vqvae2.data.pipeline import Options, finish, positions
from keras_vqvae2.hints import Dataset, Size, Tensor

INT32 = np.iinfo("int32")


def images_from_arrays(
    images: Tensor,
    image_size: Size | None = None,
    batch_size: int = 32,
    *,
    labels: Tensor | None = None,
    **options: Any,
) -> Dataset:
    """Reads images from an array.

    Args:
        images: Array of shape `(N, H, W, C)`: uint8, or floats in `[0, 1]`.
        image_size: Integer or `(height, width)` of the images that come out; their own by
            default.
        batch_size: Positive integer.
        labels: None, or integers of shape `(N,)`, which then stand beside the images.
        **options: Further keywords of `keras_vqvae2.data.Options`.

    Returns:
        `tf.data.Dataset` of float32 images in `[0, 1]`, or of pairs `(images, labels)`.

    Raises:
        ValueError: If shape, dtype or range of the images, or the number of labels, is wrong.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    pixels = np.random.default_rng(0).integers(256, size=(10, 40, 40, 3), dtype="uint8")
    images = keras_vqvae2.data.images_from_arrays(pixels, 32, batch_size=4, shuffle=True)
    print([batch.shape[0] for batch in images])  # [4, 4, 2]
    ```
    """
    images = _checked(np.asarray(images))
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
            raise ValueError(
                f"Expected a label for each of the {len(images)} images, an integer. "
                f"Received: labels of shape {labels.shape} and dtype {labels.dtype}"
            )
        low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
        if low < INT32.min or high > INT32.max:
            raise ValueError(
                f"Expected labels that fit in int32. Received: labels from {low} to {high}"
            )
    tf = import_tensorflow()
    size = images.shape[1:3] if image_size is None else image_size
    options = Options(size, batch_size, labels=labels is not None, **options)
    numbers = np.zeros(len(images), "int32") if labels is None else np.asarray(labels, "int32")
    height, width = options.scaled_size(*images.shape[1:3])
    channels = images.shape[-1]
    kept = options.kept_size(*images.shape[1:3])
    top, left = (images.shape[1] - kept[0]) // 2, (images.shape[2] - kept[1]) // 2
    middle = images[:, top : top + kept[0], left : left + kept[1]]  # of very long images

    def read(position, place):
        # Not a constant of the graph, which may not exceed 2 GiB.
        image = tf.numpy_function(lambda i: middle[i], [place], images.dtype, stateful=False)
        image = tf.ensure_shape(image, middle.shape[1:])
        if (height, width) != kept:
            image = tf.image.convert_image_dtype(image, tf.float32)
            image = tf.image.resize(image, (height, width), "lanczos3", antialias=True)
            image = tf.ensure_shape(tf.clip_by_value(image, 0.0, 1.0), (height, width, channels))
        return position, image, tf.gather(numbers, place)

    examples = positions(len(images), options).map(read, num_parallel_calls=tf.data.AUTOTUNE)
    return finish(examples, options)


def _checked(images):
    """uint8 pixels, or float32 ones in `[0, 1]`, or `ValueError`."""
    shape = images.shape
    if len(shape) != 4 or 0 in shape:
        raise ValueError(
            "Expected images of shape (N, height, width, channels), at least one. "
            f"Received: images of shape {shape}"
        )
    if shape[-1] > 4 and shape[1] in (1, 3, 4):
        raise ValueError(
            f"Expected the channels last. Received: images of shape {shape}, which look like "
            "(N, channels, height, width)"
        )
    if images.dtype == np.uint8:
        return images
    is_float = images.dtype.kind == "f"
    low, high = images.min(), images.max()
    if not (is_float and low >= 0 and high <= 1):
        raise ValueError(
            "Expected uint8 pixels, or floats in [0, 1]. "
            f"Received: images of dtype {images.dtype} from {low} to {high}"
        )
    return images.astype("float32", copy=False)
