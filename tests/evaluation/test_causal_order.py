import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_vqvae2 import GatedPixelCNN, GatedPixelCNNPrior, PixelCNN, PixelRNN, PixelSnailPrior
from keras_vqvae2.evaluation import causality, mask_of_the_past


@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    rows=st.integers(2, 4),
    columns=st.integers(2, 5),
    kernel=st.sampled_from([3, 5]),
    layers=st.integers(3, 4),
)
def test_a_gated_pixelcnn_sees_all_of_the_past_and_nothing_else(rows, columns, kernel, layers):
    prior = GatedPixelCNNPrior(
        (rows, columns), 9, hidden_units=6, num_layers=layers, kernel_size=kernel, head_units=8
    )
    np.testing.assert_array_equal(causality(prior), mask_of_the_past(prior))


def with_weights(model):
    """Weights of which none is zero, and no ReLU that is always shut."""
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        bias = variable.name == "bias"
        variable.assign(rng.normal(scale=0.1 if bias else 0.3, size=variable.shape))
    return model


@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    rows=st.integers(2, 4),
    columns=st.integers(2, 4),
    colours=st.sampled_from([1, 3]),
    first=st.sampled_from([5, 7]),
)
def test_colours_see_all_of_the_past_and_nothing_else(rows, columns, colours, first):
    sizes = {"hidden_units": 6, "num_layers": 3, "kernel_size": 3, "head_units": 24}
    model = GatedPixelCNN((rows, columns, colours), **sizes, first_kernel_size=first)
    seen = causality(with_weights(model), num_inputs=3)
    np.testing.assert_array_equal(seen, mask_of_the_past(model))


@settings(max_examples=3, deadline=None, derandomize=True)
@given(colours=st.sampled_from([1, 3]), kernel=st.sampled_from([3, 5]), layers=st.integers(1, 2))
def test_stacked_masks_leak_nothing(colours, kernel, layers):
    model = PixelCNN(
        (3, 5, colours), None, 6, layers, kernel_size=kernel, first_kernel_size=3, head_units=24
    )
    assert not (causality(with_weights(model)) & ~mask_of_the_past(model)).any()


def test_the_one_hole_of_the_diagonal_bilstm():
    model = PixelRNN((3, 8, 1), hidden_units=4, num_layers=2, first_kernel_size=3, head_units=24)
    seen, past = causality(with_weights(model), 3)[:, :, 0, :, :, 0], mask_of_the_past(model)
    expected = past[:, :, 0, :, :, 0].copy()
    for row in (1, 2):
        expected[row, :6, row - 1, 7] = False  # 3x3 reaches it from the last two columns
    np.testing.assert_array_equal(seen, expected)


def test_a_row_lstm_sees_a_triangle():
    model = PixelRNN(
        (3, 9, 1), "row_lstm", hidden_units=4, num_layers=1, first_kernel_size=3, head_units=24
    )
    seen, past = causality(with_weights(model)), mask_of_the_past(model)
    assert not (seen & ~past).any()
    assert seen[2, 4, 0, 0, 1, 0] and not seen[2, 4, 0, 0, 8, 0]


def test_a_blind_spot_is_found():
    sizes = {"hidden_units": 8, "residual_units": 8, "num_blocks": 1, "block_layers": 1}
    sizes |= {"attention_heads": 0, "kernel_size": 3, "output_blocks": 0}
    prior = PixelSnailPrior((3, 8), 9, **sizes, row_context=False)
    seen, past = causality(prior), mask_of_the_past(prior)
    assert not (seen & ~past).any()
    assert past[2, 1, 1, 7] and not seen[2, 1, 1, 7]


def test_other_models_are_refused():
    with pytest.raises(TypeError, match="Expected a PixelModel or a CodePrior"):
        causality(keras.Sequential())
