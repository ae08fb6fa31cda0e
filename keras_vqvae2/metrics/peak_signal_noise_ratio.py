from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Tensor


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class PeakSignalNoiseRatio(keras.metrics.Metric):
    """Mean over images of the peak signal-to-noise ratio, in dB.

    For an image in `[0, 1]`: `-10 log10(mean((x - y)^2))`, the reconstruction clipped to `[0, 1]`
    first. The mean runs over images, not over squared errors.

    Args:
        name: Name of the metric.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    psnr = keras_vqvae2.metrics.PeakSignalNoiseRatio()
    psnr.update_state(np.zeros((2, 8, 8, 3)), np.full((2, 8, 8, 3), 0.1))
    print(round(float(psnr.result()), 2))  # 20.0
    ```
    """

    def __init__(self, name: str = "psnr", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self._direction = "up"  # for EarlyStopping and the like
        self.mean = keras.metrics.Mean(dtype="float32")

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Adds a batch.

        Args:
            y_true: Images in `[0, 1]`, shape `(batch, height, width, channels)`.
            y_pred: Reconstructions of the same shape.
            sample_weight: None, a scalar, or weights of shape `(batch,)`.
        """
        error = ops.cast(y_true, "float32") - ops.clip(ops.cast(y_pred, "float32"), 0.0, 1.0)
        mse = ops.mean(ops.square(error), axis=(1, 2, 3))  # (batch,)
        # 1e-10 caps an exact image at 100 dB.
        decibels = -10.0 * ops.log10(ops.maximum(mse, 1e-10))
        if sample_weight is not None:
            sample_weight = ops.broadcast_to(
                ops.cast(sample_weight, "float32"), ops.shape(decibels)
            )
            decibels = ops.where(sample_weight > 0, decibels, ops.zeros_like(decibels))
        self.mean.update_state(decibels, sample_weight=sample_weight)

    def result(self) -> Tensor:
        return self.mean.result()

    def reset_state(self) -> None:
        self.mean.reset_state()
