from keras_vqvae2.models.preset_registry import register_presets
from keras_vqvae2.models.vqvae2.vqvae2 import VQVAE2
from keras_vqvae2.models.vqvae2.vqvae2_presets import VQVAE2_PRESETS

register_presets(VQVAE2, VQVAE2_PRESETS)

__all__ = ["VQVAE2"]
