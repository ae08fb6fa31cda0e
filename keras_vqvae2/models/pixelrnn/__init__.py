from keras_vqvae2.models.pixelrnn.pixelcnn import PixelCNN
from keras_vqvae2.models.pixelrnn.pixelrnn import PixelRNN
from keras_vqvae2.models.pixels.pixel_presets import PIXELCNN_PRESETS, PIXELRNN_PRESETS
from keras_vqvae2.models.preset_registry import register_presets

register_presets(PixelCNN, PIXELCNN_PRESETS)
register_presets(PixelRNN, PIXELRNN_PRESETS)

__all__ = ["PixelCNN", "PixelRNN"]
