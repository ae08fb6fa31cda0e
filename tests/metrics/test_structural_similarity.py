import numpy as np
import pytest
import tensorflow as tf

from keras_vqvae2.metrics import StructuralSimilarity


@pytest.mark.parametrize("shape", [(3, 24, 17, 3), (2, 11, 11, 1)])
def test_equals_tensorflow(shape, rng):
    x = rng.uniform(size=shape).astype("float32")
    y = np.clip(x + rng.normal(scale=0.3, size=shape), 0, 1).astype("float32")
    expected = tf.image.ssim(x, y, max_val=1.0).numpy().mean()
    ssim = StructuralSimilarity()
    ssim.update_state(x, y)
    assert float(ssim.result()) == pytest.approx(expected, abs=1e-5)


def test_mean_runs_over_images_and_reconstructions_are_clipped(rng):
    x = rng.uniform(size=(3, 16, 16, 3)).astype("float32")
    ssim = StructuralSimilarity()
    ssim.update_state(x, x)
    assert float(ssim.result()) == pytest.approx(1.0, abs=1e-5)
    ssim.reset_state()
    ssim.update_state(np.ones_like(x[:1]), np.full_like(x[:1], 3.0))
    ssim.update_state(x[:2], 1.0 - x[:2], sample_weight=np.array([0.0, 0.0]))
    assert float(ssim.result()) == pytest.approx(1.0, abs=1e-5)


def test_images_below_the_window_are_refused():
    with pytest.raises(ValueError, match=r"at least 11.*\(1, 10, 16, 3\)"):
        StructuralSimilarity().update_state(np.zeros((1, 10, 16, 3)), np.zeros((1, 10, 16, 3)))
