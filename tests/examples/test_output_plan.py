"""Results of one command do not join those of another in the same folder."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import keras_vqvae2
from keras_vqvae2 import VQVAE2, HierarchicalImageGenerator, PixelSnailPrior
from keras_vqvae2.evaluation import LabelClassifier
from keras_vqvae2.features import FeatureExtractor

MEANS = FeatureExtractor(lambda images: images.mean(axis=(1, 2)), "Means")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny generator, others near it, and images of its two classes."""
    folder, rng = tmp_path_factory.mktemp("inputs"), np.random.default_rng(0)
    vqvae = VQVAE2((16, 16, 3), num_embeddings=8, hidden_units=8, residual_units=4, num_levels=1)
    prior = PixelSnailPrior(
        (4, 4), 8, "bottom", num_classes=2, hidden_units=8, residual_units=4, num_blocks=1,
        block_layers=1, attention_heads=0, output_blocks=0,
    )  # fmt: skip

    def save(name, settings=None):
        generator = HierarchicalImageGenerator(vqvae, [prior], ["cat", "dog"], settings)
        generator.save_to_preset(folder / name)

    save("generator")
    save("cooler", {"bottom": {"temperature": 0.5}})
    prior.trainable_variables[0].assign(prior.trainable_variables[0] + 0.1)
    save("other")
    shutil.copytree(folder / "generator", folder / "moved")
    for split in ("validation", "others"):  # of the same names
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for i in range(3):
                image = Image.fromarray(rng.integers(256, size=(16, 16, 3), dtype="uint8"))
                image.save(folder / split / name / f"{i}.png")
    for seed in range(2):
        weights = np.random.default_rng(seed).normal(size=(4, 2))
        LabelClassifier(MEANS, weights, ["cat", "dog"]).save(folder / f"{seed}.npz")
    return folder


def files(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@pytest.fixture
def refused(call, tmp_path):
    """`refused(script, *flags)`: the message with which a script stops before it does anything."""

    def refused(script, *flags):
        before = files(tmp_path / "out")
        done = call(script, *flags)
        assert done.code == 1 and "output:" not in done.out
        assert files(tmp_path / "out") == before
        message = done.err.splitlines()[-1]
        assert message.startswith(f"{script}: Expected ")
        assert message.endswith(". Choose another --output, or remove the folder")
        return message

    return refused


def test_images_of_another_command_are_refused(call, folder, tmp_path, refused):
    flags = [f"--preset={folder}/generator", f"--output={tmp_path}/out", "--images_per_class=2"]
    assert call("generate", *flags).code == 0
    before = files(tmp_path / "out")
    assert call("generate", *flags).code == 0 and files(tmp_path / "out") == before
    message = refused("generate", *flags, "--seed=1")
    assert f"Expected seed=0, with which {tmp_path}/out was begun. Received: seed=1" in message
    for change, expected in (
        ("--images_per_class=1", "Expected images_per_class=2"),
        ("--classes=dog", r"Received: classes=['dog']"),
        ("--temperature=0.5", "Received: settings.bottom.temperature=0.5"),
        ("--precision=mixed_bfloat16", "Expected precision=['float32'], with"),
        (f"--preset={folder}/cooler", "Received: settings.bottom.temperature=0.5"),
        (f"--preset={folder}/other", "Expected fingerprint_of_generator="),
        (f"--save_preset={tmp_path}/saved --seed=1", "Received: seed=1"),
    ):
        assert expected in refused("generate", *flags, *change.split())
    assert not (tmp_path / "saved").exists()
    # The same images in other batches, of a preset in another place.
    (tmp_path / "out" / "image-000003.png").unlink()
    same = ("--batch_size=1", f"--preset={folder}/moved")
    assert call("generate", *flags, *same).code == 0 and files(tmp_path / "out") == before


def test_images_without_a_plan_and_a_plan_without_images(call, folder, tmp_path, refused):
    flags = [f"--preset={folder}/generator", f"--output={tmp_path}/out", "--images_per_class=1"]
    assert call("generate", *flags).code == 0
    plan = tmp_path / "out" / "images.plan.json"
    plan.unlink()
    message = refused("generate", *flags)
    assert f"Expected {plan}, which says what image-00000" in message
    # Stopped before the first image: nothing is there that could be of another command.
    plan.write_text('{"seed": 7}')
    for path in (tmp_path / "out").glob("image-*"):
        path.unlink()
    assert call("generate", *flags).code == 0
    assert json.loads(plan.read_text())["seed"] == 0


def test_a_worker_that_meets_images_of_another_command_stops(call, folder, tmp_path, monkeypatch):
    generate, plan = HierarchicalImageGenerator.generate, tmp_path / "out" / "images.plan.json"

    def meanwhile(self, *arguments, **options):
        plan.write_text(plan.read_text().replace('"seed": 0', '"seed": 1'))
        (plan.parent / "image-000000.png").touch()
        return generate(self, *arguments, **options)

    monkeypatch.setattr(HierarchicalImageGenerator, "generate", meanwhile)
    flags = [f"--preset={folder}/generator", f"--output={plan.parent}", "--images_per_class=1"]
    done = call("generate", *flags, "--batch_size=1", "--num_workers=2", "--worker=1")
    assert done.code == 1 and "Expected seed=1, with which" in done.err.splitlines()[-1]
    assert not (plan.parent / "image-000001.png").exists()


@pytest.mark.filterwarnings("ignore:The Fréchet distance of features")  # of few samples
def test_rows_of_another_command_are_refused(call, folder, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(keras_vqvae2.features, "efficientnet_lite0", lambda: MEANS)
    output = tmp_path / "out"
    flags = [f"--preset={folder}/generator", f"--validation={folder}/validation"]
    flags += [f"--output={output}", f"--cache={tmp_path}/cache", "--top_ps=1"]

    def measured(*changes):
        assert call("choose_settings", *flags, *changes).code == 0
        return [json.loads(line) for line in (output / "settings.jsonl").read_text().splitlines()]

    first = measured("--temperatures=1")
    for change, expected in (
        ("--seed=1", "Expected seed=0, with which"),
        (f"--preset={folder}/other", "Expected fingerprint_of_generator="),
        (f"--validation={folder}/others", "Expected validation.digest="),
    ):
        assert expected in refused("choose_settings", *flags, "--temperatures=0.5", change)
    rows = measured("--temperatures=1,0.5")
    assert rows[:1] == first and [row["temperature"] for row in rows] == [1, 0.5]
    # A classifier may join later; then it stays.
    one, another = (f"--classifier={folder}/{i}.npz" for i in range(2))
    rows = measured("--temperatures=1", one)
    assert ["label found" in row for row in rows] == [False, True]
    assert measured("--temperatures=1") == rows
    message = refused("choose_settings", *flags, "--temperatures=0.9", another)
    assert "Expected classifier=" in message
