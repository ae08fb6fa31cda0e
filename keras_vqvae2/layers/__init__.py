from keras_vqvae2.layers.residual_stack import ResidualStack
from keras_vqvae2.layers.vector_quantizer import VectorQuantizer
from keras_vqvae2.layers.vector_quantizer_ema import VectorQuantizerEMA

__all__ = ["ResidualStack", "VectorQuantizer", "VectorQuantizerEMA"]
