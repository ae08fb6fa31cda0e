import numpy as np
import pytest
from keras_vqvae2.models.vqvae2.code_checks import complete_codes

UNIT = {"top": (1, 1), "bottom": (2, 2)}


def test_missing_levels_are_unknown():
    codes = complete_codes({"top": np.zeros((3, 4, 5), "uint8")}, UNIT, 16)
    assert list(codes) == ["top", "bottom"]
    assert codes["top"].dtype == codes["bottom"].dtype == np.int32
    np.testing.assert_array_equal(codes["bottom"], np.full((3, 8, 10), -1))
    codes = complete_codes({"bottom": np.zeros((1, 8, 10), int)}, UNIT, 16)
    assert codes["top"].shape == (1, 4, 5)


def test_whole_codes_come_through():
    given = {"bottom": np.arange(8).reshape(2, 2, 2), "top": np.array([[[3]], [[7]]])}
    codes = complete_codes(given, UNIT, 8)
    for level, value in given.items():
        np.testing.assert_array_equal(codes[level], value)


def test_sizes_that_do_not_fit_name_the_shapes():
    given = {"top": np.zeros((1, 4, 4), int), "bottom": np.zeros((1, 8, 6), int)}
    with pytest.raises(ValueError, match=r"one image size.*'bottom': \(1, 8, 6\)"):
        complete_codes(given, UNIT, 8)
