from keras_vqvae2.callbacks.reconstruction_grid import ReconstructionGrid
from keras_vqvae2.callbacks.training_checkpoint import TrainingCheckpoint

__all__ = ["ReconstructionGrid", "TrainingCheckpoint"]
