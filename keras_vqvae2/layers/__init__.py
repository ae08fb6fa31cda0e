from keras_vqvae2.layers.binary_spherical_quantizer import BinarySphericalQuantizer
from keras_vqvae2.layers.categorical import Categorical
from keras_vqvae2.layers.causal_self_attention import CausalSelfAttention
from keras_vqvae2.layers.code_conv2d import CodeConv2D
from keras_vqvae2.layers.condition_dropout import ConditionDropout
from keras_vqvae2.layers.discretized_logistic_mixture import DiscretizedLogisticMixture
from keras_vqvae2.layers.finite_scalar_quantizer import FiniteScalarQuantizer
from keras_vqvae2.layers.gated_residual_block import GatedResidualBlock
from keras_vqvae2.layers.gumbel_vector_quantizer import GumbelVectorQuantizer
from keras_vqvae2.layers.index_backpropagation_quantizer import IndexBackpropagationQuantizer
from keras_vqvae2.layers.lookup_free_quantizer import LookupFreeQuantizer
from keras_vqvae2.layers.masked_conv2d import MaskedConv2D
from keras_vqvae2.layers.pixel_distribution import PixelDistribution
from keras_vqvae2.layers.post_norm_transformer_block import PostNormTransformerBlock
from keras_vqvae2.layers.quantizer import Quantizer
from keras_vqvae2.layers.quantizer_dropout import QuantizerDropout
from keras_vqvae2.layers.residual_stack import ResidualStack
from keras_vqvae2.layers.residual_vector_quantizer import ResidualVectorQuantizer
from keras_vqvae2.layers.rotary_embedding_2d import RotaryEmbedding2D
from keras_vqvae2.layers.self_attention import SelfAttention
from keras_vqvae2.layers.sim_vector_quantizer import SimVectorQuantizer
from keras_vqvae2.layers.swiglu import SwiGLU
from keras_vqvae2.layers.transformer_block import TransformerBlock
from keras_vqvae2.layers.vector_quantizer import VectorQuantizer
from keras_vqvae2.layers.vector_quantizer_ema import VectorQuantizerEMA

__all__ = [
    "Categorical",
    "CausalSelfAttention",
    "CodeConv2D",
    "ConditionDropout",
    "DiscretizedLogisticMixture",
    "BinarySphericalQuantizer",
    "FiniteScalarQuantizer",
    "GatedResidualBlock",
    "GumbelVectorQuantizer",
    "IndexBackpropagationQuantizer",
    "LookupFreeQuantizer",
    "MaskedConv2D",
    "PixelDistribution",
    "PostNormTransformerBlock",
    "Quantizer",
    "QuantizerDropout",
    "ResidualStack",
    "ResidualVectorQuantizer",
    "RotaryEmbedding2D",
    "SelfAttention",
    "SimVectorQuantizer",
    "SwiGLU",
    "TransformerBlock",
    "VectorQuantizer",
    "VectorQuantizerEMA",
]
