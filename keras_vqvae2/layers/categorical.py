from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2.decoding.sampling import Sampling
from keras_vqvae2.hints import Tensor
from keras_vqvae2.layers.pixel_distribution import PixelDistribution


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class Categorical(PixelDistribution):
    """Each value has a probability of its own: a softmax over the levels, for each colour.

    Parameters are logits, those of a colour side by side. With several colours the network gives
    the logits of green after it has seen red, and those of blue after both: it masks colours.

    Args:
        colours: Positive integer, values of a position. Defaults to 3.
        levels: Integer of at least 2. Defaults to 256 (paper); 2 for binary images.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        parameters: float32 of shape `(..., colours * levels)`.
        uniforms: float32 in `[0, 1)` of shape `(..., colours)`.

    Returns:
        int32 of shape `(..., colours)`, drawn by inverse CDF.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    categorical = keras_vqvae2.layers.Categorical(colours=3, levels=4)
    logits = np.zeros((1, 8, 8, categorical.num_parameters), "float32")
    print(categorical.nats(np.zeros((1, 8, 8, 3), "int32"), logits)[0, 0, 0])  # 3 log 4
    ```

    Reference:
        - van den Oord et al. 2016, "Pixel Recurrent Neural Networks", arXiv 1601.06759, section 2.
    """

    colour_by_colour = True

    def __init__(self, colours: int = 3, levels: int = 256, **kwargs: Any) -> None:
        super().__init__(colours, levels, **kwargs)

    @property
    def num_parameters(self) -> int:
        return self.colours * self.levels

    def _logits(self, parameters):
        parameters = ops.convert_to_tensor(parameters, "float32")
        return ops.reshape(parameters, (*ops.shape(parameters)[:-1], self.colours, self.levels))

    def nats(self, values: Tensor, parameters: Tensor) -> Tensor:
        values = ops.cast(values, "float32")
        known = ops.isfinite(values)  # a NaN among the pixels stays one
        nats = cross_entropy(ops.where(known, values, 0.0), self._logits(parameters))
        return ops.sum(ops.where(known, nats, np.nan), axis=-1)

    def sampling(
        self, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
    ) -> Sampling:
        return Sampling(temperature, top_k, top_p)

    def call(self, parameters: Tensor, uniforms: Tensor) -> Tensor:
        probabilities = ops.softmax(self._logits(parameters), axis=-1)
        reached = ops.cumsum(probabilities, axis=-1)  # (..., colours, levels)
        beyond = reached > ops.convert_to_tensor(uniforms, "float32")[..., None] * reached[..., -1:]
        return ops.cast(ops.argmax(ops.cast(beyond, "int32"), axis=-1), "int32")


def cross_entropy(values: Tensor, logits: Tensor) -> Tensor:
    """Nats of each value, of logits with one more axis."""
    values = ops.cast(values, "int32")
    return keras.losses.sparse_categorical_crossentropy(values, logits, from_logits=True)
