import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae2 import VQVAE2, GatedPixelCNNPrior, HierarchicalImageGenerator
from keras_vqvae2.data import sample_photographs
from keras_vqvae2.decoding.sampling import Sampling
from keras_vqvae2.layers import VectorQuantizer

SIZES = {"hidden_units": 8, "num_layers": 4, "kernel_size": 3, "head_units": 16}


def with_weights(prior, scale=0.3):
    rng = np.random.default_rng(1)
    for variable in prior.trainable_variables:
        variable.assign(rng.normal(scale=scale, size=variable.shape))
    return prior


@pytest.mark.parametrize(
    "sizes", [{}, {"kernel_size": (3, 5), "first_kernel_size": 3}, {"first_kernel_size": (3, 9)}]
)
def test_one_position_after_the_other_equals_the_full_pass(rng, sizes):
    prior = GatedPixelCNNPrior(
        (5, 6), 10, "bottom", {"top": 1}, num_classes=3, **{**SIZES, **sizes}
    )
    with_weights(prior)
    codes = {"bottom": rng.integers(10, size=(2, 5, 6)), "top": rng.integers(10, size=(2, 5, 6))}
    codes = {**codes, "label": np.array([0, 2])}
    codes = {name: array.astype("int32") for name, array in codes.items()}
    rows = prior._draw(Sampling(), codes, np.zeros((2, 5, 6), "float32"))
    stepwise = np.stack([ops.convert_to_numpy(logits) for _, logits in rows], axis=1)
    np.testing.assert_allclose(stepwise, prior.predict(codes, verbose=0), atol=1e-5)


def test_every_earlier_code_within_reach_is_seen_and_no_other():
    """No blind spot: the wedge to the upper right is as wide as that to the upper left."""
    prior = with_weights(GatedPixelCNNPrior((6, 9), 10, **SIZES, first_kernel_size=5))
    base = np.zeros((1, 6, 9), "int32")
    changed = np.repeat(base, 54, axis=0).reshape(54, 54)
    np.fill_diagonal(changed, 1)
    logits = prior.predict({"top": np.concatenate([base, changed.reshape(54, 6, 9)])}, verbose=0)
    at = 5, 4
    seen = (np.abs(logits[1:, *at] - logits[0, *at]).max(-1) > 1e-6).reshape(6, 9)
    rows, columns = np.indices((6, 9))
    reach = 2 + 3  # of the first layer and three more
    expected = (rows < at[0]) & (np.abs(columns - at[1]) <= reach) & (at[0] - rows <= reach)
    expected |= (rows == at[0]) & (columns < at[1])
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_draws_and_trains(policy, rng):
    prior = GatedPixelCNNPrior((4, 4), 10, num_classes=2, **SIZES, dtype=policy)
    codes = {"top": rng.integers(10, size=(4, 4, 4)), "label": np.arange(4) % 2}
    prior.compile(optimizer="adam")
    assert np.isfinite(prior.fit(codes, verbose=0).history["loss"]).all()
    assert prior.generate(2, labels=1, verbose=0).shape == (2, 4, 4)


def test_sizes_of_the_paper():
    prior = GatedPixelCNNPrior((32, 32), hidden_units=6, num_layers=2, head_units=5)
    layer = prior.get_layer("layer_1")
    first = prior.get_layer("layer_0")
    assert first.vertical.kernel.shape == (3, 7, 6, 12)  # of 7x7 the rows above
    assert layer.vertical.kernel.shape == (3, 5, 6, 12)
    assert layer.horizontal.kernel.shape == (1, 3, 6, 12)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"hidden_units": 0}, "hidden_units=0"),
        ({"num_layers": 0}, "num_layers=0"),
        ({"head_units": -1}, "head_units=-1"),
        ({"kernel_size": 4}, "kernel_size=4"),
        ({"first_kernel_size": (1, 7)}, "at least 3 rows.*kernel_size=.1, 7."),
    ],
)
def test_other_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GatedPixelCNNPrior((4, 4), **{**SIZES, **arguments})


def test_the_first_vqvae_trains_with_its_prior():
    """One level of codes learned from photographs, and a Gated PixelCNN over them."""
    images = sample_photographs((32, 32)) / np.float32(255)
    vqvae = VQVAE2(
        (32, 32, 3),
        num_levels=1,
        hidden_units=16,
        residual_units=8,
        quantizer=VectorQuantizer(32, 8),
    )
    vqvae.compile(optimizer=keras.optimizers.Adam(3e-3))
    errors = vqvae.fit(images, epochs=8, verbose=0).history["reconstruction_error"]
    assert errors[-1] < errors[0]
    (level,) = vqvae.levels
    codes = vqvae.encode(images)
    prior = GatedPixelCNNPrior(
        vqvae.code_shapes()[level], 32, level, **SIZES, codes_fingerprint=vqvae.fingerprint()
    )
    prior.compile(optimizer=keras.optimizers.Adam(0.01))
    losses = prior.fit(codes, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0] - 0.1
    drawn = HierarchicalImageGenerator(vqvae, [prior]).generate(2, verbose=0)
    assert drawn.shape == (2, 32, 32, 3) and np.isfinite(drawn).all()
