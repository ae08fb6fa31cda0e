import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae2.layers import VectorQuantizer, VectorQuantizerEMA

BOTH = pytest.mark.parametrize("cls", [VectorQuantizer, VectorQuantizerEMA])


def numpy(x):
    return ops.convert_to_numpy(x)


def state(layer):
    return [numpy(v).copy() for v in layer.variables]


def with_codes(cls, codes, **kwargs):
    layer = cls(codes.shape[0], codes.shape[1], **kwargs)
    layer.set_codebook(codes)
    return layer


@BOTH
def test_harness(cls, rng):
    # The harness knows layers with one output.
    class First(cls):
        def call(self, inputs, training=None):
            return super().call(inputs, training=training)[0]

        def compute_output_spec(self, inputs, training=None):
            return super().compute_output_spec(inputs)[0]

    layer = First(8, 4)
    x = rng.normal(size=(2, 3, 3, 4)).astype("float32")
    assert layer(x).shape == (2, 3, 3, 4)
    symbolic = layer(keras.Input((None, None, 4)))
    assert symbolic.shape == (None, None, None, 4)


@BOTH
def test_weight_counts(cls):
    layer = cls(8, 4)
    layer.build((None, 4))
    trainable = 1 if cls is VectorQuantizer else 0
    assert len(layer.trainable_variables) == trainable
    assert len(layer.non_trainable_variables) == 4
    assert layer.codebook.shape == (8, 4)


@BOTH
def test_config_round_trip(cls):
    layer = cls(
        8,
        4,
        commitment_cost=0.5,
        decay=0.9,
        data_initialization=False,
        restart_threshold=0.2,
        gradient="rotation",
        name="q",
        dtype="mixed_bfloat16",
    )
    again = cls.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    for name in ("commitment_cost", "decay", "restart_threshold", "gradient"):
        assert getattr(again, name) == getattr(layer, name) == layer.get_config()[name]


@BOTH
def test_nearest_codes_and_loss_against_numpy(cls, rng):
    codes = rng.normal(size=(8, 4)).astype("float32")
    x = rng.normal(size=(2, 5, 4)).astype("float32")
    layer = with_codes(cls, codes, commitment_cost=0.5)
    quantized, indices = layer(x)
    expected = ((x[..., None, :] - codes) ** 2).sum(-1).argmin(-1)  # (2, 5)
    np.testing.assert_array_equal(numpy(indices), expected)
    assert keras.backend.standardize_dtype(indices.dtype) == "int32"
    np.testing.assert_allclose(numpy(quantized), codes[expected], rtol=1e-6)
    error = ((x - codes[expected]) ** 2).mean()
    weight = 0.5 if cls is VectorQuantizerEMA else 1.5
    (loss,) = layer.losses
    assert loss.shape == ()
    np.testing.assert_allclose(float(loss), weight * error, rtol=1e-5)


@BOTH
def test_reverse_looks_codes_up_and_minus_one_is_the_mean(cls, rng):
    codes = rng.normal(size=(8, 4)).astype("float32")
    layer = with_codes(cls, codes)
    looked_up = numpy(layer(np.array([[3, -1]]), reverse=True))
    np.testing.assert_allclose(looked_up[0, 0], codes[3], rtol=1e-6)
    np.testing.assert_allclose(looked_up[0, 1], codes.mean(0), atol=1e-6)


@BOTH
def test_mean_code_is_weighted_by_use(cls):
    layer = with_codes(cls, np.array([[0.0], [1.0]], "float32"), decay=0.0, restart_threshold=0)
    layer(np.array([[0.0], [1.0], [1.0], [1.0]], "float32"), training=True)
    np.testing.assert_allclose(numpy(layer.mean_code), [0.75], rtol=1e-6)


@BOTH
@pytest.mark.parametrize("how", ["inference", "frozen"])
def test_state_moves_only_in_training(cls, rng, how):
    layer = cls(8, 4)
    x = rng.normal(size=(32, 4)).astype("float32")
    layer.build(x.shape)
    layer.trainable = how != "frozen"
    before = state(layer)
    layer(x, training=how == "frozen")
    for old, new in zip(before, state(layer)):
        np.testing.assert_array_equal(old, new)
    layer.trainable = True
    layer(x, training=True)
    assert any((old != new).any() for old, new in zip(before, state(layer)))


@BOTH
def test_first_batch_places_every_code_on_a_vector(cls, rng):
    layer = cls(16, 4, decay=0.999999, restart_threshold=0)
    x = rng.normal(size=(64, 4)).astype("float32")
    layer(x, training=True)
    distances = ((numpy(layer.codebook)[:, None] - x[None]) ** 2).sum(-1)  # (16, 64)
    assert distances.min(-1).max() < 1e-8
    assert len(set(distances.argmin(-1))) == 16
    # The second batch does not place them again.
    layer(x + 100, training=True)
    assert abs(numpy(layer.codebook)).max() < 50


@BOTH
@pytest.mark.parametrize("masked", [False, True])
def test_codes_wait_for_the_first_batch_that_there_is_something_in(cls, rng, masked):
    layer = cls(16, 4, restart_threshold=0)
    nothing = np.ones((64, 4), "float32") if masked else np.full((64, 4), np.nan, "float32")
    for _ in range(2):
        layer(nothing, mask=np.zeros(64, bool) if masked else None, training=True)
    x = 5.0 + rng.normal(size=(64, 4)).astype("float32")
    layer(x, training=True)
    assert len(np.unique(numpy(layer(x)[1]))) == 16


