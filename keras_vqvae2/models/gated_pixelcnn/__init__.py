from keras_vqvae2.models.gated_pixelcnn.gated_pixelcnn_prior import GatedPixelCNNPrior

__all__ = ["GatedPixelCNNPrior"]
