from typing import Any

import keras

from keras_vqvae2.hints import Config, Tensor
from keras_vqvae2.layers.discretized_logistic_mixture import DiscretizedLogisticMixture


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class LogisticMixtureLoss(keras.losses.Loss):
    """Negative log-likelihood of pixels under a discretised mixture of logistics, in nats a pixel.

    For any Keras model whose last layer gives the parameters of `layers.DiscretizedLogisticMixture`
    at each position; `PixelCNNPlusPlus` has it built in. Divide by `colours * log 2` for bits a
    dimension.

    Args:
        colours: 3, or 1 for grey images. Defaults to 3.
        num_mixtures: Positive integer, components. Defaults to 10 (paper).
        levels: Integer of at least 2. Defaults to 256.
        **kwargs: `name`, `reduction` and `dtype` of `keras.losses.Loss`.

    Call arguments:
        y_true: Levels from 0 to `levels - 1`, shape `(batch, height, width, colours)`.
        y_pred: float32 of shape `(batch, height, width, parameters)`.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_vqvae2

    loss = keras_vqvae2.losses.LogisticMixtureLoss(num_mixtures=5)
    model = keras.Sequential([keras.Input((8, 8, 2)), keras.layers.Conv2D(50, 3, padding="same")])
    model.compile(optimizer="adam", loss=loss)
    images = np.random.default_rng(0).integers(256, size=(4, 8, 8, 3))
    model.fit(np.zeros((4, 8, 8, 2), "float32"), images, verbose=0)
    ```

    Reference:
        - Salimans et al. 2017, "PixelCNN++", arXiv 1701.05517, section 2.1.
    """

    def __init__(
        self, colours: int = 3, num_mixtures: int = 10, levels: int = 256, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.mixture = DiscretizedLogisticMixture(colours, num_mixtures, levels)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return self.mixture.nats(y_true, y_pred)

    def get_config(self) -> Config:
        mixture = self.mixture
        return {
            **super().get_config(),
            "colours": mixture.colours,
            "num_mixtures": mixture.num_mixtures,
            "levels": mixture.levels,
        }
