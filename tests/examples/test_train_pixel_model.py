import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from keras_vqvae2 import PixelCNNPlusPlus, PixelModel

RECIPE = """
import keras
import keras_vqvae2

def recipe(laptop=False):
    return {
        "pixel_model": keras_vqvae2.PixelCNNPlusPlus,
        "model": {
            "image_shape": (8, 8, 3),
            "hidden_units": 4,
            "num_blocks": 1,
            "num_mixtures": 1,
            "dropout": 0.0,
        },
        "labels": True,
        "data": {"flip": True},
        "batch_size": 4,
        "steps": 4,
        "steps_per_epoch": 2,
        "optimizer": keras.optimizers.Adam(1e-3, use_ema=True, ema_momentum=0.9),
    }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pixels")
    (folder / "classes.py").write_text(RECIPE)
    rng = np.random.default_rng(0)
    for label in ("ant", "bee"):
        (folder / "images" / label).mkdir(parents=True)
        for i in range(4):
            image = Image.fromarray(rng.integers(256, size=(8, 8, 3), dtype="uint8"))
            image.save(folder / "images" / label / f"{i}.png")
    return folder


@pytest.fixture
def run(call, folder):
    def run(recipe, output, *flags):
        images = f"{folder}/images"
        done = call(
            "train_pixel_model",
            *(f"--recipe={folder}/{recipe}.py", f"--data={images}", f"--output={output}", *flags),
        )
        assert done.code == 0, done.err[-3000:]
        return done.out

    return run


def test_a_run_leaves_all_it_promises_and_goes_on(folder, run):
    output = folder / "whole"
    validation = f"--validation={folder}/images"
    printed = run("classes", output, validation, "--samples_every=3")
    assert re.search(r"model: +PixelCNNPlusPlus \(8, 8, 3\)", printed)
    with open(output / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and all(np.isfinite(float(row["val_bits_per_dim"])) for row in rows)
    there = {path.name for path in output.iterdir()}
    assert {"log.png", "best.json", "plan.json", "preset", "metrics.json"} <= there
    metrics = json.loads((output / "metrics.json").read_text())
    model = PixelModel.from_preset(output / "preset")
    assert type(model) is PixelCNNPlusPlus and model.num_classes == 2 and not model.is_fresh
    assert 5 < metrics["validation"]["bits_per_dim"] < 30
    again = run("classes", output, validation, "--samples_every=3", "--resume", "--steps=6")
    assert "goes on from checkpoint-2" in again
    assert (output / "pictures" / "epoch-3.png").exists()
    with open(output / "log.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 3


def test_grey_images_are_whole_levels(load):
    script = load("train_pixel_model")
    recipe = {"model": {"image_shape": (8, 8, 1)}, "labels": False}
    images = np.random.default_rng(0).integers(256, size=(2, 8, 8, 3)) / np.float32(255)
    (grey,) = script.as_the_model_takes_them(Mapped([(images, np.zeros(2))]), recipe)
    assert grey.shape == (2, 8, 8, 1)
    np.testing.assert_allclose(grey[..., 0], images.mean(-1), atol=0.51 / 255)
    np.testing.assert_allclose(grey * 255, np.round(grey * 255), atol=1e-4)


class Mapped(list):
    """A data set of batches with `map`."""

    def map(self, function):
        return Mapped(function(batch) for batch in self)


def test_another_recipe_is_refused(folder, call):
    (folder / "other.py").write_text(
        "def recipe(laptop=False):\n    return dict(steps=1, steps_per_epoch=1, batch_size=1, "
        "optimizer=None, model={}, data={}, labels=False)\n"
    )
    done = call(
        "train_pixel_model",
        *(f"--recipe={folder}/other.py", f"--data={folder}/images", f"--output={folder}/no"),
    )
    assert done.code == 1 and "a class of models of pixels" in done.err
