import math

import keras
import numpy as np
import pytest

from keras_vqvae2 import PixelSnailPrior
from keras_vqvae2.models.pixelsnail.pixelsnail_presets import PIXELSNAIL_PRESETS

COUNTS = {
    "pixelsnail_cartoonset_128_top": 2_898_416,
    "pixelsnail_cartoonset_128_bottom": 4_349_232,
    "pixelsnail_clothing_64_top": 4_464_152,
    "pixelsnail_clothing_64_bottom": 4_179_680,
    "pixelsnail_eurosat_64_top": 2_898_416,
    "pixelsnail_eurosat_64_bottom": 4_349_232,
    "pixelsnail_imagenette_128_top": 4_461_848,
    "pixelsnail_imagenette_128_bottom": 4_227_424,
    "pixelsnail_imagenet_256_top": 1_045_250_336,
    "pixelsnail_imagenet_256_bottom": 1_306_127_360,
    "pixelsnail_ffhq_1024_top": 961_794_336,
    "pixelsnail_ffhq_1024_middle": 811_277_832,
    "pixelsnail_ffhq_1024_bottom": 899_216_384,
}


def reach(prior, codes, position):
    """Which codes change the logits at a position. Codes are not differentiable: change each."""
    rows, columns = prior.code_shape
    count = rows * columns
    changed = np.repeat(codes[prior.level][:1], count + 1, axis=0)
    flat = changed.reshape(count + 1, count)
    flat[np.arange(count), np.arange(count)] = (flat[-1] + 1) % prior.num_embeddings
    inputs = {name: np.repeat(value[:1], count + 1, axis=0) for name, value in codes.items()}
    inputs[prior.level] = changed
    logits = prior.predict(inputs, batch_size=64, verbose=0).reshape(count + 1, count, -1)
    return np.abs(logits[:-1, position] - logits[-1:, position]).max(axis=-1) > 0


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention_heads": 0, "num_blocks": 3},
        {"attend_to_codes": False, "num_blocks": 3},
        {"level": "bottom", "condition_factors": {"top": 2}, "num_classes": 2},
    ],
    ids=["attention to codes", "row context", "attention to the stream", "conditions"],
)
def test_every_earlier_position_is_seen_and_no_other(make, batch, changes):
    prior = make((6, 8), **changes)
    codes = batch(prior)
    whole_map = prior.attention_heads or None
    for position in (0, 1, 7, 8, 20, 27, 47):
        seen = reach(prior, codes, position)
        assert not seen[position:].any(), position
        if whole_map:
            assert seen[:position].all(), (position, np.flatnonzero(~seen[:position]))
        else:
            # Each of 8 causal 3x3 convolutions sees a row further up; every row there whole.
            row = position // 8
            above = seen[: row * 8].reshape(row, 8)
            assert above.all(axis=1)[max(0, row - 6) :].all(), (position, above)
            assert seen[row * 8 : position].all()


def test_masked_convolutions_alone_are_blind_to_the_right(make, batch):
    prior = make((6, 8), attention_heads=0, row_context=False, num_blocks=3)
    seen = reach(prior, batch(prior), position=32).reshape(6, 8)  # row 4, column 0
    assert seen[3, 0] and not seen[3, 7]


