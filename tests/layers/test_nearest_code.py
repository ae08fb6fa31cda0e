import keras
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


@pytest.mark.parametrize("similarity", ["euclidean", "dot"])
def test_codes_in_blocks_equal_codes_in_one_piece(rng, similarity):
    codebook = rng.integers(-2, 3, size=(50, 3)).astype("float32")  # many are equal
    vectors = np.concatenate([codebook, rng.normal(size=(30, 3)).astype("float32")])
    vectors, codebook = map(ops.convert_to_tensor, (vectors, codebook))
    expected = ops.convert_to_numpy(nearest_code(vectors, codebook, similarity=similarity))
    for max_codes in (7, 25, 49):
        found = nearest_code(vectors, codebook, 200, similarity, max_codes)
        np.testing.assert_array_equal(ops.convert_to_numpy(found), expected)


def test_first_of_equal_codes_wins():
    codebook = ops.convert_to_tensor(np.array([[5.0], [1.0], [1.0]], "float32"))
    vectors = ops.convert_to_tensor(np.array([[1.0], [0.9]], "float32"))
    assert ops.convert_to_numpy(nearest_code(vectors, codebook)).tolist() == [1, 1]


@pytest.mark.parametrize("similarity", ["euclidean", "dot"])
def test_what_is_not_finite_has_a_code_that_there_is(rng, similarity):
    codebook = ops.convert_to_tensor(rng.normal(size=(50, 3)).astype("float32"))
    vectors = np.ones((6, 3), "float32")
    vectors[[0, 1, 2], [0, 1, 2]] = np.inf, -np.inf, np.nan
    vectors[3] = -np.inf
    for max_codes in (7, 49, 50):  # 7 and 49 leave places that no code stands at
        found = nearest_code(ops.convert_to_tensor(vectors), codebook, 200, similarity, max_codes)
        assert ops.min(found) >= 0 and ops.max(found) < 50


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


def rounded(x):
    """`x` as a product in TensorFloat-32 takes it: ten bits of the mantissa."""
    bits = np.asarray(x).view("uint32")
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view("float32")


def test_products_of_ten_bits_do_not_decide(rng, monkeypatch):
    """A GPU on which TensorFlow rounds factors, as it does by default: the product is replaced."""
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("PyTorch and JAX are told by the product itself")
    codebook = (1.0 + 1e-2 * rng.normal(size=(64, 8))).astype("float32")
    vectors = (codebook[rng.integers(64, size=200)] + 1e-6).astype("float32")
    exact = tf.matmul
    monkeypatch.setattr(tf, "matmul", lambda a, b: exact(rounded(a.numpy()), rounded(b.numpy())))

    def share_found():
        found = ops.convert_to_numpy(nearest_code(*map(ops.convert_to_tensor, (vectors, codebook))))
        return (found == reference(vectors, codebook)).mean()

    assert share_found() < 0.5
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    assert share_found() > 0.9
