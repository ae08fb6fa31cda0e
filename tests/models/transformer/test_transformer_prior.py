import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_vqvae2 import TransformerPrior
from keras_vqvae2.models.transformer.transformer_presets import TRANSFORMER_PRESETS
from keras_vqvae2.models.transformer.transformer_prior import llama_units

COUNTS = {"transformer_llamagen_b": 110_888_448, "transformer_llamagen_l": 342_910_976}
CONDITIONED = {"level": "bottom", "condition_factors": {"top": 2}, "num_classes": 3}


# === One position after the other ===


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    arguments=st.fixed_dictionaries(
        {
            "num_layers": st.integers(1, 2),
            "num_heads": st.sampled_from([1, 2, 4]),
            "qk_norm": st.booleans(),
            "absolute_positions": st.booleans(),
            "num_classes": st.sampled_from([None, 3]),
            "condition_factors": st.sampled_from([{}, {"top": 2}, {"top": 2, "middle": 1}]),
            "condition_blocks": st.integers(0, 1),
        }
    ),
)
def test_cached_logits_equal_those_of_the_whole_map_for_any_configuration(
    make, batch, stepwise, shape, arguments
):
    prior = make((2 * shape[0], 2 * shape[1]), level="bottom", **arguments)
    codes = batch(prior)
    whole = prior.predict(codes, verbose=0)
    np.testing.assert_allclose(stepwise(prior, codes), whole, atol=1e-4)
    assert whole.std() > 0.1


