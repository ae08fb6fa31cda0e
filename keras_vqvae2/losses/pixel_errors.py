import keras
from keras import ops

from keras_vqvae2.hints import Tensor
from keras_vqvae2.losses.reconstruction_loss import ReconstructionLoss


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class SquaredError(ReconstructionLoss):
    """Mean over pixels and channels of `(x - x')^2` (Razavi et al. 2019, equation 2)."""

    def __call__(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        return _mean(ops.square(images - reconstructions))


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class AbsoluteError(ReconstructionLoss):
    """Mean over pixels and channels of `|x - x'|`, as in VQGAN (Esser et al. 2021, 2012.09841)."""

    def __call__(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        return _mean(ops.abs(images - reconstructions))


def _mean(error):
    return ops.mean(ops.cast(error, "float32"), axis=(1, 2, 3))  # (batch,)
