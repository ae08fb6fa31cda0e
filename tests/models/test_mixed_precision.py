import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_vqvae2 import VQVAE2
from keras_vqvae2.data import sample_photographs
from keras_vqvae2.metrics import PeakSignalNoiseRatio

BACKEND_TESTS = Path(__file__).parents[1] / "backend"
spec = importlib.util.spec_from_file_location("loss_curve", BACKEND_TESTS / "loss_curve.py")
loss_curve = importlib.util.module_from_spec(spec)
spec.loader.exec_module(loss_curve)

HALF = ["mixed_bfloat16", "mixed_float16"]


def psnr(images, reconstructions):
    metric = PeakSignalNoiseRatio()
    metric.update_state(images, reconstructions)
    return float(metric.result())


@pytest.mark.parametrize("policy", HALF)
def test_a_trained_model_reconstructs_as_well_in_half_precision(policy):
    images = sample_photographs() / np.float32(255)
    whole = VQVAE2.from_preset("vqvae2_imagenette_128")
    half = VQVAE2.from_preset("vqvae2_imagenette_128", dtype=policy)
    codes, half_codes = whole.encode(images), half.encode(images)
    difference = psnr(images, half.decode(half_codes)) - psnr(images, whole.decode(codes))
    assert abs(difference) < 0.1
    for level in whole.levels:
        assert (codes[level] == half_codes[level]).mean() > 0.75
        for variable in half.get_layer(f"quantizer_{level}").variables:
            assert keras.backend.standardize_dtype(variable.dtype) in ("float32", "int32")


@pytest.mark.slow
def test_200_steps_stay_finite_and_end_near_float32():
    # At ten times DeepMind's learning rate two float32 runs that round differently end 5% apart.
    last = {}
    for policy in ["float32", *HALF]:
        model, losses = loss_curve.loss_curve(policy, steps=200, learning_rate=3e-4)
        assert np.isfinite(losses).all()
        for level in model.levels:
            codebook = model.get_layer(f"quantizer_{level}").codebook
            assert keras.backend.standardize_dtype(codebook.dtype) == "float32"
        last[policy] = np.mean(losses[-20:])
        assert last[policy] < 0.75 * losses[0]
    for policy in HALF:
        assert last[policy] == pytest.approx(last["float32"], rel=0.02)
