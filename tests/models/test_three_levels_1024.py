"""The paper's shape for FFHQ, end to end: 1024x1024 in maps of 32x32, 64x64 and 128x128 codes."""

import keras
import numpy as np
import pytest

from keras_vqvae2 import VQVAE2, HierarchicalImageGenerator, PixelSnailPrior

SHAPES = {"top": (32, 32), "middle": (64, 64), "bottom": (128, 128)}
CODES = 32
PRIOR = {
    "num_embeddings": CODES,
    "hidden_units": 8,
    "residual_units": 8,
    "num_blocks": 1,
    "block_layers": 1,
    "kernel_size": 3,
    "condition_blocks": 1,
    "condition_kernel_size": 3,
    "output_blocks": 0,
}


def prior(level, heads, **condition_factors):
    # Attention as in the paper: at the top and, once, in the middle, where it is 4,096 x 4,096.
    return PixelSnailPrior(
        SHAPES[level],
        level=level,
        condition_factors=condition_factors,
        attention_heads=heads,
        attention_units=4,
        **PRIOR,
    )


@pytest.mark.slow
def test_images_to_codes_to_priors_to_images(rng):
    vqvae = VQVAE2(
        (1024, 1024, 3),
        num_levels=3,
        num_embeddings=CODES,
        embedding_dim=8,
        hidden_units=8,
        residual_units=4,
        residual_blocks=1,
    )
    # A picture in large patches: one with something to learn in each map.
    patches = rng.uniform(size=(1, 16, 16, 3)).astype("float32")
    image = np.kron(patches, np.ones((1, 64, 64, 1), "float32"))
    vqvae.compile(keras.optimizers.Adam(1e-3))
    weights = [np.array(value) for value in vqvae.get_weights()]
    history = vqvae.fit(image, batch_size=1, verbose=0).history
    assert np.isfinite(history["loss"]).all() and history["skipped_steps"] == [0]
    for before, after in zip(weights, vqvae.get_weights(), strict=True):
        assert before.size == 1 or (before != after).any()

    codes = vqvae.encode(image)
    assert {level: value.shape[1:] for level, value in codes.items()} == SHAPES
    priors = [prior("top", 2), prior("middle", 1, top=2), prior("bottom", 0, top=4, middle=2)]
    for model in priors:
        model.compile(keras.optimizers.Adam(1e-3))
        history = model.fit(codes, batch_size=1, verbose=0).history
        assert history["loss"][0] == pytest.approx(np.log(CODES), rel=0.5)
        assert history["skipped_steps"] == [0]

    generator = HierarchicalImageGenerator(vqvae, priors)
    invented = generator.generate(1, seed=1, verbose=0)
    assert invented.shape == (1, 1024, 1024, 3) and np.isfinite(invented).all()
    mask = np.zeros((1024, 1024), bool)
    mask[600:, 512:] = True
    completed = generator.complete(image, mask, seed=1, verbose=0)
    np.testing.assert_array_equal(completed[:, ~mask], image[:, ~mask])
    assert (completed != image)[:, mask].any()
