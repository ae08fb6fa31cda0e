from keras_vqvae2.metrics.classification_accuracy import classification_accuracy_score
from keras_vqvae2.metrics.classifier_protocol import (
    ClassifierProtocol,
    resnet50_imagenet_protocol,
)
from keras_vqvae2.metrics.codebook_perplexity import CodebookPerplexity
from keras_vqvae2.metrics.codebook_usage import CodebookUsage
from keras_vqvae2.metrics.density_coverage import DensityCoverage, density_coverage
from keras_vqvae2.metrics.feature_statistics import FeatureStatistics
from keras_vqvae2.metrics.frechet_distance import FrechetDistance, frechet_distance
from keras_vqvae2.metrics.inception_score import InceptionScore, inception_score
from keras_vqvae2.metrics.likelihood import evaluate_likelihood, position_nats
from keras_vqvae2.metrics.lpips import LPIPS, LPIPSDistance
from keras_vqvae2.metrics.peak_signal_noise_ratio import PeakSignalNoiseRatio
from keras_vqvae2.metrics.precision_recall import PrecisionRecall, precision_recall
from keras_vqvae2.metrics.reconstructions import evaluate_reconstructions
from keras_vqvae2.metrics.structural_similarity import StructuralSimilarity

__all__ = [
    "LPIPS",
    "ClassifierProtocol",
    "CodebookPerplexity",
    "CodebookUsage",
    "DensityCoverage",
    "FeatureStatistics",
    "FrechetDistance",
    "InceptionScore",
    "LPIPSDistance",
    "PeakSignalNoiseRatio",
    "PrecisionRecall",
    "StructuralSimilarity",
    "classification_accuracy_score",
    "density_coverage",
    "evaluate_likelihood",
    "evaluate_reconstructions",
    "frechet_distance",
    "inception_score",
    "position_nats",
    "precision_recall",
    "resnet50_imagenet_protocol",
]
