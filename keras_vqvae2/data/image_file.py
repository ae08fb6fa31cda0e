import numpy as np

from keras_vqvae2.data.image_folder import decode
from keras_vqvae2.data.pipeline import Options
from keras_vqvae2.hints import FilePath, Size


def read_image(path: FilePath, image_size: Size) -> np.ndarray:
    """Reads one picture as `images_from_folder` reads many: scaled, and its middle cut out.

    Args:
        path: An image file of any kind that Pillow reads.
        image_size: Integer or `(height, width)`.

    Returns:
        uint8 array of shape `(height, width, 3)`.

    Raises:
        OSError: If there is no such file, or it does not decode.
        ValueError: If a size is not positive.

    Example:

    ```python
    import numpy as np
    from PIL import Image
    import keras_vqvae2

    Image.fromarray(np.zeros((40, 50, 3), "uint8")).save("photograph.png")
    print(keras_vqvae2.data.read_image("photograph.png", image_size=32).shape)  # (32, 32, 3)
    ```
    """
    options = Options(image_size)
    rows, columns = options.image_size
    pixels = decode(path, options)
    top, left = round((pixels.shape[0] - rows) / 2), round((pixels.shape[1] - columns) / 2)
    return pixels[top : top + rows, left : left + columns]
