from keras_vqvae2 import callbacks, converters, data, features, layers, metrics
from keras_vqvae2.data_parallel import DataParallel
from keras_vqvae2.models.image_generator import HierarchicalImageGenerator
from keras_vqvae2.models.pixelsnail import PixelSnailPrior
from keras_vqvae2.models.preset_model import PresetModel
from keras_vqvae2.models.rejection_sampling import RejectionResult, rejection_sample
from keras_vqvae2.models.vqvae2 import VQVAE2
from keras_vqvae2.version import __version__

__all__ = [
    "VQVAE2",
    "DataParallel",
    "HierarchicalImageGenerator",
    "PixelSnailPrior",
    "PresetModel",
    "RejectionResult",
    "__version__",
    "callbacks",
    "converters",
    "data",
    "features",
    "layers",
    "metrics",
    "rejection_sample",
]
