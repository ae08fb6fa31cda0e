import math

from keras_vqvae2.checks import check_positive
from keras_vqvae2.layers import VectorQuantizer, VectorQuantizerEMA
from keras_vqvae2.metrics import LPIPSDistance
from keras_vqvae2.models.vqvae2.image_checks import check_image_shape
from keras_vqvae2.models.vqvae2.levels import check_factors

QUANTIZERS = {"ema": VectorQuantizerEMA, "loss": VectorQuantizer}


def check_config(
    image_shape,
    downsample_factors,
    data_variance,
    quantizer,
    quantizer_dropout,
    perceptual_weight,
    perceptual_network,
    **sizes,
):
    """Raises `ValueError` unless a `VQVAE2` can be built. Returns how much each level shrinks."""
    check_positive(**sizes)
    if sizes["hidden_units"] % 2:
        raise ValueError(f"Expected an even number. Received: hidden_units={sizes['hidden_units']}")
    if not data_variance > 0:
        raise ValueError(f"Expected a positive number. Received: data_variance={data_variance}")
    factors = check_factors(downsample_factors, sizes["num_levels"])
    if len(image_shape) != 3 or any(int(s) != s or s < 1 for s in image_shape):
        raise ValueError(
            "Expected positive integers (height, width, channels). "
            f"Received: image_shape={image_shape}"
        )
    shape = (None, *image_shape)
    check_image_shape(shape, image_shape[-1], math.prod(factors), "image_shape")
    if quantizer not in QUANTIZERS:
        raise ValueError(f"Expected one of {sorted(QUANTIZERS)}. Received: quantizer={quantizer!r}")
    if not 0 <= quantizer_dropout < 1:
        raise ValueError(
            f"Expected a number in [0, 1). Received: quantizer_dropout={quantizer_dropout}"
        )
    if perceptual_weight < 0:
        raise ValueError(
            f"Expected a non-negative weight. Received: perceptual_weight={perceptual_weight}"
        )
    if perceptual_weight:
        LPIPSDistance.check(perceptual_network, shape)
    return factors
