import numpy as np
import pytest
from keras import ops

from keras_vqvae2.layers import VectorQuantizer
from keras_vqvae2.layers.gradient_estimators import diveq, rotation_trick, straight_through

E = np.array([[1, 2, 3], [0.5, -1, 2]], "float32")
Q = np.array([[2, 0, 1], [1, 1, 1]], "float32")
UPSTREAM = np.array([[1, 0, 0], [0, 1, 0]], "float32")


def test_straight_through_copies_the_gradient(gradient):
    q = ops.convert_to_tensor(Q)
    np.testing.assert_array_equal(ops.convert_to_numpy(straight_through(E, q)), Q)
    grad = gradient(lambda e: straight_through(e, q) * ops.convert_to_tensor(UPSTREAM), E)
    np.testing.assert_array_equal(grad, UPSTREAM)


def test_rotation_trick_hand_case(gradient):
    q = ops.convert_to_tensor(Q)
    output = rotation_trick(ops.convert_to_tensor(E), q)
    np.testing.assert_array_equal(ops.convert_to_numpy(output), Q)
    grad = gradient(lambda e: rotation_trick(e, q) * ops.convert_to_tensor(UPSTREAM), E)
    expected = [[0.378518, 0.339152, 0.314392], [0.128976, 0.364083, 0.649798]]
    np.testing.assert_allclose(grad, expected, atol=1e-6)


def test_rotation_trick_equals_the_matrices(gradient, rng):
    e, q, upstream = rng.normal(size=(3, 10, 4)).astype("float32")
    unit_e = e / np.linalg.norm(e, axis=-1, keepdims=True)
    unit_q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    expected = []
    for a, b, vector, code, g in zip(unit_e, unit_q, e, q, upstream):
        r = (a + b) / np.linalg.norm(a + b)
        rotation = np.eye(4) - 2 * np.outer(r, r) + 2 * np.outer(b, a)  # (D, D)
        scale = np.linalg.norm(code) / np.linalg.norm(vector)
        np.testing.assert_allclose(scale * rotation @ vector, code, atol=1e-4)
        expected.append(scale * rotation.T @ g)
    grad = gradient(
        lambda x: rotation_trick(x, ops.convert_to_tensor(q)) * ops.convert_to_tensor(upstream), e
    )
    np.testing.assert_allclose(grad, expected, atol=1e-4)


def test_rotation_trick_is_finite_at_zero(gradient):
    zero = np.zeros((1, 3), "float32")
    grad = gradient(lambda e: rotation_trick(e, ops.convert_to_tensor(Q[:1])), zero)
    assert np.isfinite(grad).all()


def test_golden_rotation(golden, gradient):
    data = golden("field_gradients")
    q, weights = data["codes"], data["output_gradient"]
    found = gradient(lambda e: ops.multiply(rotation_trick(e, ops.convert_to_tensor(q)), weights),
                     data["inputs"])  # fmt: skip
    np.testing.assert_allclose(found, data["rotation.input_gradient"], atol=1e-5)
    output = rotation_trick(ops.convert_to_tensor(data["inputs"]), ops.convert_to_tensor(q))
    np.testing.assert_allclose(ops.convert_to_numpy(output), data["rotation.output"], atol=1e-5)


@pytest.mark.parametrize("variance", [0.005, 0.1])
def test_golden_diveq(golden, gradient, variance):
    data = golden("field_gradients")
    z, q, weights = data["inputs"], data["codes"], data["output_gradient"]
    noise = ops.convert_to_tensor((variance**0.5 * data["diveq_noise"]).astype("float32"))
    case = f"diveq_{variance}"

    def output(z, q):
        return diveq(ops.convert_to_tensor(z), ops.convert_to_tensor(q), noise)

    np.testing.assert_allclose(
        ops.convert_to_numpy(output(z, q)), data[f"{case}.output"], atol=1e-5
    )
    found = gradient(lambda z: ops.multiply(output(z, q), weights), z)
    np.testing.assert_allclose(found, data[f"{case}.input_gradient"], atol=1e-5)
    found = gradient(lambda q: ops.multiply(output(z, q), weights), q)
    np.testing.assert_allclose(found, data[f"{case}.code_gradient"], atol=1e-5)


def test_diveq_trains_codes_through_the_output(rng, weight_gradients):
    codes = rng.normal(size=(8, 4)).astype("float32")
    layer = VectorQuantizer(8, 4, gradient="diveq", noise_variance=1e-8, seed=0)
    layer.set_codebook(codes)
    x = rng.normal(size=(32, 4)).astype("float32")
    quantized, indices, loss = layer(x, training=True, return_loss=True)
    assert float(loss) == 0.0
    # Little noise: the output is nearly the code, and exactly the code without training.
    np.testing.assert_allclose(
        ops.convert_to_numpy(quantized), codes[ops.convert_to_numpy(indices)], atol=1e-2
    )
    np.testing.assert_array_equal(
        ops.convert_to_numpy(layer(x)[0]), ops.convert_to_numpy(layer.lookup(layer(x)[1]))
    )
    (found,) = weight_gradients(
        lambda: ops.sum(ops.square(layer(x, training=True)[0])), [layer.offsets]
    )
    assert np.abs(found).max() > 0.1
