import numpy as np
import pytest

from keras_vqvae2.metrics import CodebookUsage


def test_counts_over_batches_until_reset():
    usage = CodebookUsage(8)
    usage.update_state(np.array([[0, 1], [1, 1]]))
    assert float(usage.result()) == pytest.approx(2 / 8)
    usage.update_state(np.array([7]))
    assert float(usage.result()) == pytest.approx(3 / 8)
    usage.reset_state()
    assert float(usage.result()) == 0


def test_weight_zero_leaves_a_batch_out():
    usage = CodebookUsage(4)
    usage.update_state(np.array([1, 2]), sample_weight=0.0)
    assert float(usage.result()) == 0


def test_codes_of_several_codebooks_are_counted_apart():
    usage = CodebookUsage([2, 8])
    usage.update_state(np.array([[[0, 1], [1, 1]], [[0, 5], [0, -1]]]))
    assert float(usage.result()) == pytest.approx((2 / 2 + 2 / 8) / 2)
    assert CodebookUsage.from_config(usage.get_config()).num_embeddings == [2, 8]
    with pytest.raises(ValueError, match=r"num_embeddings=\[\]"):
        CodebookUsage([])


def test_config_and_bad_size():
    usage = CodebookUsage(8, name="usage_top")
    assert CodebookUsage.from_config(usage.get_config()).num_embeddings == 8
    with pytest.raises(ValueError, match="num_embeddings=0"):
        CodebookUsage(0)
