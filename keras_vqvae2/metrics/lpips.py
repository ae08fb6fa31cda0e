import os
from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Config, FilePath, Tensor
from keras_vqvae2.losses.lpips_distance import LPIPSDistance


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class LPIPS(keras.metrics.Metric):
    """Mean over images of the learned perceptual distance; lower is nearer.

    Reconstructions are clipped to `[0, 1]` first.

    Args:
        network: `"alexnet"` (which the metric's authors recommend for comparisons) or `"vgg16"`.
        weights: See `LPIPSDistance`.
        name: Name of the metric.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    lpips = keras_vqvae2.metrics.LPIPS()
    images = np.random.default_rng(0).uniform(size=(2, 64, 64, 3))
    lpips.update_state(images, images)
    print(float(lpips.result()))  # 0.0
    ```

    Reference:
        - Zhang et al. 2018, arXiv 1801.03924; see `LPIPSDistance`.
    """

    def __init__(
        self,
        network: str = "alexnet",
        weights: FilePath | None = None,
        name: str = "lpips",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self._direction = "down"  # for EarlyStopping and the like
        self.network = network
        self.weights_path = None if weights is None else os.fspath(weights)
        self.distance = LPIPSDistance(network, weights)
        self.distance.prepare()
        self.mean = keras.metrics.Mean(dtype="float32")

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Adds a batch.

        Args:
            y_true: Images in `[0, 1]`, shape `(batch, height, width, 3)`.
            y_pred: Reconstructions of the same shape.
            sample_weight: None, a scalar, or weights of shape `(batch,)`.
        """
        y_pred = ops.clip(ops.cast(y_pred, "float32"), 0.0, 1.0)
        distances = self.distance(ops.convert_to_tensor(y_true), y_pred)
        self.mean.update_state(distances, sample_weight=sample_weight)

    def result(self) -> Tensor:
        return self.mean.result()

    def reset_state(self) -> None:
        self.mean.reset_state()

    def get_config(self) -> Config:
        return {**super().get_config(), "network": self.network, "weights": self.weights_path}
