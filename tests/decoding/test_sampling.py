import math
import re

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
    "settings", [{"temperature": t} for t in (1e-30, 1e-38, 1e-300)] + [{"top_p": 1e-60}], ids=str
)
def test_what_goes_to_zero_leaves_the_most_probable_code(settings):
    assert draw([0.3, -1e5, 2.0, -np.inf, 1.999], EVEN, **settings).tolist() == [2] * len(EVEN)


def test_more_codes_than_there_are():
    np.testing.assert_allclose(shares([0.0, 1.0], top_k=2**40), shares([0.0, 1.0]))


@pytest.mark.parametrize("settings", [{}, {"top_k": 2}, {"top_p": 0.5}, {"temperature": 1e-38}])
def test_of_logits_that_are_not_finite_no_code_is_drawn(settings):
    for logits in ([0.0, np.nan, 1.0], [np.nan] * 3, [0.0, np.inf, 1.0], [-np.inf] * 3):
        assert draw(logits, [0.0, 0.9], **settings).tolist() == [-1, -1]


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
        {"temperature": None},
        {"temperature": "one"},
        {"guidance_scale": 1e300},
        {"guidance_scale": -0.5},
        {"guidance_scale": float("inf")},
        {"guidance_power": 0.0},
        {"guidance_power": float("nan")},
    ],
)
def test_errors_say_what_was_received(settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=re.escape(f"Received: {name}={value!r}")):
        Sampling(**settings)


def test_guidance_moves_logits_away_from_those_that_know_nothing():
    pairs = np.array([[[1.0, 2.0]], [[0.0, 4.0]], [[5.0, 5.0]], [[1.0, -1.0]]], "float32")
    logits = ops.convert_to_numpy(Sampling(guidance_scale=2.5).guide(pairs, 2.5))
    np.testing.assert_allclose(logits, [[[2.5, -1.0]], [[11.0, 14.0]]])
    assert Sampling().guide(pairs, 1.0) is pairs


def test_scales_rise_by_a_power_of_the_position():
    np.testing.assert_array_equal(Sampling(guidance_scale=3).guidance_scales(2), [3, 3])
    scales = Sampling(guidance_scale=3, guidance_power=2.75).guidance_scales(4)
    expected = [1 + 2 * (1 - math.cos(math.pi * (k / 4) ** 2.75)) / 2 for k in range(4)]
    np.testing.assert_allclose(scales, expected, rtol=1e-6)
    assert scales[0] == 1 and (np.diff(scales) > 0).all() and scales.dtype == np.float32


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
    np.testing.assert_array_equal(sample_uniforms(3, [4], "top", (24,))[0], all_of_them[4].ravel())
    assert sample_uniforms(2**64 - 1, [2**64 - 1], "top", (3, 2, 2)).shape == (1, 3, 2, 2)
    many = sample_uniforms(0, range(200), "top", (16, 16))
    assert abs(many.mean() - 0.5) < 0.005 and abs(many.var() - 1 / 12) < 0.002


def test_uniforms_stay_what_they_were():
    expected = np.array([[0.95191616, 0.73317635], [0.96618283, 0.77259314]], "float32")
    np.testing.assert_array_equal(sample_uniforms(3, [4], "top", (2, 2))[0], expected)


@pytest.mark.parametrize(
    "seed, sample, name",
    [
        (2**64, 0, "seed"),
        (-1, 0, "seed"),
        (0.5, 0, "seed"),
        (0, 2**64, "sample"),
        (0, -1, "sample"),
    ],
)
def test_numbers_that_do_not_fit_the_generator(seed, sample, name):
    with pytest.raises(
        ValueError, match=rf"Expected an integer in \[0, 2\*\*64\). Received: {name}="
    ):
        sample_uniforms(seed, [sample], "top", (2, 2))
