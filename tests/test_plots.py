import numpy as np
import pytest
from PIL import Image

from keras_vqvae2.plots import code_colours, save_image_rows


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(16, 16), (128, 64)])
def test_each_image_is_seen_in_its_place(tmp_path, channels, size):
    dark, light = np.full((3, *size, channels), 0.25), np.full((3, *size, channels), 0.75)
    path = tmp_path / "picture.png"
    save_image_rows({"dark": dark, "light": light}, path, title="title")
    picture = np.asarray(Image.open(path).convert("L")).astype(float)
    # Each row's gray covers about half of the picture, the dark one above the light one.
    places = [np.argwhere(abs(picture - 255 * tone) < 3) for tone in (0.25, 0.75)]
    for found in places:
        assert 0.3 < len(found) / picture.size < 0.55
    assert np.median(places[0][:, 0]) < picture.shape[0] / 2 < np.median(places[1][:, 0])
    # At least as many pixels as the images have.
    assert np.sqrt(len(places[0]) / 3) >= 0.95 * np.sqrt(np.prod(size))


def test_like_codes_have_like_colours(rng):
    groups = rng.normal(size=(4, 16)) * 10
    codebook = np.repeat(groups, 8, axis=0) + 0.1 * rng.normal(size=(32, 16))
    colours = code_colours(codebook)
    assert colours.shape == (32, 3) and colours.min() == 0 and colours.max() == 1
    within = np.ptp(colours.reshape(4, 8, 3), axis=1).max()
    assert within < 0.3 < np.ptp(colours.reshape(4, 8, 3).mean(axis=1), axis=0).max()


def test_a_flat_codebook_has_colours_too(rng):
    colours = code_colours(rng.normal(size=(9, 2)))
    assert colours.shape == (9, 3) and len(np.unique(colours[:, :2], axis=0)) == 9
