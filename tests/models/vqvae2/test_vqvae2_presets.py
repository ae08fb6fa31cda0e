import re
from pathlib import Path

import numpy as np
import pytest

from keras_vqvae2 import VQGAN, VQVAE2, PresetModel
from keras_vqvae2.data import sample_photographs
from keras_vqvae2.metrics import PeakSignalNoiseRatio
from keras_vqvae2.models import preset_files
from keras_vqvae2.models.preset_registry import RegisteredPresets
from keras_vqvae2.models.vqvae2.vqvae2_presets import VQVAE2_PRESETS

ROOT = Path(__file__).parents[3]
PARAMETERS = {
    "vqvae2_imagenet_256": 1_667_335,
    "vqvae2_ffhq_1024": 3_213_641,
    "vqvae2_eurosat_64": 1_551_671,
    "vqvae2_imagenette_128": 1_783_367,
    "vqvae2_clothing_64": 1_783_367,
    "vqvae2_cartoonset_128": 1_846_775,
}


def test_every_entry_is_pinned_here_and_every_directory_is_an_entry():
    assert set(VQVAE2_PRESETS) == set(PARAMETERS) == set(VQVAE2.presets) - set(VQGAN.presets)
    bundled = {entry["directory"] for entry in VQVAE2.presets.values() if entry["has_weights"]}
    folders = preset_files.BUNDLED_PRESETS.rglob("vqvae")
    assert bundled == {str(path.relative_to(preset_files.BUNDLED_PRESETS)) for path in folders}
    assert set(PresetModel.presets) >= set(VQVAE2.presets)


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_entry_builds(name):
    entry = VQVAE2.presets[name]
    model = VQVAE2.from_preset(name, load_weights=entry["has_weights"])
    assert model.count_params() == PARAMETERS[name] == entry["parameters"]
    assert model.image_shape == tuple(entry["image_shape"])
    assert entry["description"].endswith(".")


@pytest.mark.parametrize("name", ["vqvae2_imagenet_256", "vqvae2_ffhq_1024"])
def test_architectures_say_that_no_weights_exist(name):
    with pytest.raises(ValueError, match="No weights have been published.*load_weights=False"):
        VQVAE2.from_preset(name)


def test_unknown_names_list_the_near_ones():
    with pytest.raises(ValueError, match=r"Near names: \['vqvae2_imagenette_128'.*Received"):
        VQVAE2.from_preset("vqvae2_imagenete_128")


@pytest.mark.parametrize("name", ["vqvae2_imagenette_128", "vqvae2_clothing_64"])
def test_a_trained_preset_reconstructs_photographs_it_never_saw(name):
    model = VQVAE2.from_preset(name)
    images = sample_photographs(model.image_shape[:2]) / np.float32(255)
    codes = model.encode(images)
    psnr = PeakSignalNoiseRatio()
    psnr.update_state(images, model.decode(codes))
    assert float(psnr.result()) > 24
    for level in model.levels:
        assert len(np.unique(codes[level])) > 100


def test_metrics_are_those_of_the_cards():
    trained = {
        k: entry
        for k, entry in RegisteredPresets().__get__(None, object).items()
        if entry["has_weights"]
    }
    assert len(trained) == 17  # four generators and their parts, and a model of pixels
    for name, entry in trained.items():
        card = (ROOT / entry["card"]).read_text()
        for metric, value in entry["metrics"].items():
            assert re.search(rf"\| {re.escape(str(value))}\b", card), (name, metric, value)


def test_bundled_files_are_small():
    sizes = [path.stat().st_size for path in preset_files.BUNDLED_PRESETS.rglob("*.h5")]
    assert max(sizes) < 16e6 and sum(sizes) < 100e6
