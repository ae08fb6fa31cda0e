from keras_vqvae2.models.adversarial.adversarial_vqvae2 import AdversarialVQVAE2
from keras_vqvae2.models.adversarial.discriminators import BlurDiscriminator, PatchDiscriminator

__all__ = ["AdversarialVQVAE2", "BlurDiscriminator", "PatchDiscriminator"]
