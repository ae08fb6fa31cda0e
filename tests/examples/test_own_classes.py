"""A prior, a quantizer and a loss from outside of the package, through all scripts."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_vqvae2 import VQVAE2, HierarchicalImageGenerator

OWN = Path(__file__).parent / "own_classes.py"
REGISTER = f"--register={OWN}"
COMMON = """
        "batch_size": 4, "steps": 6, "steps_per_epoch": 6,
        "optimizer": keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9),
"""
STAGE_1 = f"""
import keras
from own_classes import RootError, SignQuantizer

def recipe(laptop=False):
    return {{
        "model": {{
            "image_shape": (16, 16, 3), "hidden_units": 8, "residual_units": 4,
            "quantizer": {{"top": SignQuantizer(3), "bottom": SignQuantizer(4)}},
            "reconstruction_losses": {{"root": (RootError(), 1.0)}},
        }},
        "data": {{}}, {COMMON}
    }}
"""
STAGE_2 = f"""
import keras
from own_classes import PositionPrior

def recipe(level, laptop=False):
    return {{"prior": PositionPrior, "model": {{}}, {COMMON} }}
"""


@pytest.fixture
def run(call):
    def run(script, *flags):
        done = call(script, REGISTER, *flags)
        assert done.code == 0, done.err[-3000:]
        return done.out

    return run


@pytest.fixture
def folder(tmp_path, rng):
    for name in ("cats", "dogs"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(3):
            image = Image.fromarray(rng.integers(256, size=(16, 16, 3), dtype="uint8"))
            image.save(tmp_path / "images" / name / f"{i}.png")
    (tmp_path / "stage_1.py").write_text(STAGE_1)
    (tmp_path / "stage_2.py").write_text(STAGE_2)
    return tmp_path


def test_own_classes_go_through_all_scripts(folder, run, call):
    images, codes = f"{folder}/images", f"{folder}/codes"
    run("train_vqvae2", f"--recipe={folder}/stage_1.py", f"--data={images}", f"--output={folder}/1")
    vqvae = VQVAE2.from_preset(folder / "1" / "preset")
    assert vqvae.num_embeddings == {"top": 8, "bottom": 16}
    for split in ("train", "validation"):
        flags = [f"--data={images}", f"--split={split}", f"--output={codes}"]
        run("encode_dataset", f"--preset={folder}/1/preset", *flags)
    flags = [f"--recipe={folder}/stage_2.py", f"--codes={codes}"]
    for level in ("top", "bottom"):
        # Under float16 the optimizer that averages lies within one that scales the loss.
        half = ["--precision=mixed_float16"] * (level == "bottom")
        output = folder / level
        printed = run("train_prior", *flags, f"--level={level}", f"--output={output}", *half)
        assert f"PositionPrior of {level}" in printed
        last = keras.models.load_model(output / "checkpoint-1.keras")
        best = type(last).from_preset(output / "preset")
        (averaged,), (final,) = best.get_weights(), last.get_weights()
        assert np.isfinite(averaged).all() and not np.allclose(averaged, final, atol=1e-4)
    assert best.condition_embeddings == {"top": 8} and best.num_classes == 2

    small = ["--images_per_class=2", "--batch_size=4"]
    parts = [f"--vqvae={folder}/1/preset", f"--save_preset={folder}/generator", f"--codes={codes}"]
    parts += [f"--priors={folder}/top/preset,{folder}/bottom/preset"]
    printed = run("generate", *parts, *small, f"--output={folder}/samples")
    assert "Wrote 4 images" in printed
    generator = HierarchicalImageGenerator.from_preset(folder / "generator")
    assert {type(p).__name__ for p in generator.priors.values()} == {"PositionPrior"}
    assert generator.class_names == ["cats", "dogs"]
    preset = f"--preset={folder}/generator"
    flags = [f"--train={images}", f"--validation={images}", f"--output={folder}/card"]
    run("evaluate", preset, *small, *flags, "--sections=priors", "--sections=nearest")
    measured = json.loads((folder / "card" / "metrics.json").read_text())
    for level, count in (("top", 8), ("bottom", 16)):
        prior = measured["priors"]["levels"][level]
        assert prior["uniform"] == pytest.approx(np.log(count)) and prior["nats_per_code"] > 0

    # A preset is data: without the file that registers them no class of it is made.
    registry = keras.saving.get_custom_objects()
    for name in [name for name in registry if name.startswith("own>")]:
        del registry[name]
    done = call("generate", preset, f"--output={folder}/more")
    assert done.code == 1 and "Expected a class registered" in done.err.splitlines()[-1]


def test_what_a_prior_does_not_offer_is_refused(folder, run, call):
    VQVAE2((16, 16, 3), hidden_units=8, residual_units=4).save_to_preset(folder / "vqvae")
    flags = [f"--data={folder}/images", f"--output={folder}/codes"]
    run("encode_dataset", f"--preset={folder}/vqvae", *flags)
    flags = [f"--recipe={folder}/stage_2.py", f"--codes={folder}/codes", "--level=top"]
    flags += ["--validation_split=", f"--output={folder}/run"]
    for flag in ("--gradient_checkpointing", "--model_parallel=2"):
        done = call("train_prior", REGISTER, *flags, flag)
        assert done.code == 1 and "for a PositionPrior, which does not offer it" in done.err
