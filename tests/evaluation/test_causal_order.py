import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_vqvae2 import GatedPixelCNNPrior, PixelSnailPrior
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
