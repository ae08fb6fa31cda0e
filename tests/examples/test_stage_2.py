"""The scripts of stage 2."""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_vqvae2 import VQVAE2, HierarchicalImageGenerator, PixelSnailPrior
from keras_vqvae2.codes import encode_dataset
from keras_vqvae2.data import class_names, images_from_folder

EXAMPLES = Path(__file__).parents[2] / "examples"
RECIPE = """
import keras
import keras_vqvae2

def recipe(level, laptop=False):
    return {
        "prior": keras_vqvae2.PixelSnailPrior,
        "model": {
            "hidden_units": 8, "residual_units": 4, "num_blocks": 1, "block_layers": 1,
            "kernel_size": 3, "attention_heads": 2 if level == "top" else 0, "output_blocks": 0,
            "condition_blocks": 0, "condition_kernel_size": 3, "dropout": 0.1,
        },
        "batch_size": 4, "steps": 6, "steps_per_epoch": 2, "patience": 9,
        "optimizer": keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True),
    }
"""


def start(script, *flags, **variables):
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend(), **variables}
    return subprocess.Popen(
        [sys.executable, EXAMPLES / f"{script}.py", *flags],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def run(call):
    """`run(script, *flags)`: what a script prints that ends well, in this process."""

    def run(script, *flags):
        done = call(script, *flags)
        assert done.code == 0, done.err[-3000:]
        return done.out

    return run


def finish(process):
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed[-3000:]
    return printed


def check_plan(printed, work, output):
    """What a script says that it will do, in five lines."""
    lines = re.findall(r"^(?:model|data|work|on|output): .*", printed, re.MULTILINE)
    assert [line.split(":")[0] for line in lines] == ["model", "data", "work", "on", "output"]
    assert lines[0].endswith(" parameters") and work in lines[2]
    assert f"{keras.backend.backend()}, 1 device, float32" in lines[3] and str(output) in lines[4]


def files(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_images_to_codes_to_a_prior_to_images(tmp_path, run):
    vqvae = VQVAE2((16, 16, 3), num_embeddings=16, hidden_units=8, residual_units=4)
    vqvae.save_to_preset(tmp_path / "vqvae")
    rng = np.random.default_rng(0)
    images = tmp_path / "images"
    for name in ("cats", "dogs"):
        (images / name).mkdir(parents=True)
        for i in range(6):
            image = Image.fromarray(rng.integers(256, size=(16, 16, 3), dtype="uint8"))
            image.save(images / name / f"{i}.png")

    # encode_dataset writes the files of the function. benchmarks/kills.py kills these scripts.
    codes, written = tmp_path / "codes", tmp_path / "written_codes"
    flags = [f"--preset={tmp_path}/vqvae", f"--data={images}", "--flips", "--shard_size=2"]
    flags += ["--batch_size=2", "--crops=1", "--resize=20", f"--output={written}"]
    check_plan(run("encode_dataset", *flags), "2 passes and as many mirrored", written)
    source = functools.partial(images_from_folder, images, 16, batch_size=2, labels=True)
    encode = {"class_names": class_names(images), "flips": True, "shard_size": 2, "verbose": 0}
    crops = functools.partial(source, resize=20, crop="random", flip=True)
    encode_dataset(vqvae, [source, crops], codes, **encode)
    assert files(written) == files(codes)
    encode_dataset(vqvae, source, codes, "validation", **encode)

    # Two workers make the files of one.
    flags = [*flags[:-1], "--engine=grain", "--split=more"]
    run("encode_dataset", *flags, f"--output={tmp_path}/one")
    flags += [f"--output={tmp_path}/two", "--num_workers=2"]
    for worker in (1, 0):
        printed = run("encode_dataset", *flags, f"--worker={worker}")
        assert f"Wrote part {worker} of" in printed
    assert files(tmp_path / "one") == files(tmp_path / "two")

    # train_prior, stopped on the way, ends with the weights of the whole one.
    (tmp_path / "recipe.py").write_text(RECIPE)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    flags = [f"--recipe={tmp_path}/recipe.py", f"--codes={codes}", "--level=bottom"]
    run("train_prior", *flags, f"--output={whole}")
    run("train_prior", *flags, f"--output={stopped}", "--steps=4")
    printed = run("train_prior", *flags, f"--output={stopped}", "--resume")
    check_plan(printed, "6 steps of 4, a checkpoint every 2; from step 4", stopped)
    for name in ("log.csv", "log.png", "best.json", "metrics.json", "preset"):
        assert (stopped / name).exists(), name
    records = [json.loads((run / "metrics.json").read_text()) for run in (whole, stopped)]
    assert records[0]["steps"] == records[1]["steps"]
    assert records[0]["validation"]["loss"] == pytest.approx(records[1]["validation"]["loss"], 1e-4)
    assert 0 < records[0]["train"]["loss"] < 2 * np.log(16)
    bottom, again = (PixelSnailPrior.from_preset(run / "preset") for run in (whole, stopped))
    for x, y in zip(bottom.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    assert bottom.num_classes == 2 and bottom.condition_factors == {"top": 2}

    # generate, from parts, then from the preset that it made of them.
    top = {"code_shape": (2, 2), "level": "top", "condition_factors": {}, "name": "top"}
    top = {**bottom.get_config(), **top, "condition_embeddings": {}}
    PixelSnailPrior.from_config(top).save_to_preset(tmp_path / "top")
    output = tmp_path / "samples"
    flags = ["--images_per_class=2", "--batch_size=3", f"--output={output}"]
    parts = [f"--vqvae={tmp_path}/vqvae", f"--codes={codes}"]
    parts += [f"--priors={tmp_path}/top,{whole}/preset", f"--save_preset={tmp_path}/generator"]
    parts += ["--temperature=0.9", "--top_p=bottom=0.8"]
    printed = run("generate", *parts, *flags)
    assert "Wrote 4 images" in printed
    check_plan(printed, "4 of 4 images, 2 a class, 3 at a time, 0 are there", output)
    pictures = files(output)
    images = [f"image-00000{i}.png" for i in range(4)]
    assert sorted(pictures) == ["grid.png", *images, "images.plan.json"]
    generator = HierarchicalImageGenerator.from_preset(tmp_path / "generator")
    assert generator.label_names == ["cats", "dogs"]
    bottom = {"temperature": 0.9, "top_p": 0.8}
    assert generator.settings == {"top": {"temperature": 0.9}, "bottom": bottom}
    (output / "image-000003.png").unlink()
    assert "3 are there" in run("generate", *parts, *flags)
    assert files(output).keys() == pictures.keys()
    flags = [f"--preset={tmp_path}/generator", *flags[:-1], f"--output={tmp_path}/parts"]
    assert "Wrote part 1 of 4" in run("generate", *flags, "--num_workers=2", "--worker=1")
    assert sorted(files(tmp_path / "parts")) == ["image-000003.png", "images.plan.json"]
    assert "Wrote 4 images" in run("generate", *flags, "--num_workers=2", "--worker=0")
    parts = files(tmp_path / "parts")
    assert parts.keys() == pictures.keys()
    for name in ("grid.png", *images):
        # The last batch holds one image in place of three: rounding may differ.
        one, two = (
            keras.utils.img_to_array(keras.utils.load_img(f / name))
            for f in (output, tmp_path / "parts")
        )
        assert np.abs(one - two).max() <= 1, name


def test_a_prior_goes_on_with_its_codes_and_level_or_not_at_all(tmp_path, run, call):
    images = np.random.default_rng(0).integers(256, size=(6, 16, 16, 3), dtype="uint8")
    for name in ("codes", "other"):
        vqvae = VQVAE2((16, 16, 3), num_embeddings=16, hidden_units=8, residual_units=4)
        encode_dataset(vqvae, images, tmp_path / name, verbose=0)
        encode_dataset(vqvae, images, tmp_path / name, "validation", verbose=0)
    (tmp_path / "recipe.py").write_text(RECIPE)
    flags = [f"--recipe={tmp_path}/recipe.py", f"--output={tmp_path}/run", "--resume"]
    run("train_prior", *flags, f"--codes={tmp_path}/codes", "--level=bottom", "--steps=2")
    for other, level, differs in (
        ("other", "bottom", "codes.fingerprint"),
        ("codes", "top", "level='bottom', with which"),
    ):
        done = call("train_prior", *flags, f"--codes={tmp_path}/{other}", f"--level={level}")
        assert done.code == 1 and differs in done.err.splitlines()[-1]
    (tmp_path / "codes").rename(tmp_path / "moved")
    flags += [f"--codes={tmp_path}/moved", "--level=bottom", "--validation_examples=4"]
    printed = run("train_prior", *flags, "--patience=3")
    changes = re.findall(r"^change: goes on with (\w+)=", printed, re.MULTILINE)
    assert sorted(changes) == ["codes_path", "patience", "steps", "validation_examples"]


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="Keras splits weights on JAX")
@pytest.mark.parametrize("devices, split", [(2, 2), (4, 2)])
def test_a_prior_whose_weights_are_split_ends_as_on_one_device(tmp_path, devices, split):
    vqvae = VQVAE2((16, 16, 3), num_embeddings=16, hidden_units=8, residual_units=4)
    images = np.random.default_rng(0).integers(256, size=(10, 16, 16, 3), dtype="uint8")
    encode_dataset(vqvae, images, tmp_path / "codes", verbose=0)
    encode_dataset(vqvae, images[:6], tmp_path / "codes", "validation", verbose=0)
    (tmp_path / "recipe.py").write_text(RECIPE)
    flags = [f"--recipe={tmp_path}/recipe.py", f"--codes={tmp_path}/codes", "--level=bottom"]
    finish(start("train_prior", *flags, f"--output={tmp_path}/one", "--devices=1"))
    virtual = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    flags += [f"--output={tmp_path}/several", f"--model_parallel={split}"]
    printed = finish(start("train_prior", *flags, "--steps=2", **virtual))
    assert f"{devices} devices ({devices // split} x {split}, batch x weights)" in printed
    printed = finish(start("train_prior", *flags, "--resume", **virtual))
    assert "goes on from checkpoint-1.keras" in printed
    one, several = (
        PixelSnailPrior.from_preset(tmp_path / name / "preset") for name in ("one", "several")
    )
    for x, y in zip(one.get_weights(), several.get_weights(), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)
    records = [
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "several")
    ]
    assert records[0]["validation"]["loss"] == pytest.approx(records[1]["validation"]["loss"], 1e-5)
