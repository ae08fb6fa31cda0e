import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_vqvae2.layers.nearest_code import nearest_code


def reference(vectors, codebook):
    distances = ((vectors[:, None].astype("float64") - codebook[None]) ** 2).sum(-1)  # (N, K)
    return distances.argmin(-1)


@pytest.mark.parametrize("num_vectors", [1, 7, 64, 65, 1000])
def test_equals_numpy_in_one_piece_and_in_chunks(rng, num_vectors):
    vectors = rng.normal(size=(num_vectors, 6)).astype("float32")
    codebook = rng.normal(size=(16, 6)).astype("float32")
    for max_scores in (1, 16 * 10, 2**21):
        indices = nearest_code(
            ops.convert_to_tensor(vectors), ops.convert_to_tensor(codebook), max_scores
        )
        np.testing.assert_array_equal(ops.convert_to_numpy(indices), reference(vectors, codebook))


def test_first_of_equal_codes_wins():
    codebook = ops.convert_to_tensor(np.array([[5.0], [1.0], [1.0]], "float32"))
    vectors = ops.convert_to_tensor(np.array([[1.0], [0.9]], "float32"))
    assert ops.convert_to_numpy(nearest_code(vectors, codebook)).tolist() == [1, 1]


@settings(max_examples=25, deadline=None)
@given(
    num_vectors=st.integers(1, 40),
    num_codes=st.integers(1, 20),
    width=st.integers(1, 5),
    max_scores=st.integers(1, 100),
    seed=st.integers(0, 1000),
)
def test_any_sizes(num_vectors, num_codes, width, max_scores, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(num_vectors, width)).astype("float32")
    codebook = rng.normal(size=(num_codes, width)).astype("float32")
    indices = ops.convert_to_numpy(
        nearest_code(ops.convert_to_tensor(vectors), ops.convert_to_tensor(codebook), max_scores)
    )
    chosen = ((vectors - codebook[indices]) ** 2).sum(-1)
    best = ((vectors[:, None] - codebook[None]) ** 2).sum(-1).min(-1)
    np.testing.assert_allclose(chosen, best, rtol=1e-4, atol=1e-5)
