from keras_vqvae2.models.pixelsnail.pixelsnail_presets import PIXELSNAIL_PRESETS
from keras_vqvae2.models.pixelsnail.pixelsnail_prior import PixelSnailPrior
from keras_vqvae2.models.preset_registry import register_presets

register_presets(PixelSnailPrior, PIXELSNAIL_PRESETS)

__all__ = ["PixelSnailPrior"]
