import numpy as np
import pytest
from keras import ops

from keras_vqvae2.layers import QuantizerDropout


def test_drops_whole_images_at_the_rate():
    dropout = QuantizerDropout(0.25, seed=1)
    codes = np.ones((2000, 2, 3, 2), "float32")
    mixed = ops.convert_to_numpy(dropout(codes, -codes, training=True))
    assert (mixed == mixed[:, :1, :1, :1]).all()
    assert set(np.unique(mixed)) == {-1.0, 1.0}
    assert (mixed[:, 0, 0, 0] < 0).mean() == pytest.approx(0.25, abs=0.04)
    again = ops.convert_to_numpy(dropout(codes, -codes, training=True))
    assert (again != mixed).any()


def test_keeps_all_without_training():
    codes = np.arange(16, dtype="float32").reshape(2, 2, 2, 2)
    for training in (False, None):
        np.testing.assert_array_equal(
            QuantizerDropout(0.9)(codes, 0 * codes, training=training), codes
        )


def test_gradient_passes_only_where_codes_are_kept(gradient):
    codes = np.ones((64, 1, 1, 2), "float32")
    dropout = QuantizerDropout(0.5, seed=1)
    slope = gradient(lambda x: dropout(x, 2.0 * x, training=True), codes)
    assert set(np.unique(slope)) == {0.0, 1.0}


def test_config_and_errors():
    dropout = QuantizerDropout(0.3, seed=2, name="dropout")
    assert QuantizerDropout.from_config(dropout.get_config()).get_config() == dropout.get_config()
    for rate in (-0.1, 1.0):
        with pytest.raises(ValueError, match=rf"\[0, 1\). Received: rate={rate}"):
            QuantizerDropout(rate)
