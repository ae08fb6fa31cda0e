import numpy as np
import pytest

from keras_vqvae2.decoding.mask_schedules import halton_ranks, masked_counts, masked_share


def test_shares_are_those_of_maskgit(golden):
    data = golden("maskgit")
    schedules = {k.removeprefix("schedule."): v for k, v in data.items() if "schedule." in k}
    assert set(schedules) == {"cosine", "exp", "log", "pow2", "pow2.5", "uniform"}
    for name, expected in schedules.items():
        shares = masked_share(name, data["ratios"], 64)
        np.testing.assert_allclose(shares, expected, atol=1e-6, err_msg=name)


def test_arccos_is_the_turned_cosine():
    shares = masked_share("arccos", [0, 0.5, 1], 16)
    np.testing.assert_allclose(shares, [1, 2 / 3, 1e-6])
    np.testing.assert_allclose(np.cos(np.pi / 2 * shares[1]), 0.5)


@pytest.mark.parametrize("name", ["cosin", "pow", "pow0", "pow-1", "", None, 2])
def test_other_schedules_are_refused(name):
    with pytest.raises(ValueError, match=f"Received: mask_schedule={name!r}"):
        masked_share(name, 0.5, 16)


@pytest.mark.parametrize("name", ["cosine", "arccos", "uniform", "log", "exp", "pow2.5"])
def test_fewer_are_masked_after_each_pass_and_one_before_the_last(name):
    unknown = np.array([64, 10, 3, 1, 0])
    counts = masked_counts(name, 8, unknown)
    assert counts.shape == (8, 5) and counts.dtype == np.int32
    before = np.concatenate([unknown[None], counts[:-1]])
    assert ((counts < before) | (counts == 1)).all() and (counts >= 1).all()
    assert (counts[-1] == 1).all()


def test_a_whole_number_is_not_rounded_away():
    # 20 cos(pi / 3) is 10; float32 has 9.999999.
    assert masked_counts("cosine", 3, np.array([20]))[1] == 10


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 4), (3, 8), (16, 16)])
def test_the_halton_order_is_a_permutation(shape):
    ranks = halton_ranks(*shape)
    np.testing.assert_array_equal(np.sort(ranks.ravel()), np.arange(np.prod(shape)))


def test_the_halton_order_is_spread_evenly():
    # Its points: (0, 0), (1/2, 1/3), (1/4, 2/3), (3/4, 1/9), (1/8, 4/9), ...
    ranks = halton_ranks(8, 9)
    assert [ranks[0, 0], ranks[4, 3], ranks[2, 6], ranks[6, 1], ranks[1, 4]] == [0, 1, 2, 3, 4]
    first = ranks < 16
    quarters = first[:8, :8].reshape(2, 4, 2, 4).sum((1, 3))
    assert quarters.min() >= 2
