from keras_vqvae2.models.gated_pixelcnn.gated_pixelcnn import GatedPixelCNN
from keras_vqvae2.models.gated_pixelcnn.gated_pixelcnn_prior import GatedPixelCNNPrior
from keras_vqvae2.models.pixels.pixel_presets import GATED_PIXELCNN_PRESETS
from keras_vqvae2.models.preset_registry import register_presets

register_presets(GatedPixelCNN, GATED_PIXELCNN_PRESETS)

__all__ = ["GatedPixelCNN", "GatedPixelCNNPrior"]
