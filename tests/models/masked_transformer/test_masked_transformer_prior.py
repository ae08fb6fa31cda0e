import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keras_vqvae2 import CodePrior, MaskedTransformerPrior
from keras_vqvae2.models.masked_transformer.masked_transformer_presets import (
    MASKED_TRANSFORMER_PRESETS,
)

CONDITIONED = {"level": "bottom", "condition_factors": {"top": 2}, "num_classes": 3}


def numpy(x):
    return keras.ops.convert_to_numpy(x)


# === Training ===


def test_the_loss_is_the_smoothed_cross_entropy_of_masked_codes(make, batch):
    prior = make(**CONDITIONED, code_shape=(4, 4), label_smoothing=0.2)
    codes = batch(prior, 6)
    prior.compile()
    logs = prior.evaluate(codes, batch_size=6, verbose=0, return_dict=True)
    assert set(logs) == {"loss", "masked_nats"}
    assert logs == prior.evaluate(codes, batch_size=6, verbose=0, return_dict=True)
    tensors = {name: keras.ops.convert_to_tensor(value) for name, value in codes.items()}
    masked = numpy(prior.step_outputs(tensors, training=False)["masked"])
    logits = prior.predict({**codes, "bottom": np.where(masked, -1, codes["bottom"])}, verbose=0)
    logs_of = np.log(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    nats = -np.take_along_axis(logs_of, codes["bottom"][..., None], -1)[..., 0]
    assert logs["masked_nats"] == pytest.approx(nats[masked].mean(), rel=1e-4)
    smoothed = 0.8 * nats + 0.2 * -logs_of.mean(-1)
    expected = smoothed[masked].sum() / 6 / prior._mask_counts.mean()
    assert logs["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("schedule", ["cosine", "arccos", "pow2"])
def test_as_many_codes_are_masked_as_the_schedule_has(make, schedule):
    prior = make((4, 4), mask_schedule=schedule)
    masks = numpy(prior._masks(np.zeros((512, 4, 4), "int32"), keras.random.SeedGenerator(0)))
    counts = np.sort(masks.sum((1, 2)))
    progress = (np.arange(512) + 0.5) / 512
    share = {
        "cosine": np.cos(np.pi / 2 * progress),
        "arccos": np.arccos(progress) * 2 / np.pi,
        "pow2": 1 - progress**2,
    }[schedule]
    expected = np.sort(np.maximum(1, np.round(16 * share)))
    assert np.abs(counts - expected).mean() < 0.1  # progress starts anywhere in its step
    assert np.abs(masks.mean(axis=0) / masks.mean() - 1).max() < 0.2  # no place is favoured


def test_what_is_masked_are_the_smallest_uniforms(make):
    prior = make((4, 4))
    masks = numpy(prior._masks(np.zeros((64, 4, 4), "int32"), 7)).reshape(64, 16)
    noise = numpy(keras.random.uniform((1, 64, 17), dtype="float32", seed=7))[0, :, :-1]
    ranks = np.argsort(np.argsort(noise, axis=-1), axis=-1)
    np.testing.assert_array_equal(masks, ranks < masks.sum(-1, keepdims=True))
    assert set(masks.sum(-1)) <= set(prior._mask_counts)


def test_masks_change_from_step_to_step_and_come_again_with_the_seed(make, batch):
    losses = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        prior = make(scale=0.1)
        prior.compile(optimizer=keras.optimizers.SGD(0.0))
        codes = batch(prior, 4)
        losses.append(prior.fit(codes, epochs=3, verbose=0).history["loss"])
    assert losses[0] == losses[1] and len(set(losses[0])) == 3


@pytest.mark.parametrize("post_norm", [False, True])
def test_it_learns_and_draws_what_it_learned(batch, post_norm):
    prior = MaskedTransformerPrior(
        (3, 4), 12, num_classes=3, hidden_units=32, num_layers=2, num_heads=4, dropout=0.0,
        feed_forward_units=48, post_norm=post_norm,
    )  # fmt: skip
    codes = batch(prior, 12)
    codes["label"][:] = np.arange(12) % 3
    codes["top"][:] = codes["label"][:, None, None] + 4
    prior.compile(optimizer=keras.optimizers.Adam(1e-2))
    nats = prior.fit(codes, epochs=40, verbose=0).history["masked_nats"]
    assert nats[-1] < 0.4 < 2.0 < nats[0]
    for order in ("confidence", "halton"):
        drawn = prior.generate(3, labels=[0, 1, 2], order=order, temperature=0.5, verbose=0)
        assert (drawn == np.array([4, 5, 6])[:, None, None]).mean() > 0.9


@pytest.mark.parametrize("post_norm", [False, True])
def test_gradient_checkpointing_changes_no_gradient(make, batch, post_norm):
    weights = []
    for checkpointing in (False, True):
        keras.utils.set_random_seed(0)
        prior = make(**CONDITIONED, code_shape=(4, 4), dropout=0.3, scale=0.1, condition_blocks=1,
                     post_norm=post_norm, gradient_checkpointing=checkpointing)  # fmt: skip
        prior.compile(optimizer=keras.optimizers.SGD(0.1))
        prior.fit(batch(prior, 4), batch_size=4, epochs=2, shuffle=False, verbose=0)
        weights.append(prior.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("post_norm", [False, True])
def test_half_precision_trains_and_draws(make, batch, policy, post_norm):
    prior = make(**CONDITIONED, code_shape=(4, 4), dtype=policy, post_norm=post_norm, scale=0.1)
    codes = batch(prior, 4)
    assert prior.predict(codes, verbose=0).dtype == np.float32
    prior.compile(optimizer=keras.optimizers.Adam(1e-2))
    nats = prior.fit(codes, epochs=10, verbose=0).history["masked_nats"]
    assert nats[-1] < nats[0]
    assert prior.generate(1, 0, {"top": codes["top"][:1]}, verbose=0).min() >= 0


# === Drawing ===


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    arguments=st.fixed_dictionaries(
        {
            "post_norm": st.booleans(),
            "qk_norm": st.booleans(),
            "absolute_positions": st.booleans(),
            "num_classes": st.sampled_from([None, 3]),
            "condition_factors": st.sampled_from([{}, {"top": 2}, {"top": 2, "middle": 1}]),
            "condition_blocks": st.integers(0, 1),
            "mask_schedule": st.sampled_from(["cosine", "arccos", "log", "pow3"]),
            "order": st.sampled_from(["confidence", "halton"]),
            "num_steps": st.integers(1, 4),
        }
    ),
)
def test_any_configuration_draws_the_same_whatever_the_batch(make, batch, shape, share, arguments):
    prior = make((2 * shape[0], 2 * shape[1]), level="bottom", **arguments)
    codes = batch(prior, 3)
    rng = np.random.default_rng(2)
    given = np.where(rng.uniform(size=codes["bottom"].shape) < share, codes["bottom"], -1)
    labels = codes.get("label")
    rest = {name: codes[name] for name in prior.condition_factors}
    drawn = prior.generate(3, labels, rest, given, verbose=0)
    np.testing.assert_array_equal(drawn[given >= 0], given[given >= 0])
    assert drawn.min() >= 0
    last = {name: value[2:] for name, value in rest.items()}
    alone = prior.generate(
        1, None if labels is None else labels[2:], last, given[2:], first_sample=2, verbose=0
    )
    np.testing.assert_array_equal(alone, drawn[2:])


def test_what_is_given_below_is_seen_above(make):
    prior = make((4, 4), scale=0.5)
    given = np.full((2, 4, 4), -1, "int32")
    given[:, 3] = [[0], [11]]
    drawn = prior.generate(2, codes=given, top_k=1, noise=0.0, verbose=0)
    assert (drawn[0, :3] != drawn[1, :3]).any()


def test_settings_of_a_call_do_not_stay(make):
    prior = make((3, 4), num_steps=3)
    before = prior.generate(2, seed=5, verbose=0)
    other = prior.generate(2, seed=5, num_steps=12, mask_schedule="arccos", noise=0.0, verbose=0)
    assert (before != other).any()
    np.testing.assert_array_equal(prior.generate(2, seed=5, verbose=0), before)
    prior.num_steps = 12
    assert prior.uniforms_shape == (12, 2, 3, 4)


def test_without_noise_one_pass_draws_each_code_by_its_logits(make):
    prior = make((3, 4), num_steps=1)
    drawn = prior.generate(64, verbose=0)
    logits = prior.predict({"top": np.full((1, 3, 4), -1)}, verbose=0)[0]
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    found = (drawn[..., None] == np.arange(12)).mean(0)
    assert np.abs(found - p).max() < 0.25 and np.abs(found - p).mean() < 0.04


def test_int8_draws_and_loads(make, batch, tmp_path):
    prior = make(**CONDITIONED, code_shape=(4, 4), scale=0.2)
    codes = batch(prior, 2)
    rest = {"top": codes["top"]}
    prior.generate(2, [0, 1], rest, verbose=0)
    before = prior.predict(codes, verbose=0)
    prior.quantize("int8")
    small = sum(np.prod(v.shape) for v in prior.variables if v.dtype == "int8")
    assert small > 0.9 * prior.count_params()
    whole = prior.predict(codes, verbose=0)
    assert 1e-4 < np.abs(whole - before).max() < 0.1 * np.abs(before).max()
    prior.save_to_preset(tmp_path / "int8")
    again = CodePrior.from_preset(tmp_path / "int8")
    np.testing.assert_array_equal(
        again.generate(2, [0, 1], rest, verbose=0), prior.generate(2, [0, 1], rest, verbose=0)
    )


# === Arguments and presets ===


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_steps": 0}, "num_steps=0"),
        ({"num_steps": 13}, "at most 12 passes, the codes of a map. Received: num_steps=13"),
        ({"mask_schedule": "cos"}, "Expected 'cosine', .* Received: mask_schedule='cos'"),
        ({"order": "raster"}, "order='raster'"),
        ({"noise": -1.0}, "noise=-1.0"),
        ({"noise": float("nan")}, "noise=nan"),
    ],
)
def test_other_passes_are_refused_in_constructor_and_call(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)
    with pytest.raises(ValueError, match=message):
        make().generate(1, **changes, verbose=0)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
        ({"num_heads": 3}, "multiple of 4 times the heads"),
        ({"condition_blocks": 0.5}, "condition_blocks=0.5"),
    ],
)
def test_other_arguments_are_refused(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_unknown_codes_are_predicted_but_not_learned(make, batch):
    prior = make()
    prior.compile()
    codes = {"top": np.full((2, 3, 4), -1)}
    assert prior.predict(codes, verbose=0).shape == (2, 3, 4, 12)
    with pytest.raises(ValueError, match=r"in \[0, 12\)"):
        prior.fit(codes, verbose=0)


def test_the_preset_has_maskgits_size():
    (name,) = MASKED_TRANSFORMER_PRESETS
    assert set(MaskedTransformerPrior.presets) == {name}
    with keras.StatelessScope(initialize_variables=False):
        prior = MaskedTransformerPrior.from_preset(name, load_weights=False)
    count = prior.count_params()
    keras.backend.clear_session()
    assert count == 172_457_193 == MASKED_TRANSFORMER_PRESETS[name]["parameters"]
    with pytest.raises(ValueError, match="No weights have been published"):
        MaskedTransformerPrior.from_preset(name)
