import numpy as np
import pytest

from keras_vqvae2.metrics import CodebookPerplexity


def test_equals_numpy(rng):
    perplexity = CodebookPerplexity(10)
    batches = [rng.integers(6, size=(3, 4, 4)), rng.integers(10, size=(50,))]
    for batch in batches:
        perplexity.update_state(batch)
    p = np.bincount(np.concatenate([b.ravel() for b in batches]), minlength=10).astype("float64")
    p /= p.sum()
    expected = np.exp(-(p[p > 0] * np.log(p[p > 0])).sum())
    assert float(perplexity.result()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("codes, expected", [([3, 3, 3], 1.0), ([0, 1, 2, 3], 4.0)])
def test_extremes(codes, expected):
    perplexity = CodebookPerplexity(512)
    perplexity.update_state(np.array(codes))
    assert float(perplexity.result()) == pytest.approx(expected, rel=1e-5)


def test_several_codebooks_have_a_perplexity_each():
    perplexity = CodebookPerplexity((4, 4))
    perplexity.update_state(np.array([[0, 3], [1, 3], [2, 3], [3, 3]]))
    assert float(perplexity.result()) == pytest.approx((4 + 1) / 2)
