import numpy as np
import pytest
from keras import ops

from keras_vqvae2.layers import FiniteScalarQuantizer

CASES = {"a": ([8, 5, 5, 5], False), "b": ([7, 5, 5, 5, 5], False), "c": ([8, 6, 5], True)}


def numpy(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize("case", CASES)
def test_golden_of_vector_quantize_pytorch(golden, gradient, case):
    data = {k[2:]: v for k, v in golden("field_fsq").items() if k.startswith(f"{case}.")}
    levels, symmetric = CASES[case]
    layer = FiniteScalarQuantizer(levels, symmetric)
    quantized, codes = layer(data["inputs"])
    np.testing.assert_array_equal(numpy(codes), data["indices"])
    np.testing.assert_allclose(numpy(quantized), data["quantized"], atol=1e-6)
    weights = data["output_gradient"]
    found = gradient(lambda x: ops.multiply(layer(x)[0], weights), data["inputs"])
    np.testing.assert_allclose(found, data["input_gradient"], atol=1e-5)


def test_hand_case_of_the_paper():
    layer = FiniteScalarQuantizer([8, 5, 5, 5])
    _, codes = layer(np.array([[-2, -0.5, 0, 0.7], [0.3, 1.5, -1.2, 0.1]], "float32"))
    assert numpy(codes).tolist() == [688, 437]


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("levels", [[2], [3, 2], [8, 5, 4]])
def test_every_code_has_its_own_vector_and_comes_back(levels, symmetric):
    layer = FiniteScalarQuantizer(levels, symmetric)
    codebook = numpy(layer.codebook)
    assert len(np.unique(codebook, axis=0)) == np.prod(levels) == layer.num_embeddings
    assert abs(codebook).max() <= 1.0
    for channel, number in enumerate(levels):
        assert len(np.unique(codebook[:, channel])) == number
    # The unknown code is the mean of all.
    np.testing.assert_allclose(numpy(layer.lookup(np.array([-1])))[0], codebook.mean(0), atol=1e-6)


def test_large_vectors_reach_the_outermost_levels_and_no_further():
    for symmetric in (False, True):
        layer = FiniteScalarQuantizer([8, 5], symmetric)
        quantized, codes = layer(np.array([[1e30, 1e30], [-1e30, -1e30]], "float32"))
        assert numpy(codes).tolist() == [39, 0]
        np.testing.assert_array_equal(numpy(quantized)[1], -1.0)


@pytest.mark.parametrize("levels", [[2001, 3], [4000, 3000, 170]])
def test_of_many_levels_the_bound_reaches_none_too_many(levels):
    layer = FiniteScalarQuantizer(levels)
    quantized, codes = layer(np.full((2, len(levels)), [[1e30], [-1e30]], "float32"))
    assert numpy(codes).tolist() == [layer.num_embeddings - 1, 0]
    np.testing.assert_array_equal(numpy(quantized), numpy(layer.lookup(codes)))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("levels", [[8, 5], [8] * 10])
def test_what_is_not_a_number_has_a_code(levels, symmetric):
    vectors = np.full((3, len(levels)), np.nan, "float32")
    vectors[1:, 1:], vectors[2, 0] = 0.3, np.inf
    codes = numpy(FiniteScalarQuantizer(levels, symmetric)(vectors)[1])
    assert ((codes >= 0) & (codes < np.prod(levels))).all() and codes[2] > 0


@pytest.mark.parametrize(
    "levels, message",
    [
        ([], "at least one channel. Received: levels="),
        ([8, 1], r"Received: levels\[1\]=1"),
        ([8, 2.5], r"Received: levels\[1\]=2.5"),
        ([2] * 31, "what int32 holds. Received: .*2147483648 codes"),
    ],
)
def test_bad_arguments(levels, message):
    with pytest.raises(ValueError, match=message):
        FiniteScalarQuantizer(levels)
