from keras_vqvae2.losses.lpips_distance import LPIPSDistance
from keras_vqvae2.losses.pixel_errors import AbsoluteError, SquaredError
from keras_vqvae2.losses.reconstruction_loss import ReconstructionLoss

__all__ = ["AbsoluteError", "LPIPSDistance", "ReconstructionLoss", "SquaredError"]
