from pathlib import Path

import numpy as np

from keras_vqvae2.data.image_file import read_image
from keras_vqvae2.data.image_folder import list_images
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
    return np.stack([read_image(file, image_size) for file in list_images(PHOTOGRAPHS)])
