from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Config, Shape, Tensor


class TF1BilinearResize(keras.layers.Layer):
    """Bilinear resize of TensorFlow 1, on which published FIDs rest.

    Row `i` of the result lies at `i * height / size` of the images, where every later library puts
    the centres of pixels upon each other: `(i + 0.5) * height / size - 0.5`. Without antialiasing.

    Args:
        size: Positive integer: height and width of the result.

    Call arguments:
        images: Floats of shape `(batch, height, width, channels)`.

    Returns:
        Floats of shape `(batch, size, size, channels)`.

    Example:

    ```python
    import keras
    from keras_vqvae2.features.tf1_resize import TF1BilinearResize

    row = keras.ops.reshape([0.0, 1.0], (1, 1, 2, 1))
    print(keras.ops.ravel(TF1BilinearResize(4)(row))[:4])  # 0, 0.5, 1, 1
    ```

    Reference:
        - `tf.compat.v1.image.resize_bilinear(images, size, align_corners=False)`.
    """

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size

    def call(self, images: Tensor) -> Tensor:
        # Across first, then down, in the order of TensorFlow's kernel.
        return self._along(1, self._along(2, images))

    def _along(self, axis, images):
        length = ops.shape(images)[axis]
        scale = ops.cast(length, "float32") / self.size
        places = ops.arange(self.size, dtype="float32") * scale
        lower = ops.cast(ops.floor(places), "int32")
        upper = ops.minimum(lower + 1, length - 1)
        share = places - ops.cast(lower, "float32")
        share = ops.reshape(share, (-1, 1) if axis == 2 else (-1, 1, 1))  # (W, 1) or (H, 1, 1)
        a, b = ops.take(images, lower, axis=axis), ops.take(images, upper, axis=axis)
        return a + (b - a) * share

    def compute_output_shape(self, shape: Shape) -> Shape:
        return (shape[0], self.size, self.size, shape[3])

    def get_config(self) -> Config:
        return {**super().get_config(), "size": self.size}
