from keras_vqvae2 import (
    callbacks,
    codes,
    compression,
    converters,
    data,
    deploy,
    evaluation,
    features,
    files,
    layers,
    losses,
    metrics,
    moved_names,
    plots,
)
from keras_vqvae2.models.adversarial import (
    AdversarialVQVAE2,
    BlurDiscriminator,
    PatchDiscriminator,
)
from keras_vqvae2.models.code_prior import AutoregressivePrior, CodePrior
from keras_vqvae2.models.gated_pixelcnn import GatedPixelCNN, GatedPixelCNNPrior
from keras_vqvae2.models.image_generator import HierarchicalImageGenerator
from keras_vqvae2.models.masked_transformer import MaskedTransformerPrior
from keras_vqvae2.models.pixelcnnpp import PixelCNNPlusPlus
from keras_vqvae2.models.pixelrnn import PixelCNN, PixelRNN
from keras_vqvae2.models.pixels.pixel_model import PixelModel
from keras_vqvae2.models.pixelsnail import PixelSnailPrior
from keras_vqvae2.models.preset_model import PresetModel
from keras_vqvae2.models.rejection_sampling import RejectionResult, rejection_sample
from keras_vqvae2.models.transformer import TransformerPrior
from keras_vqvae2.models.vqgan import VQGAN
from keras_vqvae2.models.vqvae2 import VQVAE2
from keras_vqvae2.replicas import Replicas
from keras_vqvae2.version import __version__

__all__ = [
    "VQGAN",
    "VQVAE2",
    "AdversarialVQVAE2",
    "AutoregressivePrior",
    "BlurDiscriminator",
    "CodePrior",
    "GatedPixelCNN",
    "GatedPixelCNNPrior",
    "HierarchicalImageGenerator",
    "PatchDiscriminator",
    "MaskedTransformerPrior",
    "PixelCNN",
    "PixelCNNPlusPlus",
    "PixelModel",
    "PixelRNN",
    "PixelSnailPrior",
    "PresetModel",
    "RejectionResult",
    "Replicas",
    "TransformerPrior",
    "__version__",
    "callbacks",
    "codes",
    "compression",
    "converters",
    "data",
    "deploy",
    "evaluation",
    "features",
    "files",
    "layers",
    "losses",
    "metrics",
    "plots",
    "rejection_sample",
]

moved_names.serve(__name__)
