from keras_vqvae2.metrics.codebook_perplexity import CodebookPerplexity
from keras_vqvae2.metrics.codebook_usage import CodebookUsage
from keras_vqvae2.metrics.peak_signal_noise_ratio import PeakSignalNoiseRatio

__all__ = ["CodebookPerplexity", "CodebookUsage", "PeakSignalNoiseRatio"]
