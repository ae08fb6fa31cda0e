from keras_vqvae2.models.pixelcnnpp.pixelcnnpp import PixelCNNPlusPlus
from keras_vqvae2.models.pixels.pixel_presets import PIXELCNNPP_PRESETS
from keras_vqvae2.models.preset_registry import register_presets

register_presets(PixelCNNPlusPlus, PIXELCNNPP_PRESETS)

__all__ = ["PixelCNNPlusPlus"]
