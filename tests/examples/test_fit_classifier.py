from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_vqvae2 import VQVAE2, HierarchicalImageGenerator, PixelSnailPrior
from keras_vqvae2.evaluation import LabelClassifier
from keras_vqvae2.features import FeatureExtractor

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_bundled_classifiers_know_their_presets_labels():
    extractor = FeatureExtractor(None, name="EfficientNetLite0")
    for name in ("clothing_64", "imagenette_128"):
        path = EXAMPLES / "classifiers" / f"{name}.npz"
        assert path.stat().st_size < 30_000
        classifier = LabelClassifier.load(path, extractor)
        assert len(classifier.label_names) == 10 and classifier.weights.shape == (1281, 10)
        assert np.isfinite(classifier.weights).all()


@pytest.fixture
def folder(tmp_path, rng):
    """A tiny generator's preset, and reddish and greenish images of its two labels."""
    vqvae = VQVAE2((32, 32, 3), num_embeddings=8, hidden_units=8, residual_units=4, num_levels=1)
    prior = PixelSnailPrior(
        (8, 8),
        level="bottom",
        num_classes=2,
        num_embeddings=8,
        hidden_units=8,
        residual_units=4,
        num_blocks=1,
        block_layers=1,
        output_blocks=0,
        attention_heads=2,
    )
    generator = HierarchicalImageGenerator(vqvae, [prior], ["green", "red"])
    generator.save_to_preset(tmp_path / "generator")
    for split in ("train", "validation"):
        for label, name in enumerate(("green", "red")):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(6):
                pixels = rng.integers(100, size=(32, 32, 3), dtype="uint8")
                pixels[..., 1 - label] += 150
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.png")
    return tmp_path


def test_the_script_fits_a_folder(folder, call):
    flags = [f"--preset={folder}/generator", f"--cache={folder}/cache"]
    flags += [f"--{split}={folder}/{split}" for split in ("train", "validation")]
    flags += [f"--classifier={folder}/classifier.npz"]
    done = call("fit_classifier", *flags)
    assert done.code == 0, done.err
    assert "100.0% of 12 validation images right" in done.out
    extractor = FeatureExtractor(None, name="EfficientNetLite0")
    classifier = LabelClassifier.load(folder / "classifier.npz", extractor)
    assert classifier.label_names == ["green", "red"]

    (folder / "validation" / "red").rename(folder / "validation" / "blue")
    done = call("fit_classifier", *flags)
    message = "fit_classifier: Expected the classes ['green', 'red']. Received: ['blue', 'green']"
    assert done.code == 1 and done.err.splitlines()[-1].startswith(message)
