"""Losses of a discriminator and of what it judges, of its logits: higher is "real"."""

from typing import Any

import keras
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Config, Tensor


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Half of `mean(relu(1 - real)) + mean(relu(1 + fake))`: nothing beyond the margin counts.

    Args:
        real: float32, logits of images, any shape.
        fake: float32, logits of reconstructions.

    Returns:
        float32 of shape `()`.

    Reference:
        - Lim, Ye 2017, "Geometric GAN", arXiv 1705.02894.
    """
    return 0.5 * (ops.mean(ops.relu(1.0 - real)) + ops.mean(ops.relu(1.0 + fake)))


def hinge_generator_loss(fake: Tensor) -> Tensor:
    """`-mean(fake)`, of float32 logits of reconstructions; goes with the hinge loss."""
    return -ops.mean(fake)


def vanilla_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Half of `mean(softplus(-real)) + mean(softplus(fake))`: the cross-entropy.

    Args:
        real: float32, logits of images, any shape.
        fake: float32, logits of reconstructions.

    Returns:
        float32 of shape `()`.

    Reference:
        - Goodfellow et al. 2014, "Generative Adversarial Nets", arXiv 1406.2661.
    """
    return 0.5 * non_saturating_discriminator_loss(real, fake)


def non_saturating_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """`mean(softplus(-real)) + mean(softplus(fake))`, twice `vanilla_discriminator_loss`."""
    return ops.mean(ops.softplus(-real)) + ops.mean(ops.softplus(fake))


def non_saturating_generator_loss(fake: Tensor) -> Tensor:
    """`mean(softplus(-fake))`, of float32 logits of reconstructions."""
    return ops.mean(ops.softplus(-fake))


# By name, the loss of the discriminator and that of what it judges.
ADVERSARIAL_LOSSES = {
    "hinge": (hinge_discriminator_loss, hinge_generator_loss),
    "vanilla": (vanilla_discriminator_loss, hinge_generator_loss),
    "non_saturating": (non_saturating_discriminator_loss, non_saturating_generator_loss),
}


def adaptive_weight(
    reconstruction_gradient: Tensor, adversarial_gradient: Tensor, clip: float = 1e4
) -> Tensor:
    """How much the adversarial loss must weigh to move the decoder's last kernel as far.

    Args:
        reconstruction_gradient: Gradient of the reconstruction losses at the kernel.
        adversarial_gradient: Gradient of the adversarial loss at it.
        clip: Positive float, the most.

    Returns:
        float32 of shape `()`: the ratio of their norms.

    Reference:
        - Esser, Rombach, Ommer 2021, "VQGAN", arXiv 2012.09841, equation 7.
    """
    norms = [
        ops.sqrt(ops.sum(ops.square(ops.cast(gradient, "float32"))))
        for gradient in (reconstruction_gradient, adversarial_gradient)
    ]
    return ops.clip(norms[0] / (norms[1] + 1e-4), 0.0, clip)


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class LeCAM(keras.layers.Layer):
    """Keeps logits near the averages of the other kind, which calms training on few images.

    `relu(mean(real) - average fake)^2 + relu(average real - mean(fake))^2`, where the averages
    move on by `1 - decay` while training, after they were looked at.

    Args:
        decay: Float in `[0, 1)`. Defaults to 0.999.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        real: float32, logits of images, any shape.
        fake: float32, logits of reconstructions.
        training: Boolean; only then the averages move.

    Returns:
        float32 of shape `()`.

    Raises:
        ValueError: If `decay` is out of range.

    Reference:
        - Tseng et al. 2021, "Regularizing Generative Adversarial Networks under Limited Data",
          arXiv 2104.03310, section 4.1.
    """

    def __init__(self, decay: float = 0.999, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        if not 0 <= decay < 1:
            raise ValueError(f"Expected a number in [0, 1). Received: decay={decay}")
        self.decay = decay
        scalar = {"shape": (), "initializer": "zeros", "trainable": False}
        self.average_real = self.add_weight(name="average_real", **scalar)
        self.average_fake = self.add_weight(name="average_fake", **scalar)
        self.built = True

    def call(self, real: Tensor, fake: Tensor, training: bool | None = None) -> Tensor:
        real, fake = ops.mean(real), ops.mean(fake)
        lead = ops.relu(real - ops.stop_gradient(self.average_fake + 0.0))
        lag = ops.relu(ops.stop_gradient(self.average_real + 0.0) - fake)
        if training:
            for average, mean in ((self.average_real, real), (self.average_fake, fake)):
                mean = backend.replica_sum(ops.stop_gradient(mean)) / backend.replica_count()
                average.assign(self.decay * average + (1.0 - self.decay) * mean)
        return ops.square(lead) + ops.square(lag)

    def get_config(self) -> Config:
        return {**super().get_config(), "decay": self.decay}