@pytest.mark.parametrize("shape", [(1, 7), (7, 1), (1, 1)])
def test_maps_of_one_row_or_column(make, batch, stepwise, shape):
    prior = make(shape)
    codes = batch(prior)
    np.testing.assert_allclose(stepwise(prior, codes), prior.predict(codes, verbose=0), atol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_trains_and_decodes_what_it_predicts(make, batch, stepwise, policy):
    prior = make(**CONDITIONED, code_shape=(4, 4), dtype=policy, dropout=0.1)
    codes = batch(prior)
    whole = prior.predict(codes, verbose=0)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(stepwise(prior, codes), whole, atol=0.1 * np.abs(whole).max())
    prior.compile(optimizer=keras.optimizers.Adam(1e-2))
    history = prior.fit(codes, epochs=10, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


def test_large_queries_stay_finite_in_float16(make, batch):
    prior = make(dtype="mixed_float16", scale=0.3)
    for name in ("query", "key"):
        kernel = getattr(prior.get_layer("block_0").attention, f"{name}_projection").kernel
        kernel.assign(np.full(kernel.shape, 12.0))  # products of 10^5
    assert np.isfinite(prior.predict(batch(prior), verbose=0)).all()


# === Training ===


def test_every_earlier_position_is_seen_and_no_other(make, batch):
    prior = make((3, 4), **{**CONDITIONED, "condition_factors": {"top": 1}})
    codes = batch(prior, 1)
    changed = {name: np.repeat(value, 13, axis=0) for name, value in codes.items()}
    flat = changed["bottom"].reshape(13, 12)
    flat[np.arange(12), np.arange(12)] = (flat[-1] + 1) % 12
    logits = prior.predict(changed, verbose=0).reshape(13, 12, -1)
    seen = np.abs(logits[:-1] - logits[-1:]).max(axis=-1) > 1e-6  # [changed, looked at]
    np.testing.assert_array_equal(seen, np.triu(np.ones((12, 12), bool), 1))
    # Of the coarser level every position is seen everywhere.
    changed["bottom"][:] = changed["bottom"][-1]
    top = changed["top"].reshape(13, 12)
    top[np.arange(12), np.arange(12)] = (top[-1] + 1) % 12
    logits = prior.predict(changed, verbose=0).reshape(13, 12, -1)
    assert (np.abs(logits[:-1] - logits[-1:]).max(axis=-1) > 1e-6).all()


def test_a_prior_starts_at_equal_logits_and_learns(batch):
    prior = TransformerPrior(
        (3, 4), 12, num_classes=3, hidden_units=32, num_layers=2, num_heads=4, dropout=0.0,
        feed_forward_units=48,
    )  # fmt: skip
    codes = batch(prior, 12)
    assert np.ptp(prior.predict(codes, verbose=0)) == 0
    codes["label"][:] = np.arange(12) % 3
    codes["top"][:] = codes["label"][:, None, None] + 4
    prior.compile(optimizer=keras.optimizers.AdamW(3e-2, weight_decay=0.05))
    losses = prior.fit(codes, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < 0.2 < 2.0 < losses[0]
    drawn = prior.generate(3, labels=[0, 1, 2], verbose=0)
    assert (drawn == np.array([4, 5, 6])[:, None, None]).mean() > 0.9


def test_gradient_checkpointing_changes_no_gradient(make, batch):
    weights = []
    for checkpointing in (False, True):
        keras.utils.set_random_seed(0)
        prior = make(**CONDITIONED, code_shape=(4, 4), dropout=0.3, scale=0.1,
                     gradient_checkpointing=checkpointing)  # fmt: skip
        prior.compile(optimizer=keras.optimizers.SGD(0.1))
        prior.fit(batch(prior, 4), batch_size=4, epochs=2, shuffle=False, verbose=0)
        weights.append(prior.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


# === Quantization ===


def test_int8_draws_from_what_it_predicts_and_loses_little(make, batch, stepwise, tmp_path):
    prior = make(**CONDITIONED, code_shape=(4, 4), scale=0.2)
    codes = batch(prior, 16)
    before = prior.nats(codes).mean()
    prior.quantize("int8")
    small = sum(np.prod(v.shape) for v in prior.variables if v.dtype == "int8")
    assert small > 0.9 * prior.count_params()
    assert abs(prior.nats(codes).mean() - before) < 0.02
    whole = prior.predict(codes, verbose=0)
    np.testing.assert_allclose(stepwise(prior, codes), whole, atol=2e-3)
    prior.save_to_preset(tmp_path / "int8")
    again = TransformerPrior.from_preset(tmp_path / "int8")
    np.testing.assert_array_equal(again.predict(codes, verbose=0), whole)


# === Arguments and presets ===


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_heads": 3}, "multiple of 4 times the heads.*hidden_units=16, num_heads=3"),
        ({"num_heads": 8}, "multiple of 4 times the heads"),
        ({"num_layers": 0}, "num_layers=0"),
        ({"hidden_units": -16}, "hidden_units=-16"),
        ({"feed_forward_units": 0.5}, "feed_forward_units=0.5"),
        ({"condition_blocks": -1}, "condition_blocks=-1"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"rope_base": 0.0}, "base=0.0"),
    ],
)
def test_other_arguments_are_refused(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_the_width_of_the_gate_is_llamagens():
    assert [llama_units(d) for d in (768, 1024, 1280)] == [2048, 2816, 3584]
    assert TransformerPrior((2, 2), hidden_units=48, num_layers=1).feed_forward_units == 256


def test_every_entry_is_pinned_here_and_builds():
    assert set(TRANSFORMER_PRESETS) == set(COUNTS) == set(TransformerPrior.presets)
    for name, count in COUNTS.items():
        entry = TransformerPrior.presets[name]
        with keras.StatelessScope(initialize_variables=False):
            prior = TransformerPrior.from_preset(name, load_weights=False)
        assert prior.count_params() == count == entry["parameters"]
        assert not entry["has_weights"] and entry["description"].endswith(".")
        assert prior.image_shape == tuple(entry["config"]["image_shape"])
        keras.backend.clear_session()


def test_memory_of_the_cache(make):
    prior = make((4, 6))
    assert prior._row_decoder.cache_bytes(3) == 4 * (3 + 2 * 2 * 3 * 24 * 16)
