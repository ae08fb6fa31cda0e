from typing import Any, Self

from keras_vqvae2.hints import Config, Shape, Tensor


class ReconstructionLoss:
    """How far reconstructions are from images: a function of two batches, with a config.

    `VQVAE2` takes it among its `reconstruction_losses`:

    ```python
    import keras
    from keras import ops
    import keras_vqvae2

    @keras.saving.register_keras_serializable(package="my_package")
    class CharbonnierLoss(keras_vqvae2.losses.ReconstructionLoss):
        \"\"\"sqrt((x - x')^2 + epsilon^2), between absolute and squared error.\"\"\"

        def __init__(self, epsilon=1e-3):
            self.epsilon = epsilon

        def __call__(self, images, reconstructions):
            error = ops.sqrt(ops.square(images - reconstructions) + self.epsilon**2)
            return ops.mean(error, axis=(1, 2, 3))

        def get_config(self):
            return {"epsilon": self.epsilon}

    losses = {"charbonnier": (CharbonnierLoss(), 1.0)}
    vqvae = keras_vqvae2.VQVAE2((16, 16, 3), hidden_units=8, reconstruction_losses=losses)
    ```
    """

    loads_from_presets = True

    def __call__(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """Computes the loss of each image.

        Args:
            images: float32 in `[0, 1]`, shape `(batch, height, width, channels)`.
            reconstructions: float32 of the same shape, not clipped.

        Returns:
            float32 of shape `(batch,)`.
        """
        raise TypeError(f"{type(self).__name__} does not say what it computes.")

    def check_shape(self, shape: Shape) -> None:
        """Raises `ValueError` for images of a shape that it does not take, `(None, H, W, C)`."""

    def prepare(self) -> None:
        """Reads what it needs; raises before the first step what would raise in it."""

    def get_config(self) -> Config:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**config)
