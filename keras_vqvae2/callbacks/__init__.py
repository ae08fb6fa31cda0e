from keras_vqvae2.callbacks.best_preset import BestPreset
from keras_vqvae2.callbacks.reconstruction_grid import ReconstructionGrid
from keras_vqvae2.callbacks.training_checkpoint import TrainingCheckpoint

__all__ = ["BestPreset", "ReconstructionGrid", "TrainingCheckpoint"]
