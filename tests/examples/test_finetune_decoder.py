"""The decoder learns, codes and priors stay."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from keras_vqvae2 import VQVAE2, HierarchicalImageGenerator, PixelSnailPrior

RECIPE = """
import keras
import keras_vqvae2
from keras_vqvae2.losses import AbsoluteError

def recipe(laptop=False):
    return {
        "reconstruction_losses": {"absolute_error": (AbsoluteError(), 1.0)},
        "discriminator": (keras_vqvae2.PatchDiscriminator, {"filters": 4, "num_layers": 1}),
        "adversarial": {"start": 1, "ramp": 1},
        "data": {}, "batch_size": 4, "steps": 4, "steps_per_epoch": 2,
        "optimizer": keras.optimizers.Adam(1e-2),
        "discriminator_optimizer": keras.optimizers.Adam(1e-2),
    }
"""


@pytest.fixture
def folder(tmp_path):
    """A generator, images and a recipe."""
    keras.utils.set_random_seed(0)
    vqvae = VQVAE2((16, 16, 3), num_embeddings=8, embedding_dim=4, hidden_units=8, residual_units=4)
    sizes = {"hidden_units": 8, "residual_units": 8, "num_blocks": 1, "block_layers": 1}
    sizes |= {"attention_heads": 2, "output_blocks": 0, "condition_blocks": 1}
    priors = [
        PixelSnailPrior((rows, rows), 8, level, condition_factors=factors, num_classes=2,
                        codes_fingerprint=vqvae.fingerprint(), **sizes)
        for level, rows, factors in (("top", 2, None), ("bottom", 4, {"top": 2}))
    ]  # fmt: skip
    generator = HierarchicalImageGenerator(vqvae, priors, ["cat", "dog"])
    generator.save_to_preset(tmp_path / "generator")
    (tmp_path / "recipe.py").write_text(RECIPE)
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        pixels = rng.integers(256, size=(16, 16, 3), dtype="uint8")
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    return tmp_path


def flags_of(folder, output):
    images = f"{folder}/images"
    return [f"--recipe={folder}/recipe.py", f"--data={images}", f"--validation={images}",
            f"--output={folder}/{output}"]  # fmt: skip


def test_a_generator_gets_a_sharper_decoder_and_keeps_its_codes(folder, call):
    generator = f"--generator={folder}/generator"
    done = call("finetune_decoder", *flags_of(folder, "run"), generator, "--steps=2")
    assert done.code == 0, done.err[-2000:]
    done = call("finetune_decoder", *flags_of(folder, "run"), generator, "--resume")
    assert done.code == 0, done.err[-2000:]
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert metrics["steps"] == 4 and np.isfinite(metrics["validation"]["psnr"])
    log = (folder / "run" / "log.csv").read_text().splitlines()
    assert len(log) == 3 and "discriminator_loss" in log[0]
    before = HierarchicalImageGenerator.from_preset(folder / "generator")
    after = HierarchicalImageGenerator.from_preset(folder / "run" / "generator")
    images = np.random.default_rng(1).uniform(size=(2, 16, 16, 3)).astype("float32")
    codes = before.vqvae.encode(images)
    for level, value in after.vqvae.encode(images).items():
        np.testing.assert_array_equal(value, codes[level])
    assert (before.vqvae.decode(codes) != after.vqvae.decode(codes)).any()
    assert after.generate(1, verbose=0).shape == (1, 16, 16, 3)


def test_one_model_must_be_named(folder, call):
    done = call("finetune_decoder", *flags_of(folder, "other"))
    assert done.code == 1 and "Expected --preset or --generator" in done.err
