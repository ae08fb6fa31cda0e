import numpy as np
import pytest

from keras_vqvae2 import VQVAE2
from keras_vqvae2.evaluation import evaluate_reconstructions
from keras_vqvae2.layers import (
    LookupFreeQuantizer,
    ResidualVectorQuantizer,
    VectorQuantizerEMA,
)
from keras_vqvae2.metrics import LPIPS, PeakSignalNoiseRatio, StructuralSimilarity


def small(**kwargs):
    sizes = {"hidden_units": 8, "residual_units": 4, "num_embeddings": 16}
    return VQVAE2((32, 32, 3), downsample_factors=(2,) * kwargs["num_levels"], **sizes, **kwargs)


def test_every_number_against_its_metric(rng):
    vqvae = small(num_levels=3)
    images = rng.uniform(size=(5, 32, 32, 3)).astype("float32")
    measured = evaluate_reconstructions(vqvae, images)
    codes = vqvae.encode(images)
    kept = {
        "": codes,
        "_top": {"top": codes["top"]},
        "_middle": {"top": codes["top"], "middle": codes["middle"]},
    }
    for name, levels in kept.items():
        psnr = PeakSignalNoiseRatio()
        psnr.update_state(images, vqvae.decode(levels))
        assert measured[f"psnr{name}"] == pytest.approx(float(psnr.result()), rel=1e-4)
    for metric in (StructuralSimilarity(), LPIPS()):
        metric.update_state(images, vqvae.decode(codes))
        assert measured[metric.name] == pytest.approx(float(metric.result()), rel=1e-3)
    for level, values in codes.items():
        share = np.bincount(values.ravel(), minlength=16) / values.size
        entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
        assert measured[f"perplexity_{level}"] == pytest.approx(np.exp(entropy), rel=1e-4)
        assert measured[f"usage_{level}"] == pytest.approx((share > 0).mean())
    assert measured["images"] == 5
    assert measured["bits_per_pixel"] == (4**2 + 8**2 + 16**2) * 4 / 32**2


def test_several_codes_a_position_are_of_codebooks_of_their_own(rng):
    images = rng.uniform(size=(5, 32, 32, 3)).astype("float32")
    quantizer = {
        "top": LookupFreeQuantizer(6, factorized_bits=(2, 4)),
        "bottom": ResidualVectorQuantizer(VectorQuantizerEMA(16, 8), 2, shared_codebook=True),
    }
    vqvae = VQVAE2((32, 32, 3), hidden_units=8, residual_units=4, quantizer=quantizer)
    measured = evaluate_reconstructions(vqvae, images, None)
    codes = vqvae.encode(images)
    first, second = (len(np.unique(codes["top"][..., i])) for i in range(2))
    assert measured["usage_top"] == pytest.approx((first / 4 + second / 16) / 2)
    assert measured["usage_bottom"] == pytest.approx(len(np.unique(codes["bottom"])) / 16)
    assert measured["bits_per_pixel"] == (4**2 * 6 + 8**2 * 2 * 4) / 32**2


def test_batches_with_labels_in_uint8_measure_the_same(rng):
    vqvae = small(num_levels=2)
    pixels = rng.integers(256, size=(5, 32, 32, 3), dtype="uint8")
    batches = [(pixels[:3], np.zeros(3)), (pixels[3:], np.zeros(2))]
    measured = evaluate_reconstructions(vqvae, batches, perceptual_network=None)
    assert "lpips" not in measured
    expected = evaluate_reconstructions(vqvae, (pixels / 255.0).astype("float32"), None)
    assert measured == pytest.approx(expected, rel=1e-4)


def test_an_empty_source_is_refused():
    with pytest.raises(ValueError, match="Received: an empty source"):
        evaluate_reconstructions(small(num_levels=2), [])