@BOTH
def test_fewer_vectors_than_codes(cls, rng):
    layer = cls(16, 4)
    x = rng.normal(size=(3, 4)).astype("float32")
    for _ in range(3):
        quantized, _ = layer(x, training=True)
    np.testing.assert_allclose(numpy(quantized), x, atol=1e-4)


@BOTH
def test_dead_codes_restart_on_vectors_of_the_batch(cls, rng):
    codes = np.concatenate([np.zeros((1, 2)), np.full((3, 2), 1000.0)]).astype("float32")
    layer = with_codes(cls, codes, decay=0.5, restart_threshold=0.1)
    x = rng.normal(size=(40, 2)).astype("float32")
    for _ in range(6):
        layer(x, training=True)
    assert abs(numpy(layer.codebook)).max() < 10
    _, indices = layer(x)
    assert len(set(numpy(indices))) == 4


@BOTH
def test_without_restart_an_unused_code_keeps_its_place(cls, rng):
    codes = np.array([[0.0, 0.0], [50.0, -20.0]], "float32")
    layer = with_codes(cls, codes, decay=0.1, restart_threshold=0)
    x = rng.normal(size=(10, 2)).astype("float32")
    for _ in range(60):  # 0.1 ** 60 is zero in float32
        layer(x, training=True)
    np.testing.assert_allclose(numpy(layer.codebook)[1], codes[1], rtol=1e-4)


def test_restart_keeps_codes_in_use_when_the_vectors_wander_off(rng):
    used = {}
    for threshold in (0.0, 0.1):
        layer = VectorQuantizerEMA(64, 8, decay=0.9, restart_threshold=threshold)
        for step in range(60):
            x = (rng.normal(size=(256, 8)) + 0.05 * step).astype("float32")
            _, indices = layer(x, training=True)
        used[threshold] = len(np.unique(numpy(indices)))
    assert used[0.0] < 20
    assert used[0.1] > 32


@BOTH
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_codebook_is_float32_under_mixed_precision(cls, policy, rng):
    x = rng.normal(size=(64, 4)).astype("float32")
    codes = rng.normal(size=(8, 4)).astype("float32")
    layer = with_codes(cls, codes, dtype=policy)
    quantized, _ = layer(x, training=True)
    assert keras.backend.standardize_dtype(quantized.dtype) == policy.removeprefix("mixed_")
    for variable in layer.variables:
        assert keras.backend.standardize_dtype(variable.dtype) in ("float32", "int32")
    # The codebook after the step is that of float32 on the inputs that the policy rounded.
    plain = with_codes(cls, codes)
    plain(numpy(ops.cast(ops.cast(x, policy.removeprefix("mixed_")), "float32")), training=True)
    np.testing.assert_allclose(numpy(layer.codebook), numpy(plain.codebook), rtol=1e-6)
    assert keras.backend.standardize_dtype(layer.losses[0].dtype) == "float32"


def test_codebook_loss_trains_the_codes_with_fit(rng):
    x = rng.normal(size=(64, 4)).astype("float32")
    inputs = keras.Input((4,))
    layer = VectorQuantizer(8, 4, data_initialization=False, restart_threshold=0)
    model = keras.Model(inputs, layer(inputs)[0])
    before = numpy(layer.codebook).copy()
    model.compile(optimizer=keras.optimizers.Adam(0.05), loss="mse")
    history = model.fit(x, x, epochs=10, verbose=0).history["loss"]
    assert history[-1] < history[0]
    assert np.abs(numpy(layer.codebook) - before).max() > 0.1


@BOTH
def test_16384_codes(cls, rng):
    codes = rng.normal(size=(16384, 4)).astype("float32")
    layer = with_codes(cls, codes)
    picked = rng.integers(16384, size=500)
    _, indices = layer(codes[picked], training=True)
    np.testing.assert_array_equal(numpy(indices), picked)


@BOTH
def test_empty_batch_changes_nothing_but_shapes(cls):
    layer = cls(8, 4)
    quantized, indices = layer(np.zeros((0, 3, 4), "float32"))
    assert tuple(quantized.shape) == (0, 3, 4)
    assert tuple(indices.shape) == (0, 3)


@BOTH
@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"num_embeddings": 0}, "num_embeddings=0"),
        ({"embedding_dim": -1}, "embedding_dim=-1"),
        ({"commitment_cost": -0.5}, "commitment_cost=-0.5"),
        ({"decay": 1.0}, "decay=1.0"),
        ({"restart_threshold": 2}, "restart_threshold=2"),
        ({"gradient": "magic"}, "gradient='magic'"),
    ],
)
def test_bad_arguments(cls, kwargs, message):
    with pytest.raises(ValueError, match=f"Received: {message}"):
        cls(**{"num_embeddings": 8, "embedding_dim": 4, **kwargs})


@BOTH
def test_wrong_width_and_wrong_codebook(cls):
    with pytest.raises(ValueError, match=r"embedding_dim=4.*Received: input_shape=\(2, 5\)"):
        cls(8, 4)(np.zeros((2, 5), "float32"))
    with pytest.raises(ValueError, match=r"shape \(8, 4\).*Received: shape=\(4, 8\)"):
        cls(8, 4).set_codebook(np.zeros((4, 8)))
