import pytest

from keras_vqvae2.models.vqvae2.levels import check_factors, level_names


def test_names_run_from_coarse_to_fine():
    assert [level_names(n) for n in (1, 2, 3)] == [
        ("bottom",),
        ("top", "bottom"),
        ("top", "middle", "bottom"),
    ]
    assert level_names(5) == ("level_0", "level_1", "level_2", "level_3", "level_4")


@pytest.mark.parametrize(
    "num_levels, factors", [(1, (4,)), (2, (2, 4)), (3, (2, 2, 8)), (4, (2, 2, 2, 8))]
)
def test_default_factors(num_levels, factors):
    assert check_factors(None, num_levels) == factors
    assert check_factors(list(factors), num_levels) == factors


@pytest.mark.parametrize("factors", [(2,), (2, 3), (2, 1), (2, 0.5)])
def test_bad_factors(factors):
    with pytest.raises(ValueError, match="power of two.*Received: downsample_factors="):
        check_factors(factors, 2)