@pytest.mark.compiled
def test_fit_learns_and_reports_nats_bits_and_bits_per_dim(make, batch):
    prior = make((4, 4), scale=0.1, num_classes=3, image_shape=(16, 16, 3), dropout=0.1)
    codes = batch(prior, 8)
    codes["label"][:] = np.arange(8) % 3
    codes["top"][:] = codes["label"][:, None, None]
    prior.compile(optimizer=keras.optimizers.Adam(3e-2, use_ema=True, ema_momentum=0.5))
    history = prior.fit(codes, epochs=30, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert set(history) == {
        "loss", "bits_per_code", "bits_per_dim", "gradient_norm", "skipped_steps"
    }  # fmt: skip
    metrics = prior.evaluate(codes, verbose=0, return_dict=True)
    logits = prior.predict(codes, verbose=0).astype("float64")
    picked = np.take_along_axis(logits, codes["top"][..., None], -1)[..., 0]
    nats = (np.log(np.exp(logits).sum(-1)) - picked).mean()
    assert metrics["loss"] == pytest.approx(nats, rel=1e-4)
    assert metrics["bits_per_code"] == pytest.approx(nats / math.log(2), rel=1e-4)
    assert metrics["bits_per_dim"] == pytest.approx(nats / math.log(2) * 16 / 768, rel=1e-4)
    # What it learned is what it draws.
    drawn = prior.generate(6, labels=[0, 1, 2, 0, 1, 2], temperature=0.5, verbose=0)
    assert (drawn == np.array([0, 1, 2, 0, 1, 2])[:, None, None]).mean() > 0.8


def test_a_smaller_last_batch_counts_by_its_examples(make, batch):
    prior = make(num_classes=3)
    prior.compile()
    codes = batch(prior, count=5)
    whole, parts = (
        prior.evaluate(codes, batch_size=n, verbose=0, return_dict=True) for n in (5, 3)
    )
    assert whole == pytest.approx(parts, rel=1e-5)


def test_gradient_checkpointing_changes_no_gradient(make, batch):
    weights = []
    for checkpointing in (False, True):
        prior = make(scale=0.2, dropout=0.0, gradient_checkpointing=checkpointing, num_classes=2)
        prior.compile(optimizer=keras.optimizers.SGD(0.1))
        prior.fit(batch(prior, 4), batch_size=4, epochs=2, shuffle=False, verbose=0)
        weights.append(prior.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_trains(make, batch, policy):
    prior = make(scale=0.1, dtype=policy, gradient_checkpointing=True, dropout=0.1)
    prior.compile(optimizer=keras.optimizers.Adam(1e-2))
    history = prior.fit(batch(prior, 4), epochs=12, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] < 4.0


@pytest.mark.compiled
def test_samples_depend_on_their_number_and_not_on_the_batch(make, batch):
    prior = make(num_classes=3, level="bottom", condition_factors={"top": 1}, scale=0.4)
    labels = np.array([0, 1, 2, 0, 1])
    condition = {"top": batch(prior, 5)["top"]}
    arguments = {"labels": labels, "condition": condition, "seed": 7, "verbose": 0}
    together = prior.generate(5, **arguments)
    assert together.shape == (5, 5, 6) and together.dtype == np.int32
    assert together.min() >= 0 and together.max() < 12 and len(np.unique(together)) > 6
    np.testing.assert_array_equal(prior.generate(5, batch_size=2, **arguments), together)
    later = prior.generate(
        2,
        labels=labels[3:],
        condition={"top": condition["top"][3:]},
        seed=7,
        first_sample=3,
        verbose=0,
    )
    np.testing.assert_array_equal(later, together[3:])
    assert (prior.generate(5, **{**arguments, "seed": 8}) != together).any(axis=(1, 2)).all()


def test_the_same_codes_on_every_backend(make):
    prior = make((4, 4), scale=0.4)
    assert prior.generate(2, seed=1, verbose=0)[:, :2].tolist() == SAME_CODES


SAME_CODES = [
    [[1, 9, 1, 0], [6, 9, 5, 9]],
    [[11, 7, 4, 7], [6, 8, 6, 8]],
]


def test_given_codes_stay_and_the_rest_depends_on_them(make):
    prior = make(scale=0.5)
    free = prior.generate(2, verbose=0)
    given = np.full((2, 5, 6), -1)
    given[:, 1, 2:4] = 5
    completed = prior.generate(2, codes=given, verbose=0)
    assert (completed[:, 1, 2:4] == 5).all()
    np.testing.assert_array_equal(completed[:, 0], free[:, 0])
    np.testing.assert_array_equal(completed[:, 1, :2], free[:, 1, :2])
    assert (completed[:, 1:] != free[:, 1:]).sum() > 4
    np.testing.assert_array_equal(prior.generate(2, codes=free, verbose=0), free)


def test_new_weights_are_sampled_from_at_once(make):
    prior = make(scale=0.5)
    before = prior.generate(1, verbose=0)
    for variable in prior.trainable_variables:
        variable.assign(-variable)
    assert (prior.generate(1, verbose=0) != before).any()


def test_an_interrupt_goes_through(make, monkeypatch):
    prior = make()

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(prior, "_draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prior.generate(3, batch_size=2, verbose=0)


def test_progress_is_shown_by_row(make, capsys):
    make((3, 3)).generate(1)
    assert "top: 100%" in capsys.readouterr().err


def test_presets_round_trip_and_reload_under_another_dtype(make, batch, tmp_path):
    prior = make(num_classes=2, image_shape=(20, 24, 3), codes_fingerprint="abc")
    codes = batch(prior)
    prior.save_to_preset(tmp_path / "preset")
    again = PixelSnailPrior.from_preset(tmp_path / "preset")
    assert again.get_config() == prior.get_config()
    np.testing.assert_allclose(again.predict(codes, verbose=0), prior.predict(codes, verbose=0))
    half = PixelSnailPrior.from_preset(tmp_path / "preset", dtype="mixed_bfloat16")
    assert half.compute_dtype == "bfloat16"
    prior.save_to_preset(tmp_path / "small", weights_dtype="float16")
    small = PixelSnailPrior.from_preset(tmp_path / "small")
    sizes = [(tmp_path / name / "model.weights.h5").stat().st_size for name in ("preset", "small")]
    assert sizes[1] < sizes[0]
    np.testing.assert_allclose(
        small.predict(codes, verbose=0), prior.predict(codes, verbose=0), atol=0.02
    )


@pytest.mark.parametrize("name", PIXELSNAIL_PRESETS)
def test_presets_have_just_so_many_parameters(name):
    assert set(PIXELSNAIL_PRESETS) == set(COUNTS) == set(PixelSnailPrior.presets)
    # Shapes only: the largest would take 5 GB.
    entry = PixelSnailPrior.presets[name]
    with keras.StatelessScope(initialize_variables=False):
        prior = PixelSnailPrior.from_preset(name, load_weights=False)
    # Keras would make up for the weights, gigabytes of them, when the next test builds a model.
    keras.backend.clear_session()
    assert prior.count_params() == COUNTS[name] == entry["parameters"]
    assert entry["has_weights"] == ("config" not in entry)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.pop("label"), r"with the keys \('top', 'label'\). Received: \['top'\]"),
        (lambda c: c.update(top=c["top"][:, :4]), r"shape \(batch, 5, 6\).*'top'"),
        (lambda c: c.update(top=c["top"] + 12), r"codes in \[0, 12\). Received: 'top' from 1"),
        (lambda c: c.update(top=c["top"] - 20), r"codes in \[0, 12\)"),
        (lambda c: c.update(top=c["top"] * 0.5), "Expected integer codes.*float"),
        (lambda c: c.update(label=c["label"] + 3), r"labels in \[0, 3\). Received: 'label'"),
        (lambda c: c.update(label=c["label"][:1]), "as many of each"),
    ],
)
def test_bad_codes_are_refused_before_training(make, batch, change, message):
    prior = make(num_classes=3)
    prior.compile(optimizer="adam")
    codes = batch(prior)
    change(codes)
    for method in (prior.fit, prior.evaluate, prior.predict):
        with pytest.raises(ValueError, match=message):
            method(codes, verbose=0)


