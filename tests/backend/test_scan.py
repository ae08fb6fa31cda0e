import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.models.pixelrnn.pixelrnn_layers import DiagonalBiLSTMLayer, RowLSTMLayer

INPUTS = np.random.default_rng(0).normal(size=(5, 3, 2)).astype("float32")  # (T, B, C)


def decay(carry, inputs):
    """Carries a mean that forgets, and hands out its square and the turn's number."""
    x, number = inputs
    carry = 0.5 * carry + x
    return carry, {"square": ops.square(carry), "number": number}


def scanned(x):
    numbers = ops.arange(len(INPUTS), dtype="int32")
    start = ops.zeros(INPUTS.shape[1:], "float32")
    return backend.scan(decay, start, (x, numbers), len(INPUTS))


def test_carry_and_outputs_are_those_of_a_loop():
    carry, outputs = scanned(ops.convert_to_tensor(INPUTS))
    expected = [INPUTS[0]]
    for x in INPUTS[1:]:
        expected.append(0.5 * expected[-1] + x)
    np.testing.assert_allclose(ops.convert_to_numpy(carry), expected[-1], rtol=1e-6)
    squares = ops.convert_to_numpy(outputs["square"])
    np.testing.assert_allclose(squares, np.square(expected), rtol=1e-6)
    assert ops.convert_to_numpy(outputs["number"]).tolist() == [0, 1, 2, 3, 4]


def test_gradients_go_through_carry_and_outputs(gradient):
    found = gradient(lambda x: ops.sum(scanned(x)[1]["square"]) + scanned(x)[0], INPUTS)
    # Each of B * C carries is added to the sum of all squares.
    halves = np.tril(0.5 ** np.abs(np.subtract.outer(np.arange(5), np.arange(5))))  # carry_t of x_s
    carries = np.einsum("ts,sbc->tbc", halves, INPUTS)
    of_squares = np.einsum("ts,tbc->sbc", halves, 2 * carries) * INPUTS[0].size
    expected = of_squares + halves[-1][:, None, None]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only its graphs are counted")
@pytest.mark.parametrize("layer", [RowLSTMLayer, DiagonalBiLSTMLayer])
def test_the_program_of_an_lstm_does_not_grow_with_the_image(layer):
    import tensorflow as tf

    def operations(size):
        """Of a step's program, of which a loop's body is one function."""
        layer_of_size = layer(4)
        layer_of_size.build((1, size, size, 8))

        def gradients(x):
            with tf.GradientTape() as tape:
                y = tf.reduce_sum(layer_of_size(x))
            return tape.gradient(y, layer_of_size.trainable_variables)

        program = tf.function(gradients).get_concrete_function(tf.TensorSpec((1, size, size, 8)))
        return len(program.graph.get_operations())

    assert operations(4) == operations(8)
