import math

import keras

from keras_vqvae2.hints import Dataset, Tensor
from keras_vqvae2.image_batches import image_batches, to_unit_floats
from keras_vqvae2.metrics.codebook_perplexity import CodebookPerplexity
from keras_vqvae2.metrics.codebook_usage import CodebookUsage
from keras_vqvae2.metrics.lpips import LPIPS
from keras_vqvae2.metrics.peak_signal_noise_ratio import PeakSignalNoiseRatio
from keras_vqvae2.metrics.structural_similarity import StructuralSimilarity
from keras_vqvae2.models.vqvae2 import VQVAE2


def evaluate_reconstructions(
    vqvae: VQVAE2, images: Tensor | Dataset, perceptual_network: str | None = "alexnet"
) -> dict[str, float]:
    """Measures what a `VQVAE2` keeps of images.

    Args:
        vqvae: `VQVAE2`.
        images: An array of images, or batches of them, with labels (which are ignored) or without,
            such as a `tf.data.Dataset`: floats in `[0, 1]` or uint8, `(N, H, W, C)`.
        perceptual_network: Network of `LPIPS`; None leaves it out.

    Returns:
        Dict of floats: `images`, their number; `psnr` in dB, `ssim` and `lpips`, means over images;
        `psnr_…` for each level but the finest, with the finer levels left out; `perplexity_…` and
        `usage_…` of each level; `bits_per_pixel`, codes times `log2(num_embeddings)`.

    Raises:
        ValueError: If there are no images, or they do not fit the model.
        ImportError: If LPIPS is wanted and its weights are not installed.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    vqvae = keras_vqvae2.VQVAE2((32, 32, 3), hidden_units=8, residual_units=4)
    images = np.random.default_rng(0).uniform(size=(4, 32, 32, 3))
    measured = keras_vqvae2.evaluation.evaluate_reconstructions(vqvae, images)
    print(round(measured["bits_per_pixel"], 2))  # 0.7
    ```
    """
    of_images: dict[str, keras.metrics.Metric] = {
        "psnr": PeakSignalNoiseRatio(),
        "ssim": StructuralSimilarity(),
    }
    if perceptual_network is not None:
        of_images["lpips"] = LPIPS(perceptual_network)
    of_upper_levels = {f"psnr_{level}": PeakSignalNoiseRatio() for level in vqvae.levels[:-1]}
    of_codes = {
        f"{name}_{level}": metric(count)
        for name, metric in (("perplexity", CodebookPerplexity), ("usage", CodebookUsage))
        for level, count in vqvae.codebook_sizes.items()
    }
    count = 0
    for batch in image_batches(images, 64):
        codes = vqvae.encode(batch)
        pixels = to_unit_floats(batch)
        reconstructions = vqvae.decode(codes)
        for metric in of_images.values():
            metric.update_state(pixels, reconstructions)
        for i, metric in enumerate(of_upper_levels.values()):
            upper = {level: codes[level] for level in vqvae.levels[: i + 1]}
            metric.update_state(pixels, vqvae.decode(upper))
        for name, metric in of_codes.items():
            metric.update_state(codes[name.split("_", 1)[1]])
        count += len(batch)
        bits = sum(
            math.prod(codes[level].shape[1:3]) * sum(map(math.log2, sizes))
            for level, sizes in vqvae.code_sizes.items()
        )
        bits_per_pixel = bits / math.prod(batch.shape[1:3])
    if not count:
        raise ValueError("Expected images. Received: an empty source")
    measured = {**of_images, **of_upper_levels, **of_codes}
    return {
        "images": count,
        "bits_per_pixel": bits_per_pixel,
        **{name: float(metric.result()) for name, metric in measured.items()},
    }