def test_sample_weight_without_a_y_is_refused(make, batch):
    prior = make()
    prior.compile(optimizer="adam")
    codes, weights = batch(prior, 4), np.array([1.0, 0, 0, 0])
    for method in (prior.fit, prior.evaluate):
        with pytest.raises(ValueError, match="y beside the sample weights.*Received: y=None"):
            method(codes, sample_weight=weights, verbose=0)
    weighted = prior.evaluate(codes, weights, sample_weight=weights, verbose=0, return_dict=True)
    first = {"top": codes["top"][:1]}
    alone = prior.evaluate(first, verbose=0, return_dict=True)
    assert weighted["loss"] == pytest.approx(alone["loss"] / 4, rel=1e-4)


def test_grain_trains_and_its_first_batch_is_checked(make, batch):
    grain = pytest.importorskip("grain")
    prior = make()
    prior.compile(optimizer="adam")

    def dataset(shift):
        examples = [{"top": codes + shift} for codes in batch(prior, 4)["top"]]
        return grain.MapDataset.source(examples).batch(2)

    prior.fit(dataset(0).to_iter_dataset(), shuffle=False, steps_per_epoch=2, verbose=0)
    assert prior.optimizer.iterations == 2
    for method in (prior.fit, prior.evaluate, prior.predict):
        with pytest.raises(ValueError, match=r"codes in \[0, 12\). Received: 'top'"):
            method(dataset(12).to_iter_dataset(), verbose=0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"labels": None}, "Expected labels below 3. Received: labels=None"),
        ({"labels": 3}, r"Expected labels in \[0, 3\)"),
        ({"labels": [0]}, "Received: {'bottom': 2, 'top': 2, 'label': 1}"),
        ({"condition": None}, r"Expected codes for the levels \['top'\]"),
        ({"condition": {"top": np.zeros((2, 5, 5), "int32")}}, r"shape \(batch, 5, 6\)"),
        ({"codes": np.full((2, 5, 6), 12)}, r"codes in \[-1, 12\). Received: 'bottom'"),
        ({"num_samples": 0}, "Received: num_samples=0"),
        ({"seed": -1}, "Received: seed=-1"),
        ({"batch_size": 0}, "Received: batch_size=0"),
        ({"temperature": 0.0}, "Received: temperature=0.0"),
        ({"top_p": 1.5}, "Received: top_p=1.5"),
    ],
)
def test_bad_requests_are_refused(make, arguments, message):
    prior = make(num_classes=3, level="bottom", condition_factors={"top": 1})
    request = {"labels": 1, "condition": {"top": np.zeros((2, 5, 6), "int32")}, "num_samples": 2}
    with pytest.raises(ValueError, match=message):
        prior.generate(**{**request, **arguments}, verbose=0)
    with pytest.raises(ValueError, match="Expected no labels"):
        make().generate(1, labels=0, verbose=0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"code_shape": (0, 3)}, "Received: code_shape"),
        ({"code_shape": (5, 6), "condition_factors": {"top": 2}, "level": "x"}, "that divides"),
        ({"code_shape": (4, 4), "condition_factors": {"top": 2}}, "levels other than 'top'"),
        ({"code_shape": (4, 4), "num_blocks": 0}, "Received: num_blocks=0"),
        ({"code_shape": (4, 4), "upsampling": "cubic"}, "Received: upsampling='cubic'"),
        ({"code_shape": (4, 4), "mask_type": None}, "'A' or 'B'. Received: mask_type=None"),
        ({"code_shape": (4, 4), "output_blocks": -1}, "Received: output_blocks=-1"),
        ({"code_shape": (4, 4), "kernel_size": 4}, "Received: kernel_size=4"),
        ({"code_shape": (4, 4), "attention_heads": 3}, "num_heads=3"),
    ],
)
def test_bad_configurations_are_refused(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)
