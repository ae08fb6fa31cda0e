"""What holds for every quantizer, alone and in a `VQVAE2`."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae2 import VQVAE2, HierarchicalImageGenerator, TransformerPrior, layers
from keras_vqvae2.evaluation import evaluate_likelihood
from keras_vqvae2.layers import (
    BinarySphericalQuantizer,
    FiniteScalarQuantizer,
    GumbelVectorQuantizer,
    IndexBackpropagationQuantizer,
    LookupFreeQuantizer,
    Quantizer,
    ResidualVectorQuantizer,
    SimVectorQuantizer,
    VectorQuantizer,
    VectorQuantizerEMA,
)

QUANTIZERS = {
    "loss": lambda **kw: VectorQuantizer(8, 4, **kw),
    "ema": lambda **kw: VectorQuantizerEMA(8, 4, **kw),
    "cosine": lambda **kw: VectorQuantizerEMA(8, 4, similarity="cosine", **kw),
    "heads": lambda **kw: VectorQuantizerEMA(8, 4, num_heads=2, **kw),
    "kmeans": lambda **kw: VectorQuantizer(8, 4, kmeans_rounds=2, **kw),
    "fsq": lambda **kw: FiniteScalarQuantizer([5, 4, 3, 2], **kw),
    "fsq_symmetric": lambda **kw: FiniteScalarQuantizer([5, 4, 3, 2], symmetric=True, **kw),
    "lfq": lambda **kw: LookupFreeQuantizer(4, **kw),
    "lfq_spherical": lambda **kw: LookupFreeQuantizer(4, spherical=True, group_size=2, **kw),
    "lfq_factorized": lambda **kw: LookupFreeQuantizer(4, factorized_bits=(2, 2), **kw),
    "bsq": lambda **kw: BinarySphericalQuantizer(4, **kw),
    "sim": lambda **kw: SimVectorQuantizer(8, 4, **kw),
    "gumbel": lambda **kw: GumbelVectorQuantizer(8, 4, seed=1, **kw),
    "gumbel_straight_through": lambda **kw: GumbelVectorQuantizer(
        8, 4, annealing_steps=10, straight_through=True, seed=1, **kw
    ),
    "ibq": lambda **kw: IndexBackpropagationQuantizer(8, 4, **kw),
    "residual": lambda **kw: ResidualVectorQuantizer(VectorQuantizerEMA(8, 4), 2, **kw),
    "residual_shared": lambda **kw: ResidualVectorQuantizer(
        VectorQuantizerEMA(8, 2), 2, shared_codebook=True, groups=2, **kw
    ),
}
EVERY = pytest.mark.parametrize("name", QUANTIZERS)


def numpy(x):
    return ops.convert_to_numpy(x)


def state(layer):
    return [numpy(v).copy() for v in layer.variables]


def vectors(rng, *shape):
    return rng.normal(size=(*shape, 4)).astype("float32")


def test_every_quantizer_is_here():
    public = [getattr(layers, name) for name in layers.__all__]
    public = {c for c in public if issubclass(c, Quantizer) and c is not Quantizer}
    assert public == {type(make()) for make in QUANTIZERS.values()}


@EVERY
def test_lookup_gives_what_call_gave_bit_for_bit(rng, name):
    for policy in ("float32", "mixed_bfloat16", "mixed_float16"):
        layer = QUANTIZERS[name](dtype=policy)
        layer(vectors(rng, 32), training=True)
        quantized, codes = layer(vectors(rng, 2, 9))
        assert tuple(codes.shape) == (2, 9, *layer.code_axes)
        assert keras.backend.standardize_dtype(codes.dtype) == "int32"
        assert numpy(codes).min() >= 0 and numpy(codes).max() < layer.num_embeddings
        np.testing.assert_array_equal(numpy(layer(codes, reverse=True)), numpy(quantized))
        assert all(
            keras.backend.standardize_dtype(v.dtype) in ("float32", "int32", "uint32", "int64")
            for v in layer.variables
        )


@EVERY
def test_any_number_of_axes_gives_the_same(rng, name):
    x = vectors(rng, 24)
    layer = QUANTIZERS[name]()
    quantized, codes, loss = layer(x, return_loss=True)
    for places in ((4, 6), (2, 3, 4), (2, 2, 2, 3)):
        shaped = layer(x.reshape(*places, 4), return_loss=True)
        assert tuple(shaped[0].shape) == (*places, 4)
        assert tuple(shaped[1].shape) == (*places, *layer.code_axes)
        np.testing.assert_array_equal(numpy(shaped[0]).reshape(24, 4), numpy(quantized))
        np.testing.assert_array_equal(numpy(shaped[1]).reshape(24, *layer.code_axes), numpy(codes))
        np.testing.assert_allclose(numpy(shaped[2]), numpy(loss), rtol=1e-6)
    symbolic = layer(keras.Input((None, 4)))
    assert symbolic[1].shape == (None, None, *layer.code_axes)
    back = layer(keras.Input((None, *layer.code_axes), dtype="int32"), reverse=True)
    assert back.shape == (None, None, 4)


@EVERY
def test_what_is_masked_teaches_nothing(rng, name):
    x = vectors(rng, 3, 8)
    mask = np.arange(8) < np.array([[8], [5], [2]])
    padded = np.where(mask[..., None], x, np.float32("nan"))
    layer, alone = QUANTIZERS[name](), QUANTIZERS[name]()
    layer.build(x.shape)
    alone.build(x.shape)
    for variable, other in zip(alone.variables, layer.variables):
        variable.assign(other)
    training = "gumbel" not in name  # whose noise is another's at another place
    _, codes, loss = layer(padded, mask=mask, training=training, return_loss=True)
    _, expected, expected_loss = alone(x[mask], training=training, return_loss=True)
    np.testing.assert_array_equal(numpy(codes)[mask], numpy(expected))
    np.testing.assert_allclose(numpy(loss), numpy(expected_loss), rtol=1e-5, atol=1e-6)
    for new, other in zip(state(layer), state(alone)):
        np.testing.assert_allclose(new, other, rtol=1e-5, atol=1e-6)


TRAINED = {
    **{name: QUANTIZERS[name] for name in ("loss", "sim", "gumbel", "ibq")},
    "diveq": lambda: VectorQuantizer(8, 4, gradient="diveq"),
    "residual": lambda: ResidualVectorQuantizer(IndexBackpropagationQuantizer(8, 4), 2),
}


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_masked_trains_no_weight(rng, weight_gradients, name):
    x = vectors(rng, 2, 8)
    mask = np.arange(8) < np.array([[8], [5]])
    w = np.where(mask[..., None], vectors(rng, 2, 8), np.float32(0))
    layer = TRAINED[name]()
    layer(x, training=True)
    seeds = [(v, numpy(v).copy()) for v in layer.variables if "seed" in v.path]
    found = []
    for padding in (1.0, np.nan):
        padded = ops.convert_to_tensor(np.where(mask[..., None], x, np.float32(padding)))

        def loss(padded=padded):
            quantized, _, loss = layer(padded, mask=mask, training=True, return_loss=True)
            return loss + ops.sum(ops.multiply(quantized, w))

        for seed, value in seeds:
            seed.assign(value)
        found.append(weight_gradients(loss, layer.trainable_variables))
    for ones, nans in zip(*found):
        assert np.abs(ones).max() > 0
        np.testing.assert_allclose(nans, ones, rtol=1e-5, atol=1e-7)

    def of_padding():
        quantized, _, loss = layer(x, mask=mask, training=True, return_loss=True)
        return 0.0 * loss + ops.sum(ops.where(mask[..., None], 0.0, quantized))

    for gradients in weight_gradients(of_padding, layer.trainable_variables):
        np.testing.assert_array_equal(gradients, 0.0)


@pytest.mark.parametrize("name", ["ema", "loss", "cosine", "residual"])
@pytest.mark.parametrize("bad", ["masked", "not finite"])
def test_a_batch_with_nothing_in_it_changes_nothing(rng, name, bad):
    layer = QUANTIZERS[name]()
    layer(vectors(rng, 2, 8), training=True)
    before = state(layer)
    if bad == "masked":
        layer(vectors(rng, 2, 8), training=True, mask=np.zeros((2, 8), bool))
    else:
        layer(np.full((2, 8, 4), np.nan, "float32"), training=True)
    for new, old in zip(state(layer), before):
        np.testing.assert_array_equal(new, old)


@EVERY
def test_an_empty_batch_changes_nothing_but_shapes(name):
    layer = QUANTIZERS[name]()
    quantized, codes, loss = layer(np.zeros((0, 3, 4), "float32"), return_loss=True)
    assert tuple(quantized.shape) == (0, 3, 4)
    assert tuple(codes.shape) == (0, 3, *layer.code_axes)
    assert float(loss) == 0.0


@EVERY
def test_config_round_trip(name):
    layer = QUANTIZERS[name](name="q", dtype="mixed_bfloat16")
    config = layer.get_config()
    again = type(layer).from_config(config)
    assert again.get_config() == config
    read = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert read.get_config() == config


@EVERY
def test_a_wrong_width_is_refused_in_words(name):
    with pytest.raises(ValueError, match=r"embedding_dim=4.*Received: input_shape=\(2, 5\)"):
        QUANTIZERS[name]()(np.zeros((2, 5), "float32"))


@EVERY
def test_gradients_reach_vectors_and_are_finite(rng, gradient, name):
    layer = QUANTIZERS[name]()
    x = 3.0 * vectors(rng, 16)
    layer(x, training=True)
    w = ops.convert_to_tensor(vectors(rng, 16))

    def output_and_loss(x):
        quantized, _, loss = layer(x, return_loss=True)
        return ops.sum(quantized * w) + loss

    found = gradient(output_and_loss, x)
    assert np.isfinite(found).all() and (np.abs(found).max(-1) > 0).mean() > 0.9


# === In a VQVAE2: each at one of the levels ===

PAIRS = [
    ("fsq", "lfq_factorized"),
    ("bsq", "sim"),
    ("residual", "ibq"),
    ("lfq", "residual_shared"),
    ("cosine", "heads"),
    ("gumbel", "gumbel_straight_through"),
]
GRADIENTS = [("loss", "diveq"), ("rotation", "drawn"), ("kmeans", "lfq_spherical")]


def model_of(top, bottom, **kwargs):
    kinds = {
        **QUANTIZERS,
        "diveq": lambda: VectorQuantizer(8, 4, gradient="diveq"),
        "rotation": lambda: VectorQuantizerEMA(8, 4, gradient="rotation"),
        "drawn": lambda: VectorQuantizer(8, 4, sample_temperature=0.1),
    }
    quantizer = {"top": kinds[top](), "bottom": kinds[bottom]()}
    sizes = {"hidden_units": 8, "residual_units": 4, "residual_blocks": 1}
    return VQVAE2((16, 16, 3), **sizes, quantizer=quantizer, **kwargs)


@pytest.mark.parametrize("top, bottom", PAIRS)
def test_in_a_vqvae2(rng, tmp_path, top, bottom):
    images = rng.uniform(size=(4, 16, 16, 3)).astype("float32")
    model = model_of(top, bottom, quantizer_dropout=0.1)
    model.compile("adam")
    logs = model.fit(images, batch_size=4, verbose=0).history
    for level in model.levels:
        assert 1.0 <= logs[f"perplexity_{level}"][0] <= model.num_embeddings[level]
        assert 0.0 < logs[f"usage_{level}"][0] <= 1.0
    assert np.isfinite(logs["loss"][0]) and logs["skipped_steps"][0] == 0

    before = state(model)
    spoilt = images.copy()
    spoilt[1, 2, 3] = np.nan
    assert model.fit(spoilt, batch_size=4, verbose=0).history["skipped_steps"][0] == 1
    random = [v.path for v in model.variables if "seed" in v.path]
    for variable, old in zip(model.variables, before):
        if variable.path not in random:
            np.testing.assert_array_equal(numpy(variable), old, err_msg=variable.path)

    codes = model.encode(images)
    shapes = model.code_shapes()
    for level, axes in model.code_axes.items():
        assert codes[level].shape == (4, *shapes[level], *axes)
    decoded = model.decode(codes)
    np.testing.assert_allclose(decoded, np.clip(numpy(model(images)), 0, 1), atol=1e-5)
    flat = {level: value.reshape(4, shapes[level][0], -1) for level, value in codes.items()}
    np.testing.assert_array_equal(model.decode(flat), decoded)
    assert np.isfinite(model.decode({"top": codes["top"]})).all()

    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for level, value in again.encode(images).items():
        np.testing.assert_array_equal(value, codes[level])
    np.testing.assert_allclose(again.decode(codes), decoded, atol=1e-6)


def test_codes_with_a_depth_in_priors_and_generators(rng):
    images = rng.uniform(size=(4, 16, 16, 3)).astype("float32")
    quantizer = {"top": QUANTIZERS["residual"](), "bottom": QUANTIZERS["lfq_factorized"]()}
    model = VQVAE2((16, 16, 3), hidden_units=8, residual_units=4, quantizer=quantizer)
    codes = model.encode(images)
    sizes = {"hidden_units": 8, "num_layers": 1, "num_heads": 2, "feed_forward_units": 8}
    assert model.token_shapes() == {"top": (2, 4), "bottom": (4, 8)}
    top = TransformerPrior((2, 4), 8, level="top", **sizes)
    bottom = TransformerPrior(
        (4, 8), 4, level="bottom", condition_factors={"top": 2},
        condition_embeddings={"top": 8}, condition_blocks=1, **sizes,
    )  # fmt: skip
    for prior in (top, bottom):
        prior.compile("adam")
        logs = prior.fit(codes, batch_size=4, verbose=0).history
        assert np.isfinite(logs["loss"][0])
        nats = prior.nats(codes)
        assert nats.shape == (4, *prior.code_shape)
        measured = prior.evaluate(codes, batch_size=4, verbose=0, return_dict=True)
        np.testing.assert_allclose(nats.mean(), measured["loss"], rtol=1e-5)
    generator = HierarchicalImageGenerator(model, {"top": top, "bottom": bottom})
    invented = generator.generate(2, verbose=0)
    assert invented.shape == (2, 16, 16, 3) and np.isfinite(invented).all()
    mask = np.zeros((16, 16), bool)
    mask[8:, 8:] = True
    completed = generator.complete(images[:2], mask, verbose=0)
    np.testing.assert_allclose(completed[:, :8], images[:2, :8], atol=1e-6)
    assert np.isfinite(evaluate_likelihood(generator, codes)["nats_per_image"])


def test_codes_of_another_depth_are_refused():
    model = model_of("residual", "ibq")
    with pytest.raises(ValueError, match="Expected 2 codes a position.*Received: codes"):
        model.decode({"top": np.zeros((1, 2, 2, 3), "int32")})
    with pytest.raises(ValueError, match=r"integer codes of shape \(batch, rows, columns\)"):
        model.decode({"bottom": np.zeros((1, 4, 4, 2), "int32")})


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("top, bottom", PAIRS + GRADIENTS)
def test_200_steps_in_half_precision_are_finite(rng, policy, top, bottom):
    images = rng.uniform(size=(8, 16, 16, 3)).astype("float32")
    model = model_of(top, bottom, dtype=policy)
    model.compile(keras.optimizers.Adam(1e-3))
    logs = model.fit(images, batch_size=4, epochs=100, verbose=0).history
    assert np.isfinite(logs["loss"]).all()
    # float16 looks for its loss scale in the first steps.
    assert sum(logs["skipped_steps"][20:]) == 0
    assert logs["reconstruction_error"][-1] < logs["reconstruction_error"][0]
