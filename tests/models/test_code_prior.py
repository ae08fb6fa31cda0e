"""What holds for any prior: the contract of `CodePrior`, and a prior from outside that keeps it."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae2 import (
    VQVAE2,
    CodePrior,
    GatedPixelCNNPrior,
    HierarchicalImageGenerator,
    MaskedTransformerPrior,
    PixelSnailPrior,
    PresetModel,
    TransformerPrior,
)
from keras_vqvae2.evaluation import evaluate_likelihood

# === A prior written outside of the package ===


@keras.saving.register_keras_serializable(package="tests")
class Table(keras.layers.Layer):
    def __init__(self, num_embeddings, **kwargs):
        super().__init__(**kwargs)
        self.num_embeddings = num_embeddings

    def build(self, shape):
        self.logits = self.add_weight(shape=(*shape[1:], self.num_embeddings), name="logits")

    def call(self, codes):
        return self.logits + 0.0 * ops.cast(codes, "float32")[..., None]

    def get_config(self):
        return {**super().get_config(), "num_embeddings": self.num_embeddings}


@keras.saving.register_keras_serializable(package="tests")
class PositionPrior(CodePrior):
    def __init__(self, code_shape, num_embeddings=512, level="top", condition_factors=None,
                 num_classes=None, condition_embeddings=None, **kwargs):  # fmt: skip
        inputs = self.code_inputs(code_shape, level, condition_factors, num_classes)
        logits = Table(num_embeddings, name="table")(inputs[level])
        super().__init__(
            inputs, logits, code_shape, num_embeddings, level, condition_factors, num_classes,
            condition_embeddings, **kwargs,
        )  # fmt: skip

    def _draw_codes(self, sampling, inputs, uniforms):
        logits = ops.reshape(self.get_layer("table").logits, (-1, self.num_embeddings))
        drawn = [sampling.draw(logits, u.ravel(), sampling.numbers()) for u in uniforms]
        codes = ops.reshape(ops.stack(drawn), (-1, *self.code_shape))
        given = inputs[self.level]
        yield slice(None), ops.where(given >= 0, given, codes)


def pixelsnail(code_shape, num_embeddings, **kwargs):
    sizes = {"hidden_units": 8, "residual_units": 8, "num_blocks": 1, "block_layers": 1}
    sizes |= {"attention_heads": 2, "output_blocks": 0, "condition_blocks": 1}
    return PixelSnailPrior(code_shape, num_embeddings, **sizes, **kwargs)


def transformer(code_shape, num_embeddings, **kwargs):
    sizes = {"hidden_units": 16, "num_layers": 1, "num_heads": 2, "feed_forward_units": 24}
    return TransformerPrior(code_shape, num_embeddings, **sizes, condition_blocks=1, **kwargs)


def masked_transformer(code_shape, num_embeddings, **kwargs):
    sizes = {"hidden_units": 16, "num_layers": 1, "num_heads": 2, "feed_forward_units": 24}
    return MaskedTransformerPrior(code_shape, num_embeddings, **sizes, **kwargs)


def gated_pixelcnn(code_shape, num_embeddings, **kwargs):
    sizes = {"hidden_units": 8, "num_layers": 3, "kernel_size": 3, "head_units": 16}
    return GatedPixelCNNPrior(code_shape, num_embeddings, **sizes, condition_blocks=1, **kwargs)


PRIORS = {
    "gated_pixelcnn": gated_pixelcnn,
    "pixelsnail": pixelsnail,
    "transformer": transformer,
    "position": PositionPrior,
    "masked_transformer": masked_transformer,
}
WITHOUT_LIKELIHOOD = {"masked_transformer"}
COUNTS = {"top": 6, "bottom": 10}  # codes: each level has its own number of them


def make(kind, level="bottom", scale=0.3, **kwargs):
    """A prior with weights that tell codes apart."""
    if level == "bottom":
        kwargs |= {"condition_factors": {"top": 2}, "condition_embeddings": {"top": COUNTS["top"]}}
    size = {"top": (2, 2), "bottom": (4, 4)}[level]
    prior = PRIORS[kind](size, COUNTS[level], level=level, num_classes=3, **kwargs)
    rng = np.random.default_rng(1)
    for variable in prior.trainable_variables:
        variable.assign(rng.normal(scale=scale, size=variable.shape))
    return prior


@pytest.fixture(scope="module", params=PRIORS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def prior(kind):
    return make(kind)


@pytest.fixture
def likelihood(kind):
    if kind in WITHOUT_LIKELIHOOD:
        pytest.skip("has no exact likelihood")


@pytest.fixture(scope="module")
def codes():
    rng = np.random.default_rng(0)
    return {
        "top": rng.integers(COUNTS["top"], size=(6, 2, 2)),
        "bottom": rng.integers(COUNTS["bottom"], size=(6, 4, 4)),
        "label": np.arange(6) % 3,
        "else": np.zeros(1),
    }


def request_of(codes, rows=slice(None)):
    return {"labels": codes["label"][rows], "condition": {"top": codes["top"][rows]}, "verbose": 0}


# === The contract ===


def test_the_loss_is_the_mean_of_the_nats(likelihood, prior, codes):
    prior.compile(optimizer="adam")
    nats = prior.nats(codes, batch_size=4)
    assert nats.shape == (6, 4, 4) and nats.dtype == np.float32 and (nats > 0).all()
    logs = prior.evaluate(codes, batch_size=3, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(nats.mean(), rel=1e-5)
    assert logs["bits_per_code"] == pytest.approx(nats.mean() / np.log(2), rel=1e-5)


@pytest.mark.compiled
def test_training_lowers_the_loss(kind, codes):
    prior = make(kind, scale=0.05)
    prior.compile(optimizer=keras.optimizers.Adam(0.03))
    losses = prior.fit(codes, batch_size=6, epochs=12, verbose=0).history["loss"]
    assert losses[-1] < losses[0] - 0.1


def test_a_sample_is_the_same_whatever_the_batch(prior, codes):
    whole = prior.generate(6, **request_of(codes), seed=3)
    assert whole.dtype == np.int32 and whole.shape == (6, 4, 4)
    np.testing.assert_array_equal(
        prior.generate(6, **request_of(codes), seed=3, batch_size=4), whole
    )
    later = prior.generate(2, **request_of(codes, slice(4, 6)), seed=3, first_sample=4)
    np.testing.assert_array_equal(later, whole[4:])
    assert (prior.generate(6, **request_of(codes), seed=4) != whole).any()


def test_given_codes_are_kept(prior, codes):
    given = np.where(np.arange(16).reshape(4, 4) % 3 == 0, codes["bottom"], -1)
    drawn = prior.generate(6, **request_of(codes), codes=given)
    np.testing.assert_array_equal(drawn[given >= 0], given[given >= 0])
    assert (drawn >= 0).all() and (drawn < COUNTS["bottom"]).all()


def test_greedy_codes_are_the_most_probable(likelihood, prior, codes):
    drawn = prior.generate(6, **request_of(codes), top_k=1)
    logits = prior.predict({**codes, "bottom": drawn}, verbose=0)
    np.testing.assert_array_equal(drawn, logits.argmax(axis=-1))


def test_no_logit_sees_its_own_code_or_a_later_one(likelihood, prior, codes, rng):
    before = prior.predict(codes, verbose=0)
    position = 6  # (1, 2)
    changed = codes["bottom"].reshape(6, 16).copy()
    changed[:, position:] = (changed[:, position:] + 1) % COUNTS["bottom"]
    after = prior.predict({**codes, "bottom": changed.reshape(6, 4, 4)}, verbose=0)
    same = np.abs(before - after).reshape(6, 16, -1)[:, : position + 1]
    np.testing.assert_allclose(same, 0, atol=1e-5)


def test_presets_and_configs_bring_it_back(prior, codes, tmp_path):
    prior.save_to_preset(tmp_path / "preset")
    for again in (
        CodePrior.from_preset(tmp_path / "preset"),
        PresetModel.from_preset(tmp_path / "preset"),
    ):
        assert type(again) is type(prior) and again.get_config() == prior.get_config()
        a, b = (p.predict(codes, verbose=0) for p in (again, prior))
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(prior))
    assert type(again) is type(prior) and again.get_config() == prior.get_config()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"bottom": np.full((6, 4, 4), 10)}, r"in \[0, 10\).*'bottom' from 10 to 10"),
        ({"top": np.full((6, 2, 2), 6)}, r"in \[0, 6\).*'top' from 6 to 6"),
        ({"top": np.zeros((6, 4, 4), int)}, r"shape \(batch, 2, 2\)"),
        ({"bottom": np.zeros((6, 4, 4))}, "dtype float64"),
        ({"label": np.full(6, 3)}, r"labels in \[0, 3\)"),
        ({"label": np.zeros(5, int)}, "as many of each"),
    ],
)
def test_other_data_are_refused_before_the_first_step(prior, codes, changes, message):
    prior.compile(optimizer="adam")
    for use in (prior.fit, prior.evaluate, prior.nats):
        with pytest.raises(ValueError, match=message):
            use({**codes, **changes})
    good = {name: value for name, value in codes.items() if name != "else"}
    with pytest.raises(ValueError, match=message):
        prior.fit(good, validation_data={**codes, **changes})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_samples": 0}, "num_samples=0"),
        ({"labels": None}, "Expected labels below 3"),
        ({"condition": None}, r"codes for the levels \['top'\]"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"seed": -1}, "seed=-1"),
        ({"codes": np.full((6, 4, 4), 10)}, r"in \[-1, 10\)"),
        ({"num_samples": 5}, "as many of each"),
    ],
)
def test_other_requests_are_refused(prior, codes, changes, message):
    with pytest.raises(ValueError, match=message):
        prior.generate(**{"num_samples": 6, **request_of(codes), **changes})


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_codes_of_small_integers_are_learned_as_others_are(kind, codes, dtype):
    """-1, which the masked prior puts in, is another code in them."""
    losses = []
    for each in (dtype, "int32"):
        prior = make(kind)
        prior.compile(keras.optimizers.SGD(0.1))
        data = {name: value.astype(each) for name, value in codes.items() if name != "else"}
        keras.utils.set_random_seed(0)
        logs = [prior.train_on_batch(data, return_dict=True) for _ in range(2)]
        losses.append([step["loss"] for step in logs])
        losses[-1].append(prior.evaluate(data, verbose=0, return_dict=True)["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


def test_weights_of_maps_change_the_loss_and_not_the_bits(likelihood, prior, codes):
    prior.compile(optimizer="adam")
    plain = prior.evaluate(codes, verbose=0, return_dict=True)
    data = {name: value for name, value in codes.items() if name != "else"}
    weights = np.arange(6).astype("float32")
    logs = prior.evaluate(data, np.zeros(6), sample_weight=weights, verbose=0, return_dict=True)
    assert logs["bits_per_code"] == pytest.approx(plain["bits_per_code"], rel=1e-5)
    nats = prior.nats(codes).mean(axis=(1, 2))
    assert logs["loss"] == pytest.approx((nats * weights).mean(), rel=1e-4)


def test_rows_and_columns_of_a_coarser_level_may_differ_in_their_factors(kind):
    """A level with two codes a position under one with one: maps of (2, 2) and (4, 2 * 4)."""
    options = {"level": "bottom", "condition_factors": {"top": [2, 4]}, "num_classes": 3}
    if kind == "pixelsnail":
        options["upsampling"] = "learned"
    prior = PRIORS[kind]((4, 8), 10, condition_embeddings={"top": 6}, **options)
    rng = np.random.default_rng(1)
    for variable in prior.trainable_variables:
        variable.assign(rng.normal(scale=0.3, size=variable.shape))
    again = type(prior).from_config(prior.get_config())
    again.set_weights(prior.get_weights())
    assert again.condition_factors == {"top": (2, 4)}
    top, labels = rng.integers(6, size=(3, 2, 2)), np.arange(3)
    drawn = again.generate(3, labels, {"top": top}, temperature=1e-5, verbose=0)
    assert drawn.shape == (3, 4, 8)
    inputs = {"top": top, "bottom": drawn, "label": labels}
    if kind != "masked_transformer":  # it did not draw in the order of the map
        best = ops.convert_to_numpy(ops.argmax(prior(inputs), axis=-1))
        np.testing.assert_array_equal(best, drawn)
    if kind not in ("position", "masked_transformer"):
        other = ops.convert_to_numpy(prior({**inputs, "top": (top + [[0, 1], [0, 0]]) % 6}))
        moved = np.abs(other - ops.convert_to_numpy(prior(inputs))).max(axis=(0, 3))
        assert moved[:2, 4:].min() > 1e-4  # the positions that it covers


@pytest.mark.parametrize("factors", [0, 3, 1.5, (2,), (2, 3), (2, 2, 2), (2, 0)])
def test_factors_that_do_not_divide_are_refused(factors):
    with pytest.raises(
        ValueError, match=r"divides code_shape=\(4, 8\).*Received: condition_factors"
    ):
        PositionPrior((4, 8), level="bottom", condition_factors={"top": factors})


def test_guidance_moves_away_from_what_is_not_told(kind, codes):
    if kind == "position":
        pytest.skip("reads neither labels nor coarser levels")
    prior = make(kind, label_dropout=0.2, condition_dropout=0.2)
    options = {**request_of(codes), "seed": 3}
    plain = prior.generate(6, **options)
    np.testing.assert_array_equal(prior.generate(6, **options, guidance_scale=1.0), plain)
    guided = prior.generate(6, **options, guidance_scale=4.0, guidance_power=2.0)
    assert (guided != plain).any()
    part = {**request_of(codes, slice(4, 6)), "seed": 3, "guidance_scale": 4.0}
    np.testing.assert_array_equal(
        prior.generate(2, **part, guidance_power=2.0, first_sample=4), guided[4:]
    )
    others = {"labels": 0, "condition": {"top": np.zeros((6, 2, 2), int)}}
    np.testing.assert_array_equal(
        prior.generate(6, **{**options, **others}, guidance_scale=0.0),
        prior.generate(6, **options, guidance_scale=0.0),
    )
    prior.compile(optimizer="adam")
    prior.fit({**codes, "label": np.full(6, 3)}, verbose=0)  # examples without a label


def test_a_prior_that_diverged_draws_nothing(kind, codes):
    prior = make(kind)
    for variable in prior.trainable_variables:
        variable.assign(np.full(variable.shape, np.nan))
    with pytest.raises(ValueError, match="Expected finite logits.*'bottom'"):
        prior.generate(6, **request_of(codes))


# === Through generator and likelihood ===


@pytest.fixture(scope="module")
def generator(kind):
    from keras_vqvae2.layers import VectorQuantizerEMA

    vqvae = VQVAE2(
        (16, 16, 3),
        hidden_units=4,
        residual_units=2,
        quantizer={level: VectorQuantizerEMA(count, 4) for level, count in COUNTS.items()},
    )
    priors = [make(kind, "top"), make(kind, "bottom")]
    return HierarchicalImageGenerator(vqvae, priors, ["ant", "bee", "cow"])


def test_generators_draw_complete_save_and_load(generator, tmp_path):
    images = generator.generate(4, labels=["ant", "cow", "bee", "bee"], verbose=0)
    assert images.shape == (4, 16, 16, 3) and (images >= 0).all() and (images <= 1).all()
    mask = np.zeros((16, 16), bool)
    mask[8:] = True
    completed = generator.complete(images, mask, labels=[0, 1, 2, 0], verbose=0)
    np.testing.assert_array_equal(completed[:, :8], images[:, :8])
    generator.save_to_preset(tmp_path / "generator")
    again = HierarchicalImageGenerator.from_preset(tmp_path / "generator")
    assert {type(p) for p in again.priors.values()} == {type(generator.priors["top"])}
    np.testing.assert_allclose(
        again.generate(2, verbose=0), generator.generate(2, verbose=0), atol=1e-5
    )


def test_likelihood_adds_up_the_nats_of_all_levels(likelihood, generator, codes):
    codes = {name: value for name, value in codes.items() if name != "else"}
    measured = evaluate_likelihood(generator, codes, batch_size=4)
    nats = {level: prior.nats(codes) for level, prior in generator.priors.items()}
    for level, value in nats.items():
        assert measured["levels"][level]["nats_per_code"] == pytest.approx(value.mean(), rel=1e-5)
        assert measured["levels"][level]["uniform"] == pytest.approx(np.log(COUNTS[level]))
    total = sum(value.sum() for value in nats.values()) / 6
    assert measured["nats_per_image"] == pytest.approx(total, rel=1e-5)


def test_numbers_of_codes_that_do_not_fit_are_named(generator, kind):
    wrong = PRIORS[kind](
        (4, 4), COUNTS["bottom"], level="bottom", condition_factors={"top": 2}, num_classes=3
    )
    with pytest.raises(ValueError, match="6 codes of 'top' in the prior of 'bottom', got 10"):
        HierarchicalImageGenerator(generator.vqvae, [generator.priors["top"], wrong])


def test_a_prior_without_likelihood_says_so(kind, generator, codes, monkeypatch):
    if kind not in WITHOUT_LIKELIHOOD:
        monkeypatch.setattr(type(generator.priors["top"]), "nats", lambda *args, **kwargs: None)
    assert generator.priors["top"].nats(codes) is None
    codes = {name: value for name, value in codes.items() if name != "else"}
    with pytest.raises(ValueError, match="exact likelihood. Received: .* of 'top'"):
        evaluate_likelihood(generator, codes)
