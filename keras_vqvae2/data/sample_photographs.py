from pathlib import Path

import numpy as np

from keras_vqvae2.hints import Size

PHOTOGRAPHS = Path(__file__).parent / "photographs"


def sample_photographs(image_size: Size = 128) -> np.ndarray:
    """Eight photographs of clothes that come with the package (CC0), for demos and tests.

    Args:
        image_size: Integer or `(height, width)`.

    Returns:
        uint8 array of shape `(8, height, width, 3)`.

    Example:

    ```python
    import keras_vqvae2

    print(keras_vqvae2.data.sample_photographs(64).shape)  # (8, 64, 64, 3)
    ```
    """
    from keras_vqvae2.data.image_folder import decode, list_images
    from keras_vqvae2.data.pipeline import Options

    options = Options(image_size)
    rows, columns = options.image_size
    images = []
    for file in list_images(PHOTOGRAPHS):
        pixels = decode(file, options)
        top, left = (pixels.shape[0] - rows) // 2, (pixels.shape[1] - columns) // 2
        images.append(pixels[top : top + rows, left : left + columns])
    return np.stack(images)
