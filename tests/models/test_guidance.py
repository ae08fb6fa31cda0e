"""Guidance: a prior that has learned to do without labels and coarser levels obeys them more."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae2 import VQVAE2, HierarchicalImageGenerator, PixelSnailPrior
from keras_vqvae2.decoding.sampling import Sampling, sample_uniforms

CODES, LABELS = 6, 3


def make(**kwargs):
    prior = PixelSnailPrior(
        (4, 4), CODES, level="bottom", condition_factors={"top": 2}, num_classes=LABELS,
        hidden_units=8, residual_units=8, num_blocks=1, block_layers=1, kernel_size=3,
        attention_heads=2, output_blocks=0, condition_blocks=1, **kwargs,
    )  # fmt: skip
    rng = np.random.default_rng(1)
    for variable in prior.trainable_variables:
        variable.assign(rng.normal(scale=0.4, size=variable.shape))
    return prior


@pytest.fixture(scope="module")
def prior():
    return make(label_dropout=0.1, condition_dropout=0.1)


@pytest.fixture(scope="module")
def of_labels():
    """A prior that does without labels, but not without the coarser level."""
    return make(label_dropout=0.1)


@pytest.fixture(scope="module")
def top():
    return np.random.default_rng(0).integers(CODES, size=(5, 2, 2))


LABEL = np.arange(5) % LABELS


def logits_of(prior, **batch):
    return ops.convert_to_numpy(prior.predict_on_batch(batch))


def naive(prior, top, untold_top, scales, seed, given=None):
    """Position after position, by two full passes each."""
    drawn = np.full((5, 4, 4), -1, "int32") if given is None else given.copy()
    uniforms = sample_uniforms(seed, range(5), "bottom", (4, 4))
    sampling = Sampling(0.9)
    for row, column in np.ndindex(4, 4):
        seen = np.maximum(drawn, 0)
        told = logits_of(prior, bottom=seen, top=top, label=LABEL)[:, row, column]
        untold = logits_of(prior, bottom=seen, top=untold_top, label=np.full(5, LABELS))
        untold = untold[:, row, column]
        logits = untold + scales[4 * row + column] * (told - untold)
        codes = sampling.draw(logits, uniforms[:, row, column], sampling.numbers())
        free = drawn[:, row, column] < 0
        drawn[free, row, column] = ops.convert_to_numpy(codes)[free]
    return drawn


@pytest.mark.parametrize("power", [None, 2.75])
def test_cached_drawing_equals_two_full_passes(prior, top, power):
    scales = np.full(16, 3.0)
    if power:
        scales = 1 + 2 * (1 - np.cos(np.pi * (np.arange(16) / 16) ** power)) / 2
    given = np.full((5, 4, 4), -1, "int32")
    given[:, 1, 2] = 4
    drawn = prior.generate(
        5, LABEL, {"top": top}, given, temperature=0.9, guidance_scale=3.0, guidance_power=power,
        seed=2, verbose=0,
    )  # fmt: skip
    np.testing.assert_array_equal(drawn, naive(prior, top, np.full_like(top, -1), scales, 2, given))


def test_only_what_was_hidden_in_training_is_hidden(of_labels, top):
    drawn = of_labels.generate(
        5, LABEL, {"top": top}, temperature=0.9, guidance_scale=2.0, seed=2, verbose=0
    )
    np.testing.assert_array_equal(drawn, naive(of_labels, top, top, np.full(16, 2.0), 2))


def test_a_sample_is_the_same_whatever_the_batch(prior, top):
    options = {"guidance_scale": 2.0, "seed": 5, "verbose": 0}
    whole = prior.generate(5, LABEL, {"top": top}, **options)
    np.testing.assert_array_equal(
        prior.generate(5, LABEL, {"top": top}, batch_size=2, **options), whole
    )
    np.testing.assert_array_equal(
        prior.generate(1, LABEL[3], {"top": top[3:4]}, first_sample=3, **options), whole[3:4]
    )


def test_a_scale_of_1_changes_nothing_and_of_0_forgets_the_label(of_labels, top):
    options = {"condition": {"top": top}, "seed": 1, "verbose": 0}
    plain = of_labels.generate(5, LABEL, **options)
    np.testing.assert_array_equal(
        of_labels.generate(5, LABEL, guidance_scale=1.0, **options), plain
    )
    untold = of_labels.generate(5, LABEL, guidance_scale=0.0, **options)
    np.testing.assert_array_equal(of_labels.generate(5, **options), untold)
    np.testing.assert_array_equal(of_labels.generate(5, LABELS, **options), untold)
    assert (untold != plain).any()


def test_training_hides_labels_and_evaluation_does_not(top):
    prior = make(label_dropout=0.4)
    prior.compile(optimizer=keras.optimizers.SGD(0.5))
    batch = {"bottom": np.zeros((5, 4, 4), "int32"), "top": top, "label": LABEL}
    table = next(v for v in prior.trainable_variables if "label_table" in v.path)
    before = ops.convert_to_numpy(table).copy()
    prior.evaluate(batch, verbose=0)
    prior.fit(batch, batch_size=5, epochs=12, verbose=0)
    learned = np.abs(ops.convert_to_numpy(table) - before).max(axis=1)
    assert learned.shape == (LABELS + 1,) and (learned > 0).all()
    # Examples without a label may be trained on as well.
    prior.fit({**batch, "label": np.full(5, LABELS)}, batch_size=5, verbose=0)


def test_config_and_presets_keep_the_shares(prior, top, tmp_path):
    prior.save_to_preset(tmp_path / "prior")
    loaded = PixelSnailPrior.from_preset(tmp_path / "prior")
    assert (loaded.label_dropout, loaded.condition_dropout) == (0.1, 0.1)
    options = {"guidance_scale": 2.0, "verbose": 0}
    np.testing.assert_array_equal(
        loaded.generate(5, LABEL, {"top": top}, **options),
        prior.generate(5, LABEL, {"top": top}, **options),
    )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"label_dropout": 1.0}, "Received: label_dropout=1.0"),
        ({"label_dropout": -0.1}, "Received: label_dropout=-0.1"),
        ({"condition_dropout": float("nan")}, "Received: condition_dropout=nan"),
    ],
)
def test_shares_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_nothing_to_hide():
    sizes = {"hidden_units": 8, "residual_units": 8, "num_blocks": 1, "block_layers": 1}
    for option in ("label_dropout", "condition_dropout"):
        with pytest.raises(ValueError, match=f"Received: {option}=0.1 with the inputs .'top'"):
            PixelSnailPrior((4, 4), CODES, **sizes, **{option: 0.1})


def test_guidance_of_a_prior_that_knows_no_other_way(top):
    prior = make()
    with pytest.raises(ValueError, match="without label_dropout.*guidance_scale=2 for 'bottom'"):
        prior.generate(5, LABEL, {"top": top}, guidance_scale=2)
    with pytest.raises(ValueError, match="labels below 3. Received: labels=None"):
        prior.generate(5, None, {"top": top})


def test_a_generator_guides_level_by_level(of_labels, tmp_path):
    vqvae = VQVAE2((16, 16, 3), num_embeddings=CODES, hidden_units=8, residual_units=4)
    sizes = {"hidden_units": 8, "residual_units": 8, "num_blocks": 1, "block_layers": 1}
    top = PixelSnailPrior(
        (2, 2), CODES, num_classes=LABELS, attention_heads=2, **sizes, output_blocks=0
    )
    generator = HierarchicalImageGenerator(vqvae, [top, of_labels])
    with pytest.raises(ValueError, match="guidance_scale=2 for 'top'"):
        generator.generate(2, guidance_scale=2)
    with pytest.raises(ValueError, match="guidance_scale=2 for 'top'"):
        HierarchicalImageGenerator(vqvae, [top, of_labels], settings={"top": {"guidance_scale": 2}})
    options = {"seed": 3, "verbose": 0}
    plain = generator.generate(2, **options)
    guided = generator.generate(2, guidance_scale={"bottom": 4.0}, **options)
    assert (guided != plain).any()
    settled = HierarchicalImageGenerator(
        vqvae, [top, of_labels], settings={"bottom": {"guidance_scale": 4.0}}
    )
    np.testing.assert_array_equal(settled.generate(2, **options), guided)
    mask = np.zeros((16, 16), bool)
    mask[8:] = True
    completed = settled.complete(plain, mask, labels=[0, 1], verbose=0)
    np.testing.assert_array_equal(completed[:, :8], plain[:, :8])
