from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2.hints import Tensor

WINDOW, SPREAD = 11, 1.5
STABILIZERS = (0.01**2, 0.03**2)


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class StructuralSimilarity(keras.metrics.Metric):
    """Mean over images of the structural similarity (SSIM) of images in `[0, 1]`; 1 is equal.

    The reconstruction is clipped to `[0, 1]` first. Means, variances and covariance are those of
    an 11x11 Gaussian window of standard deviation 1.5 that stays inside the image; the similarity
    is averaged over windows and channels (RGB, not luma).

    Args:
        name: Name of the metric.

    Raises:
        ValueError: If an image is smaller than the window.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    ssim = keras_vqvae2.metrics.StructuralSimilarity()
    images = np.random.default_rng(0).uniform(size=(2, 16, 16, 3))
    ssim.update_state(images, images)
    print(round(float(ssim.result()), 3))  # 1.0
    ```

    Reference:
        - Wang, Bovik, Sheikh, Simoncelli 2004, "Image Quality Assessment: From Error Visibility to
          Structural Similarity", section III.B, with K1 = 0.01 and K2 = 0.03.
    """

    def __init__(self, name: str = "ssim", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self._direction = "up"  # for EarlyStopping and the like
        self.mean = keras.metrics.Mean(dtype="float32")
        places = np.arange(WINDOW) - WINDOW // 2
        window = np.exp(-0.5 * (places / SPREAD) ** 2)
        self._window = (window / window.sum()).astype("float32")

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Adds a batch.

        Args:
            y_true: Images in `[0, 1]`, shape `(batch, height, width, channels)`.
            y_pred: Reconstructions of the same shape.
            sample_weight: None, a scalar, or weights of shape `(batch,)`.
        """
        x = ops.cast(y_true, "float32")
        y = ops.clip(ops.cast(y_pred, "float32"), 0.0, 1.0)
        if any(size is not None and size < WINDOW for size in x.shape[1:3]):
            raise ValueError(
                f"Expected images at least {WINDOW} high and wide. Received: shape={tuple(x.shape)}"
            )
        x_mean, y_mean = self._blur(x), self._blur(y)
        product = x_mean * y_mean
        squares = ops.square(x_mean) + ops.square(y_mean)
        covariance = self._blur(x * y) - product
        variances = self._blur(ops.square(x) + ops.square(y)) - squares
        a, b = STABILIZERS
        luminance = (2.0 * product + a) / (squares + a)
        structure = (2.0 * covariance + b) / (variances + b)
        similarity = ops.mean(luminance * structure, axis=(1, 2, 3))  # (batch,)
        self.mean.update_state(similarity, sample_weight=sample_weight)

    def _blur(self, images):
        """Window means, shape `(batch, height - 10, width - 10, channels)`."""
        height, width = (size - WINDOW + 1 for size in ops.shape(images)[1:3])
        rows = sum(w * images[:, i : i + height] for i, w in enumerate(self._window))
        return sum(w * rows[:, :, i : i + width] for i, w in enumerate(self._window))

    def result(self) -> Tensor:
        return self.mean.result()

    def reset_state(self) -> None:
        self.mean.reset_state()
