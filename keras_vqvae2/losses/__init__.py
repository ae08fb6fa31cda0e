from keras_vqvae2.losses.adversarial import (
    LeCAM,
    adaptive_weight,
    hinge_discriminator_loss,
    hinge_generator_loss,
    non_saturating_discriminator_loss,
    non_saturating_generator_loss,
    vanilla_discriminator_loss,
)
from keras_vqvae2.losses.logistic_mixture_loss import LogisticMixtureLoss
from keras_vqvae2.losses.lpips_distance import LPIPSDistance
from keras_vqvae2.losses.pixel_errors import AbsoluteError, SquaredError
from keras_vqvae2.losses.reconstruction_loss import ReconstructionLoss

__all__ = [
    "AbsoluteError",
    "LPIPSDistance",
    "LeCAM",
    "LogisticMixtureLoss",
    "ReconstructionLoss",
    "SquaredError",
    "adaptive_weight",
    "hinge_discriminator_loss",
    "hinge_generator_loss",
    "non_saturating_discriminator_loss",
    "non_saturating_generator_loss",
    "vanilla_discriminator_loss",
]
