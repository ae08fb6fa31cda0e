import json

import numpy as np
import pytest
from PIL import Image

from keras_vqvae2 import VQVAE2, HierarchicalImageGenerator, MaskedTransformerPrior, PixelSnailPrior


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


FEW = pytest.mark.filterwarnings("ignore:The Fréchet distance of features")  # samples, here
SMALL = ["--images_per_class=2", "--batch_size=3", "--rates=1,0.5", "--accuracy_epochs=1"]


@pytest.fixture
def measure(call, folder):
    """`measure(*options)`: the run's `metrics.json`; its tables are printed and kept."""

    def measure(*options):
        places = [f"--output={folder}/card", f"--cache={folder}/cache"]
        places += [f"--{split}={folder}/{split}" for split in ("train", "validation")]
        done = call("evaluate", *places, *SMALL, *options)
        assert done.code == 0, done.err
        plan = [line.split(":")[0] for line in done.out.splitlines()[:5]]
        assert plan == ["model", "data", "work", "on", "output"]
        assert (folder / "card" / "tables.md").read_text().rstrip() in done.out
        return json.loads((folder / "card" / "metrics.json").read_text())

    return measure


def check_pictures(folder, **heights):
    for name, height in heights.items():
        assert Image.open(folder / "card" / f"{name}.png").height > 100 * height


def test_priors_without_likelihood_are_named_before_long_work(call, folder):
    vqvae = VQVAE2((32, 32, 3), num_embeddings=8, hidden_units=8, residual_units=4, num_levels=1)
    sizes = {"hidden_units": 8, "num_layers": 1, "num_heads": 2, "feed_forward_units": 8}
    prior = MaskedTransformerPrior((8, 8), 8, "bottom", num_classes=2, **sizes)
    generator = HierarchicalImageGenerator(vqvae, [prior], ["cat", "dog"])
    generator.save_to_preset(folder / "masked")
    places = [f"--{split}={folder}/{split}" for split in ("train", "validation")]
    done = call("evaluate", *places, f"--preset={folder}/masked", f"--output={folder}/card")
    assert done.code == 1
    assert "exact likelihood for the section priors" in done.err
    assert "MaskedTransformerPrior of 'bottom'" in done.err


def test_reconstructions_priors_and_nearest_images(folder, measure):
    sections = ("reconstruction", "priors", "nearest")
    options = [f"--sections={section}" for section in sections]
    metrics = measure(f"--preset={folder}/generator", *options)
    assert tuple(metrics["seconds"]) == sections
    assert metrics["reconstruction"]["images"] == 6
    assert metrics["reconstruction"]["bits_per_pixel"] == (16 + 64) * 3 / 32**2
    assert 0 < metrics["reconstruction"]["psnr"] < 30 and metrics["reconstruction"]["lpips"] > 0
    for level in ("top", "bottom"):
        prior = metrics["priors"]["levels"][level]
        assert prior["uniform"] == pytest.approx(np.log(8))
        names = ("nats_per_code", "nats_per_code_train", "position_only")
        assert all(prior[name] > 0 for name in names)
    assert metrics["nearest"]["samples"] > 0 and metrics["nearest"]["validation"] > 0
    check_pictures(folder, samples=2, nearest=2, reconstructions=3)


@FEW
def test_samples_with_and_without_rejection_and_a_folder_of_images(folder, measure):
    earlier = measure(f"--preset={folder}/generator", "--sections=nearest")
    metrics = measure(f"--preset={folder}/generator", "--sections=samples")
    assert metrics["nearest"] == earlier["nearest"]  # measured by an earlier run, and kept
    assert metrics["samples"]["images"] == metrics["samples"]["real_images"] == 6
    rows = metrics["samples"]["rows"]
    names = ["training images", "reconstructions", "samples, rate 1", "samples, rate 0.5"]
    assert list(rows) == [*names[:2], "samples, real top", *names[2:]]
    for row in rows.values():
        assert row["FD-EfficientNetLite0"] > 0 and 0 <= row["coverage"] <= 1
        assert 1 <= row["IS-EfficientNetLite0"] <= 6 and 0 <= row["label found"] <= 1
    assert rows[names[3]]["label found"] >= rows[names[2]]["label found"]
    check_pictures(folder, rates=2, best=2)
    assert len(list((folder / "cache").iterdir())) == 2

    # What another seed measured does not join it.
    assert "samples" not in measure(
        f"--preset={folder}/generator", "--sections=reconstruction", "--seed=1"
    )

    # A folder of images is compared in the same way, with the features that are there.
    metrics = measure(f"--images={folder}/train", "--image_size=32")
    assert "nearest" not in metrics
    row = metrics["samples"]["rows"][f"{folder}/train"]
    expected = rows["training images"]["FD-EfficientNetLite0"]
    assert row["FD-EfficientNetLite0"] == pytest.approx(expected, rel=1e-3)
    assert len(list((folder / "cache").iterdir())) == 2


@FEW
def test_settings_are_compared_and_the_same_command_goes_on(folder, call):
    flags = [f"--preset={folder}/generator", f"--validation={folder}/validation"]
    flags += [f"--output={folder}/settings", f"--cache={folder}/cache", "--temperatures=1"]
    assert call("choose_settings", *flags, "--top_ps=1").code == 0
    first = (folder / "settings" / "settings.jsonl").read_text()
    done = call("choose_settings", *flags, "--top_ps=1,0.5")
    assert done.code == 0 and "which holds 1 of them" in done.out
    rows = (folder / "settings" / "settings.jsonl").read_text()
    assert rows.startswith(first) and [json.loads(row)["top_p"] for row in rows.splitlines()] == [
        1,
        0.5,
    ]
    assert (folder / "settings" / "settings.md").read_text().rstrip() in done.out
    classifier = folder / "settings" / "classifier.npz"
    both = [f"--preset={folder}/generator", f"--validation={folder}/validation"]
    both += [f"--cache={folder}/cache", f"--classifier={classifier}"]
    assert call("fit_classifier", *both, f"--train={folder}/train").code == 0
    done = call("choose_settings", *flags, "--top_ps=0.5", f"--classifier={classifier}")
    assert done.code == 0 and "label found in validation images" in done.out
    rows = (folder / "settings" / "settings.jsonl").read_text().splitlines()
    assert ["label found" in json.loads(row) for row in rows] == [False, True]
    refused = call("choose_settings", *flags, "--guidance_scales=2", "--levels=top")
    assert refused.code == 1 and "guidance_scale=2.0 for 'top'" in refused.err


@pytest.mark.slow
def test_classification_accuracy_scores(folder, measure):
    metrics = measure(f"--preset={folder}/generator", "--sections=accuracy")
    rows = metrics["accuracy"]["rows"]
    assert list(rows) == ["training images", "reconstructions", "samples"]
    for row in rows.values():
        assert 0 <= row["top1"] <= row["top5"] == 1  # of two classes


def test_other_classes_are_refused(folder, call):
    (folder / "train" / "dog").rename(folder / "train" / "dogs")
    folders = [f"--{split}={folder}/{split}" for split in ("train", "validation")]
    done = call("evaluate", f"--output={folder}/card", f"--preset={folder}/generator", *folders)
    assert done.code == 1
    message = done.err.splitlines()[-1]
    assert message.startswith("evaluate: Expected the classes ['cat', 'dog']. Received: ['cat',")
