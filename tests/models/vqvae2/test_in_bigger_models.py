"""The encoder as a layer of other models, and in pipelines: a tokenizer."""

import keras
import numpy as np
import pytest

from keras_vqvae2 import VQVAE2, PixelSnailPrior

BACKEND = keras.backend.backend()


@pytest.fixture
def vqvae(rng):
    sizes = {"hidden_units": 8, "residual_units": 4, "residual_blocks": 0, "embedding_dim": 4}
    vqvae = VQVAE2((8, 8, 3), num_embeddings=16, downsample_factors=(2, 2), **sizes)
    for quantizer in vqvae.quantizers.values():
        quantizer.ema_sums.assign(rng.normal(scale=0.3, size=quantizer.codebook.shape))
    vqvae.trainable = False
    return vqvae


@pytest.fixture
def images(rng):
    return rng.integers(256, size=(4, 8, 8, 3)).astype("uint8")


def test_a_tokenizer_in_a_functional_model(vqvae, images, tmp_path):
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    codes = vqvae.encoder(inputs)
    assert {level: tuple(x.shape) for level, x in codes.items()} == {
        "top": (None, 2, 2),
        "bottom": (None, 4, 4),
    }
    x = keras.layers.Embedding(16, 8)(codes["bottom"])
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, {"logits": outputs, **codes})
    for level, values in vqvae.encode(images).items():
        np.testing.assert_array_equal(model.predict(images, verbose=0)[level], values)
    model = keras.Model(inputs, outputs)
    assert len(model.trainable_variables) == 3
    before = [*vqvae.get_weights(), *model.get_weights()]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss)
    model.fit(images, np.array([0, 1, 0, 1]), verbose=0)
    after = [*vqvae.get_weights(), *model.get_weights()]
    changed = [not np.array_equal(a, b) for a, b in zip(before, after)]
    assert sum(changed) == 3 and not any(changed[: len(vqvae.weights)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        loaded.predict(images, verbose=0), model.predict(images, verbose=0), atol=1e-6
    )


@pytest.mark.compiled
@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.data runs TensorFlow's functions")
def test_a_tokenizer_in_a_pipeline(vqvae, images):
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices(images).batch(2).map(vqvae.encoder).prefetch(1)
    found = [{level: x.numpy() for level, x in batch.items()} for batch in dataset]
    for level, values in vqvae.encode(images).items():
        np.testing.assert_array_equal(np.concatenate([batch[level] for batch in found]), values)
    sizes = {"hidden_units": 8, "residual_units": 8, "num_blocks": 1, "block_layers": 1}
    sizes |= {"attention_heads": 2, "output_blocks": 0}
    prior = PixelSnailPrior((2, 2), 16, **sizes)
    prior.compile(optimizer="adam")
    assert np.isfinite(prior.fit(dataset, verbose=0).history["loss"][0])
