from keras_vqvae2.models.pixelcnnpp.pixelcnnpp import PixelCNNPlusPlus

__all__ = ["PixelCNNPlusPlus"]
