from keras_vqvae2.models.preset_registry import register_presets
from keras_vqvae2.models.vqgan.vqgan import VQGAN
from keras_vqvae2.models.vqgan.vqgan_presets import VQGAN_PRESETS

register_presets(VQGAN, VQGAN_PRESETS)

__all__ = ["VQGAN"]
