import numpy as np
import pytest
from keras import ops

from keras_vqvae2.layers import code_entropies, row_chunks
from keras_vqvae2.layers.code_entropies import bit_entropies, softmax_entropies


def numpy(x):
    return ops.convert_to_numpy(x)


def entropy(p):
    return -(p * np.log(np.maximum(p, 1e-300))).sum(-1)


def reference_of_bits(logits, group_size):
    """Both entropies in float64, from the matrix of all probabilities."""
    p = 1.0 / (1.0 + np.exp(-logits.astype("float64")))  # (N, D)
    codes = np.arange(2**group_size)[:, None] >> np.arange(group_size) & 1  # (K, bits)
    of_choice = of_codebook = 0.0
    for start in range(0, logits.shape[1], group_size):
        bit = p[:, None, start : start + group_size]
        joint = np.where(codes, bit, 1.0 - bit).prod(-1)  # (N, K)
        of_choice += entropy(joint).mean()
        of_codebook += entropy(joint.mean(0))
    return of_choice, of_codebook


def reference_of_softmax(vectors, codebook, temperature):
    logits = vectors.astype("float64") @ codebook.T / temperature
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return entropy(p).mean(), entropy(p.mean(0))


def numeric_gradient(f, x, step=1e-5):
    x = x.astype("float64")
    result = np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        moved = [x.copy(), x.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        result[place] = (f(moved[0]) - f(moved[1])) / (2 * step)
    return result


@pytest.fixture(params=[2**21, 64], ids=["whole", "in_parts"])
def parts(request, monkeypatch):
    at_once = row_chunks.rows_at_once
    smaller = lambda numbers: at_once(numbers, request.param)  # noqa: E731
    monkeypatch.setattr(code_entropies, "rows_at_once", smaller)


@pytest.mark.parametrize("bits, group_size", [(5, 5), (6, 3), (4, 1)])
def test_entropies_of_bits_and_their_gradient(rng, gradient, parts, bits, group_size):
    logits = (3.0 * rng.normal(size=(37, bits))).astype("float32")
    weights = np.full(37, 1 / 37, "float32")
    of_choice, of_codebook = bit_entropies(
        ops.convert_to_tensor(logits), ops.convert_to_tensor(weights), group_size
    )
    expected = reference_of_bits(logits, group_size)
    np.testing.assert_allclose([numpy(of_choice), numpy(of_codebook)], expected, rtol=1e-5)

    def loss(x):
        of_choice, of_codebook = bit_entropies(x, ops.convert_to_tensor(weights), group_size)
        return of_choice - 2.0 * of_codebook

    def reference(x):
        of_choice, of_codebook = reference_of_bits(x, group_size)
        return of_choice - 2.0 * of_codebook

    few = logits[:, :bits]
    expected = numeric_gradient(reference, few)
    np.testing.assert_allclose(gradient(loss, few), expected, atol=1e-6)


def test_entropies_of_a_softmax_and_their_gradients(rng, gradient, parts):
    vectors, codebook = rng.normal(size=(23, 4)), rng.normal(size=(9, 4))
    vectors, codebook = vectors.astype("float32"), codebook.astype("float32")
    weights = ops.convert_to_tensor(np.full(23, 1 / 23, "float32"))

    def ours(x, e):
        return softmax_entropies(ops.convert_to_tensor(x), ops.convert_to_tensor(e), weights, 0.5)

    def reference(x, e):
        of_choice, of_codebook = reference_of_softmax(x, e, 0.5)
        return of_choice - of_codebook

    of_choice, of_codebook, difference = map(numpy, ours(vectors, codebook))
    expected = reference_of_softmax(vectors, codebook, 0.5)
    np.testing.assert_allclose([of_choice, of_codebook], expected, rtol=1e-5)
    np.testing.assert_allclose(difference, reference(vectors, codebook), rtol=1e-5)
    found = gradient(lambda x: ours(x, codebook)[2], vectors)
    expected = numeric_gradient(lambda x: reference(x, codebook), vectors)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    found = gradient(lambda e: ours(vectors, e)[2], codebook)
    expected = numeric_gradient(lambda e: reference(vectors, e), codebook)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_sure_choices_overflow_nothing(gradient):
    logits = np.array([[1e4, -1e4], [-1e4, 1e4], [0.0, 3e38]], "float32")
    weights = ops.convert_to_tensor(np.full(3, 1 / 3, "float32"))
    for logarithm in ("exact", "shifted", "clipped"):

        def both(x, logarithm=logarithm):
            return ops.stack(bit_entropies(x, weights, 2, logarithm))

        assert np.isfinite(gradient(both, logits)).all()
    of_choice, of_codebook = bit_entropies(ops.convert_to_tensor(logits), weights, 2)
    np.testing.assert_allclose(numpy(of_choice), np.log(2) / 3, rtol=1e-5)
    np.testing.assert_allclose(
        numpy(of_codebook), entropy(np.array([1 / 3, 1 / 2, 1 / 6])), rtol=1e-5
    )


def test_all_of_a_large_codebook_in_little_memory(rng):
    """Of 2^18 codes and 3,000 vectors the matrix of probabilities would be 3 GiB."""
    logits = rng.normal(size=(3000, 18)).astype("float32")
    weights = ops.convert_to_tensor(np.full(3000, 1 / 3000, "float32"))
    _, of_codebook = bit_entropies(ops.convert_to_tensor(1000.0 * logits), weights, 18)
    # Nearly every vector has a code of its own.
    assert np.log(2900) < numpy(of_codebook) < np.log(3100)
