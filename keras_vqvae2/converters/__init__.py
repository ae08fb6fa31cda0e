from keras_vqvae2.converters.llamagen import convert_llamagen
from keras_vqvae2.converters.maskgit import convert_maskgit
from keras_vqvae2.converters.pixelcnnpp import (
    convert_openai_pixelcnnpp,
    convert_pytorch_pixelcnnpp,
)
from keras_vqvae2.converters.pytorch_gated_pixelcnn import convert_pytorch_gated_pixelcnn
from keras_vqvae2.converters.pytorch_pixelsnail import convert_pytorch_pixelsnail
from keras_vqvae2.converters.pytorch_vqvae2 import convert_pytorch_vqvae2
from keras_vqvae2.converters.theano_pixelrnn import convert_theano_pixelrnn
from keras_vqvae2.converters.vqgan import convert_llamagen_tokenizer, convert_taming_vqgan

__all__ = [
    "convert_llamagen",
    "convert_llamagen_tokenizer",
    "convert_maskgit",
    "convert_openai_pixelcnnpp",
    "convert_pytorch_gated_pixelcnn",
    "convert_pytorch_pixelcnnpp",
    "convert_pytorch_pixelsnail",
    "convert_pytorch_vqvae2",
    "convert_taming_vqgan",
    "convert_theano_pixelrnn",
]
