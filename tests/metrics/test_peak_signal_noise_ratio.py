import numpy as np
import pytest

from keras_vqvae2.metrics import PeakSignalNoiseRatio


def test_mean_runs_over_images(rng):
    x = rng.uniform(size=(4, 5, 6, 3))
    y = np.clip(
        x + rng.normal(size=x.shape) * np.array([0.01, 0.02, 0.1, 0.3])[:, None, None, None], 0, 1
    )
    psnr = PeakSignalNoiseRatio()
    psnr.update_state(x[:3], y[:3])
    psnr.update_state(x[3:], y[3:])
    expected = (-10 * np.log10(((x - y) ** 2).mean((1, 2, 3)))).mean()
    assert float(psnr.result()) == pytest.approx(expected, rel=1e-4)


def test_reconstructions_are_clipped_and_exact_images_stay_finite():
    psnr = PeakSignalNoiseRatio()
    psnr.update_state(np.ones((1, 2, 2, 3)), np.full((1, 2, 2, 3), 1.5))
    assert float(psnr.result()) == pytest.approx(100.0)


def test_weights_leave_images_out():
    x = np.zeros((2, 2, 2, 1))
    y = np.stack([np.full((2, 2, 1), 0.1), np.full((2, 2, 1), np.nan)])
    psnr = PeakSignalNoiseRatio()
    psnr.update_state(x, y, sample_weight=np.array([1.0, 0.0]))
    assert float(psnr.result()) == pytest.approx(20.0, rel=1e-4)
    psnr.reset_state()
    assert float(psnr.result()) == 0
