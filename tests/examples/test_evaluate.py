import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_vqvae2 import VQVAE2, HierarchicalImageGenerator, PixelSnailPrior

SCRIPT = Path(__file__).parents[2] / "examples" / "evaluate.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("evaluate", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in ("preset", "train", "validation", "output", "batch_size"):
        delattr(module.FLAGS, name)
    for name in ("images_per_class", "seed"):
        delattr(module.FLAGS, name)


def test_the_baseline_is_the_cross_entropy_of_smoothed_frequencies(script):
    train = np.array([[[0, 1]], [[0, 1]], [[0, 2]], [[1, 2]]])  # 4 maps of 1x2, 3 codes
    validation = np.array([[[0, 1]], [[2, 0]]])
    # Position 0 has the counts 3, 1, 0 and position 1 the counts 0, 2, 2; plus one each.
    expected = -np.log([4 / 7, 3 / 7, 1 / 7, 1 / 7]).mean()
    assert script.position_nats(train, validation, 3) == pytest.approx(expected)


def test_nearest_images_by_small_pixels_mirrored_or_not(script, rng):
    images = rng.integers(256, size=(5, 8, 8, 3), dtype="uint8")
    queries = np.stack([images[3], images[1][:, ::-1], images[4]]) / 255.0
    queries[2] += 0.1
    places, distances = script.nearest(queries.astype("float32"), images)
    np.testing.assert_array_equal(places, [3, 1, 4])
    np.testing.assert_allclose(distances, [0, 0, 0.1], atol=2e-3)


@pytest.fixture
def folder(tmp_path, rng):
    """A tiny generator's preset, and images of its two classes."""
    vqvae = VQVAE2((32, 32, 3), num_embeddings=8, hidden_units=8, residual_units=4)
    sizes = {"hidden_units": 8, "residual_units": 4, "num_blocks": 1, "block_layers": 1}
    sizes |= {"num_classes": 2, "num_embeddings": 8, "output_blocks": 0, "attention_heads": 2}
    top = PixelSnailPrior((4, 4), level="top", image_shape=(32, 32, 3), **sizes)
    bottom = PixelSnailPrior((8, 8), level="bottom", condition_factors={"top": 2}, **sizes)
    generator = HierarchicalImageGenerator(vqvae, [top, bottom], ["cat", "dog"])
    generator.save_to_preset(tmp_path / "generator")
    for split in ("train", "validation"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(3):
                pixels = rng.integers(256, size=(32, 32, 3), dtype="uint8")
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.png")
    return tmp_path


def run(folder, *flags):
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    command = [sys.executable, SCRIPT, f"--preset={folder}/generator", f"--output={folder}/card"]
    command += [f"--{split}={folder}/{split}" for split in ("train", "validation")]
    return subprocess.run([*command, *flags], env=environment, capture_output=True, text=True)


def test_one_command_makes_all_that_a_card_shows(folder):
    done = run(folder, "--images_per_class=2", "--batch_size=3")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((folder / "card" / "metrics.json").read_text())
    assert metrics["reconstruction"]["images"] == 6
    assert metrics["reconstruction"]["bits_per_pixel"] == (16 + 64) * 3 / 32**2
    assert 0 < metrics["reconstruction"]["psnr"] < 30 and metrics["reconstruction"]["lpips"] > 0
    for level in ("top", "bottom"):
        prior = metrics["priors"][level]
        assert prior["uniform"] == pytest.approx(np.log(8))
        assert all(prior[name] > 0 for name in ("train", "validation", "position_only"))
    assert metrics["priors"]["top"]["bits_per_dim"] > 0
    assert metrics["priors"]["bottom"]["bits_per_dim"] is None
    near = metrics["distance_to_nearest_training_image"]
    assert near["samples"] > 0 and near["validation"] > 0
    assert (folder / "card" / "tables.md").read_text().rstrip() in done.stdout
    for name, height in (("samples", 2), ("nearest", 2), ("reconstructions", 3)):
        assert Image.open(folder / "card" / f"{name}.png").height > 100 * height


def test_errors_are_one_sentence(folder):
    (folder / "train" / "dog").rename(folder / "train" / "dogs")
    done = run(folder)
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert message.startswith("evaluate: Expected the classes ['cat', 'dog']. Received: ['cat',")
