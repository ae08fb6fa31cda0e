import numpy as np
import pytest
from keras import ops

from keras_vqvae2.decoding.sampling import Sampling, sample_uniforms


def draw(logits, uniforms, **settings):
    sampling = Sampling(**settings)
    logits = np.tile(np.asarray(logits, "float32"), (len(uniforms), 1))
    codes = sampling.draw(
        ops.convert_to_tensor(logits),
        ops.convert_to_tensor(np.asarray(uniforms, "float32")),
        {name: ops.convert_to_tensor(value) for name, value in sampling.numbers().items()},
    )
    return ops.convert_to_numpy(codes)


EVEN = (np.arange(4000) + 0.5) / 4000


def shares(logits, **settings):
    return np.bincount(draw(logits, EVEN, **settings), minlength=len(logits)) / len(EVEN)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_codes_come_as_often_as_the_softmax_says(temperature):
    logits = np.array([0.3, -1.0, 2.0, 0.0, 1.5])
    expected = np.exp(logits / temperature)
    expected /= expected.sum()
    np.testing.assert_allclose(shares(logits, temperature=temperature), expected, atol=1e-3)


def test_top_k_keeps_the_k_most_probable():
    found = shares([0.3, -1.0, 2.0, 0.0, 1.5], top_k=2)
    expected = np.exp([2.0, 1.5]) / np.exp([2.0, 1.5]).sum()
    np.testing.assert_allclose(found, [0, 0, expected[0], 0, expected[1]], atol=1e-3)
    np.testing.assert_allclose(shares([0.0, 1.0], top_k=9), shares([0.0, 1.0]))


@pytest.mark.parametrize(
    "top_p, kept", [(0.4, [1]), (0.49, [1]), (0.6, [1, 3]), (0.95, [0, 1, 3]), (1.0, [0, 1, 2, 3])]
)
def test_top_p_keeps_what_is_needed_to_reach_it(top_p, kept):
    probabilities = np.array([0.15, 0.5, 0.05, 0.3])
    expected = np.where(np.isin(range(4), kept), probabilities, 0)
    found = shares(np.log(probabilities), top_p=top_p)
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-3)


def test_the_ends_of_the_interval_give_codes_that_can_be_drawn():
    logits = [-np.inf, 0.0, -np.inf, 0.0, -np.inf]
    largest = np.nextafter(np.float32(1), np.float32(0))
    assert draw(logits, [0.0, 0.25, 0.75, largest]).tolist() == [1, 1, 3, 3]


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_k": 0},
        {"top_k": 1.5},
        {"top_p": 0.0},
        {"top_p": 1.1},
    ],
)
def test_errors_say_what_was_received(settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"Expected.*Received: {name}={value}"):
        Sampling(**settings)


def test_uniforms_belong_to_seed_sample_and_level():
    all_of_them = sample_uniforms(3, range(5), "top", (4, 6))
    assert all_of_them.shape == (5, 4, 6) and all_of_them.dtype == np.float32
    assert (all_of_them >= 0).all() and (all_of_them < 1).all()
    np.testing.assert_array_equal(sample_uniforms(3, [4, 2], "top", (4, 6)), all_of_them[[4, 2]])
    for other in (
        sample_uniforms(4, range(5), "top", (4, 6)),
        sample_uniforms(3, range(5), "bottom", (4, 6)),
    ):
        assert not np.isin(other, all_of_them).any()
    many = sample_uniforms(0, range(200), "top", (16, 16))
    assert abs(many.mean() - 0.5) < 0.005 and abs(many.var() - 1 / 12) < 0.002
