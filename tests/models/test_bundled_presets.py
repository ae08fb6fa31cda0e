"""What version 0.1 bundled and is bundled still: the files, and what they give, stay as they were.

Of `clothing_64` that is the `VQVAE2`; its priors were trained anew, on the same codes.
"""

import hashlib

import numpy as np
import pytest

from keras_vqvae2 import HierarchicalImageGenerator
from keras_vqvae2.data import sample_photographs
from keras_vqvae2.models.preset_files import BUNDLED_PRESETS

SHA256 = {
    "clothing_64/vqvae": "72e994b3be26b2e00939f6c3e858c3f9fb0b13dfc97ec350120b1f1e87be30b2",
    "imagenette_128": "3da384793c96cef189a48eb48081c1611860f98b25443aa07307014d7d7d5d9f",
}


@pytest.mark.parametrize("name", SHA256)
def test_files_are_byte_for_byte_the_same(name):
    paths = sorted(path for path in (BUNDLED_PRESETS / name).rglob("*") if path.is_file())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
    assert digest == SHA256[name]


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
