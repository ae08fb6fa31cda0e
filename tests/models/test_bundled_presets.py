"""What version 0.1 bundled and is bundled still stays as it was.

That is what codes mean, in both, and the priors of `imagenette_128`. The decoders, and the priors
of `clothing_64`, were trained anew.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from keras_vqvae2 import VQVAE2, HierarchicalImageGenerator
from keras_vqvae2.data import sample_photographs
from keras_vqvae2.losses import SquaredError
from keras_vqvae2.models.preset_files import BUNDLED_PRESETS

SHA256_OF_IMAGENETTE_128 = {
    "prior_top": "98b6148b5ad075bc135873570606fe9c0176fc0b833987cb2bd899698cdd7437",
    "prior_bottom": "2c401f33a281d2922dcabd9d6a1958daab6381e0ac2028b14d3ffd928bf10dd3",
}


@pytest.mark.parametrize("part", SHA256_OF_IMAGENETTE_128)
def test_files_are_byte_for_byte_the_same(part):
    paths = sorted((BUNDLED_PRESETS / "imagenette_128" / part).iterdir())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
    assert digest == SHA256_OF_IMAGENETTE_128[part]


def test_a_config_of_version_0_1_is_read():
    config = Path(__file__).parents[1] / "golden" / "vqvae2_config_0_1.json"
    model = VQVAE2.from_config(json.loads(config.read_text()))
    now = VQVAE2.from_preset("vqvae2_imagenette_128")
    ((loss, weight),) = model.reconstruction_losses.values()
    assert isinstance(loss, SquaredError) and weight == pytest.approx(1 / 0.083)
    model.set_weights(now.get_weights())
    assert model.fingerprint() == now.fingerprint()


@pytest.fixture(scope="module", params=["clothing_64", "imagenette_128"])
def preset(request):
    return request.param, HierarchicalImageGenerator.from_preset(request.param)


def test_codes_and_images_are_the_same(preset, golden):
    name, generator = preset
    expected = golden("bundled_presets")
    vqvae = generator.vqvae
    assert vqvae.has_fingerprint(expected[f"{name}.fingerprint"].tobytes().decode())
    codes = vqvae.encode(sample_photographs(vqvae.image_shape[:2])[:2])
    for level, value in codes.items():
        # Backends round differently; between two codes as near rounding decides.
        assert np.mean(value == expected[f"{name}.codes.{level}"]) > 0.99
    given = {level: expected[f"{name}.codes.{level}"].astype("int32") for level in codes}
    images = vqvae.decode(given)
    cells = images.reshape(2, 16, images.shape[1] // 16, 16, -1, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(cells, expected[f"{name}.reconstructions"], atol=1e-5)


def test_priors_draw_the_same_codes(golden):
    priors = HierarchicalImageGenerator.from_preset("imagenette_128").priors
    expected = golden("bundled_presets")
    drawn = {}
    for level, prior in priors.items():
        drawn[level] = prior.generate(1, labels=3, condition=drawn, seed=7, verbose=0)
        np.testing.assert_array_equal(drawn[level], expected[f"imagenette_128.drawn.{level}"])
