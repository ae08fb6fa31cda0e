from typing import Any

import keras
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class QuantizerDropout(keras.layers.Layer):
    """While training, replaces a level's codes by their mean code, in a share `rate` of images.

    What reads the codes must then make do without that level in some images, so coarser levels
    learn to hold what matters most. A dropped image sends no gradient through the level.

    Args:
        rate: Float in `[0, 1)`.
        seed: None or an integer.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        quantized: Codes of shape `(batch, height, width, D)`.
        mean: What stands in for them, of the same shape; no gradient passes.
        training: Boolean; without training `quantized` comes back as it is.

    Raises:
        ValueError: If `rate` is out of range.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    dropout = keras_vqvae2.layers.QuantizerDropout(0.5)
    codes = np.ones((8, 4, 4, 2), "float32")
    mixed = dropout(codes, 0.0 * codes, training=True)  # some images all 0, the others all 1
    ```

    Reference:
        - Zeghidour et al. 2021, "SoundStream", arXiv 2107.03312, section III.C, for the
          quantizers of a residual cascade. VQ-VAE-2 has no such dropout.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"Expected a number in [0, 1). Received: rate={rate}")
        self.rate = rate
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, quantized: Tensor, mean: Tensor, training: bool | None = None) -> Tensor:
        if not training:
            return quantized
        # Drawn for the whole batch, of which a replica takes its part: replicas change nothing.
        shape = (backend.replica_count(), ops.shape(quantized)[0], 1, 1, 1)
        uniforms = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        keep = ops.take(uniforms, backend.replica_index(), axis=0) >= self.rate  # (B, 1, 1, 1)
        return ops.where(keep, quantized, ops.stop_gradient(mean))

    def compute_output_shape(self, quantized_shape: Shape, mean_shape: Shape) -> Shape:
        return quantized_shape

    def get_config(self) -> Config:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
