from keras_vqvae2.metrics.codebook_perplexity import CodebookPerplexity
from keras_vqvae2.metrics.codebook_usage import CodebookUsage
from keras_vqvae2.metrics.density_coverage import DensityCoverage, density_coverage
from keras_vqvae2.metrics.feature_statistics import FeatureStatistics
from keras_vqvae2.metrics.frechet_distance import FrechetDistance, frechet_distance
from keras_vqvae2.metrics.inception_score import InceptionScore, inception_score
from keras_vqvae2.metrics.lpips import LPIPS
from keras_vqvae2.metrics.peak_signal_noise_ratio import PeakSignalNoiseRatio
from keras_vqvae2.metrics.precision_recall import PrecisionRecall, precision_recall
from keras_vqvae2.metrics.structural_similarity import StructuralSimilarity

__all__ = [
    "LPIPS",
    "CodebookPerplexity",
    "CodebookUsage",
    "DensityCoverage",
    "FeatureStatistics",
    "FrechetDistance",
    "InceptionScore",
    "PeakSignalNoiseRatio",
    "PrecisionRecall",
    "StructuralSimilarity",
    "density_coverage",
    "frechet_distance",
    "inception_score",
    "precision_recall",
]
