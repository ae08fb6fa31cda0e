import numpy as np

from keras_vqvae2.hints import Tensor
from keras_vqvae2.image_batches import to_numpy, to_unit_floats
from keras_vqvae2.validation import check_images

CHUNK = 256  # images at a time


def nearest_images(
    queries: Tensor, images: Tensor, factor: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Finds which of some images, or of their mirror images, each query comes nearest to.

    Shows whether samples are copies of training images: those of a generator that learned by heart
    are nearer to them than held-out images are.

    Args:
        queries: Array of shape `(N, H, W, C)`, floats in `[0, 1]` or uint8.
        images: Likewise, of shape `(M, H, W, C)`.
        factor: Positive integer that divides height and width: pixels are compared at the
            resolution divided by it, each the mean of `factor` by `factor`.

    Returns:
        A tuple `(places, distances)` of shape `(N,)` each: the index of the nearest image, and the
        root mean square of the differences of pixels in `[0, 1]`.

    Raises:
        ValueError: If there are none, their sizes differ, or values are out of range.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    images = np.random.default_rng(0).uniform(size=(5, 8, 8, 3))
    places, distances = keras_vqvae2.evaluation.nearest_images(images[3:, :, ::-1], images)
    print(places)  # [3 4]
    ```
    """
    queries, images = to_numpy(queries), to_numpy(images)
    check_images(images, images.shape[-1], factor)
    check_images(queries, images.shape[-1], factor, "queries")
    if queries.shape[1:] != images.shape[1:]:
        raise ValueError(
            f"Expected queries of shape (N, {', '.join(map(str, images.shape[1:]))}). "
            f"Received: shape {queries.shape}"
        )
    small = _small_pixels(images, factor)
    mirrored = _small_pixels(images[:, :, ::-1], factor)
    places, distances = [], []
    for start in range(0, len(queries), CHUNK):
        part = _small_pixels(queries[start : start + CHUNK], factor)  # (B, pixels)
        squares = np.minimum(_mean_squares(part, small), _mean_squares(part, mirrored))  # (B, M)
        places.append(squares.argmin(axis=1))
        distances.append(np.sqrt(squares.min(axis=1)))
    return np.concatenate(places), np.concatenate(distances)


def _small_pixels(images, factor):
    """float32 rows of pixels in `[0, 1]` at a lower resolution."""
    count, height, width, channels = images.shape
    parts = []
    for start in range(0, count, CHUNK):
        part = to_unit_floats(images[start : start + CHUNK])
        cells = part.reshape(-1, height // factor, factor, width // factor, factor, channels)
        parts.append(cells.mean(axis=(2, 4)).reshape(len(part), -1))  # (B, h * w * C)
    return np.concatenate(parts)


def _mean_squares(a, b):
    squares = (a**2).sum(axis=1)[:, None] - 2 * a @ b.T + (b**2).sum(axis=1)
    return np.maximum(squares, 0) / a.shape[1]
