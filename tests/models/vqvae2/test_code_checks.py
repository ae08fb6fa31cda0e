import numpy as np
import pytest

from keras_vqvae2 import VQVAE2


@pytest.fixture(scope="module")
def complete_codes():
    """What `decode` makes of codes before it decodes them."""
    model = VQVAE2((8, 8, 3), hidden_units=2, residual_units=1, num_embeddings=16, embedding_dim=1)
    return model._whole_codes


def test_missing_levels_are_unknown(complete_codes):
    codes = complete_codes({"top": np.zeros((3, 4, 5), "uint8")})
    assert list(codes) == ["top", "bottom"]
    assert codes["top"].dtype == codes["bottom"].dtype == np.int32
    np.testing.assert_array_equal(codes["bottom"], np.full((3, 8, 10), -1))
    codes = complete_codes({"bottom": np.zeros((1, 8, 10), int)})
    assert codes["top"].shape == (1, 4, 5)


def test_whole_codes_come_through(complete_codes):
    given = {"bottom": np.arange(8).reshape(2, 2, 2), "top": np.array([[[3]], [[7]]])}
    codes = complete_codes(given)
    for level, value in given.items():
        np.testing.assert_array_equal(codes[level], value)


def test_sizes_that_do_not_fit_name_the_shapes(complete_codes):
    given = {"top": np.zeros((1, 4, 4), int), "bottom": np.zeros((1, 8, 6), int)}
    with pytest.raises(ValueError, match=r"one image size.*'bottom': \(1, 8, 6\)"):
        complete_codes(given)
