from keras_vqvae2.metrics.codebook_perplexity import CodebookPerplexity
from keras_vqvae2.metrics.codebook_usage import CodebookUsage
from keras_vqvae2.metrics.lpips import LPIPS, LPIPSDistance
from keras_vqvae2.metrics.peak_signal_noise_ratio import PeakSignalNoiseRatio
from keras_vqvae2.metrics.reconstructions import evaluate_reconstructions
from keras_vqvae2.metrics.structural_similarity import StructuralSimilarity

__all__ = [
    "LPIPS",
    "CodebookPerplexity",
    "CodebookUsage",
    "LPIPSDistance",
    "PeakSignalNoiseRatio",
    "StructuralSimilarity",
    "evaluate_reconstructions",
]
