import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CASES = {
    "attention": {"code_shape": (5, 6)},
    "labels": {"code_shape": (4, 4), "num_classes": 3},
    "no attention, condition": {
        "code_shape": (6, 4),
        "level": "bottom",
        "condition_factors": {"top": 2},
        "attention_heads": 0,
        "kernel_size": 5,
    },
    "the port's": {
        "code_shape": (4, 5),
        "kernel_size": (5, 3),
        "first_kernel_size": 3,
        "mask_type": "A",
        "attend_to_codes": False,
        "row_context": False,
    },
    "two conditions, labels, learned upsampling, many blocks": {
        "code_shape": (4, 8),
        "level": "bottom",
        "condition_factors": {"top": 4, "middle": 2},
        "num_classes": 2,
        "upsampling": "learned",
        "num_blocks": 3,
        "block_layers": 2,
    },
    "one row": {"code_shape": (1, 7)},
    "one column": {"code_shape": (7, 1), "kernel_size": 5},
}


@pytest.mark.parametrize("case", CASES)
def test_cached_logits_equal_those_of_the_whole_map(make, batch, stepwise, case):
    prior = make(**CASES[case])
    codes = batch(prior)
    whole = prior.predict(codes, verbose=0)
    np.testing.assert_allclose(stepwise(prior, codes), whole, atol=1e-4)
    assert whole.std() > 0.1


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    arguments=st.fixed_dictionaries(
        {
            "num_blocks": st.integers(1, 2),
            "block_layers": st.integers(1, 2),
            "kernel_size": st.sampled_from([1, 3, 5, (3, 5)]),
            "first_kernel_size": st.sampled_from([3, 5]),
            "mask_type": st.sampled_from(["A", "B"]),
            "attention_heads": st.sampled_from([0, 1, 4]),
            "attend_to_codes": st.booleans(),
            "row_context": st.booleans(),
            "num_classes": st.sampled_from([None, 3]),
            "condition_factors": st.sampled_from([{}, {"top": 2}, {"top": 2, "middle": 1}]),
            "output_blocks": st.integers(0, 1),
        }
    ),
)
def test_cached_logits_equal_those_of_the_whole_map_for_any_configuration(
    make, batch, stepwise, shape, arguments
):
    prior = make((2 * shape[0], 2 * shape[1]), level="bottom", **arguments)
    codes = batch(prior)
    np.testing.assert_allclose(stepwise(prior, codes), prior.predict(codes, verbose=0), atol=1e-4)


def test_half_precision_decodes_what_it_predicts(make, batch, stepwise):
    prior = make(dtype="mixed_bfloat16", num_classes=2)
    codes = batch(prior)
    whole = prior.predict(codes, verbose=0)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(stepwise(prior, codes), whole, atol=0.1 * np.abs(whole).max())


@pytest.fixture
def channels_first():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)


def test_maps_are_channels_last_whatever_keras_is_set_to(make, batch, stepwise, channels_first):
    case = CASES["two conditions, labels, learned upsampling, many blocks"]
    prior = make(**case, row_context=True)
    codes = batch(prior)
    np.testing.assert_allclose(stepwise(prior, codes), prior.predict(codes, verbose=0), atol=1e-4)


def test_int8_draws_from_what_it_predicts(make, batch, stepwise, tmp_path):
    prior = make(**CASES["no attention, condition"] | {"attention_heads": 2, "num_classes": 2})
    codes = batch(prior)
    before = stepwise(prior, codes)
    prior.quantize("int8")
    assert sum(v.dtype == "int8" for v in prior.variables) == 2 * 4
    whole = prior.predict(codes, verbose=0)
    assert np.abs(before - whole).max() > 1e-3
    np.testing.assert_allclose(stepwise(prior, codes), whole, atol=1e-3)
    prior.save_to_preset(tmp_path / "int8")
    again = type(prior).from_preset(tmp_path / "int8")
    np.testing.assert_array_equal(again.predict(codes, verbose=0), whole)
    part = make(attention_heads=2)
    part.quantize("int8", filters="query")
    again = type(part).from_config(part.get_config())
    names = [v.path for v in again.variables if v.dtype == "int8"]
    assert names == [f"block_{i}/attention/query/kernel" for i in range(2)]


def test_other_quantization_is_refused(make):
    prior = make()
    before = prior.get_config()
    for arguments in (
        {"mode": "int4"},
        {"mode": "float8"},
        {"config": keras.quantizers.Int8QuantizationConfig(activation_quantizer=None)},
    ):
        with pytest.raises(ValueError, match="Expected quantization to 'int8'.*Received: mode="):
            prior.quantize(**arguments)
    assert prior.get_config() == before


def test_a_diverged_prior_draws_nothing(make):
    prior = make((4, 4))
    prior.get_layer("output_stack").logits.bias.assign(np.full(12, np.nan))
    with pytest.raises(ValueError, match="Expected finite logits"):
        prior.generate(1, verbose=0)


def test_memory_of_the_cache(make):
    prior = make((4, 6), attention_heads=2, kernel_size=5, num_blocks=1)
    codes, inputs, keys = 3 * 2 * 6, 3 * 2 * 6 * (8 + 6), 2 * 3 * 4 * 6 * 4
    assert prior._row_decoder.cache_bytes(3) == 4 * (codes + inputs + keys)
