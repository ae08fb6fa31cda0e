import numpy as np
import pytest
from PIL import Image

from keras_vqvae2 import VQVAE2
from keras_vqvae2.callbacks import ReconstructionGrid
from keras_vqvae2.callbacks.reconstruction_grid import reconstruction_rows


def test_pictures_every_so_often(rng, tmp_path):
    images = rng.integers(256, size=(3, 16, 16, 3), dtype="uint8")
    model = VQVAE2((16, 16, 3), hidden_units=8, residual_units=4, num_embeddings=16)
    model.compile(optimizer="adam")
    model.fit(images, epochs=4, verbose=0, callbacks=[ReconstructionGrid(images, tmp_path, 2)])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch-2.png", "epoch-4.png"]
    picture = np.asarray(Image.open(tmp_path / "epoch-2.png").convert("RGB"))
    assert picture.shape[1] > 300
    assert picture.std() > 10


def test_a_row_for_each_number_of_levels(rng):
    images = rng.uniform(size=(2, 16, 16, 3))
    model = VQVAE2((16, 16, 3), 3, hidden_units=8, residual_units=4, downsample_factors=(2, 2, 2))
    rows = reconstruction_rows(model, images)
    assert list(rows) == ["original", "reconstruction", "top + middle only", "top only"]
    codes = model.encode(images)
    np.testing.assert_array_equal(rows["top only"], model.decode({"top": codes["top"]}))
    assert all(row.shape == images.shape for row in rows.values())


def test_bad_interval():
    with pytest.raises(ValueError, match="every=0"):
        ReconstructionGrid(np.zeros((1, 8, 8, 3)), "pictures", every=0)


def test_channels_that_no_picture_shows_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"one or three channels.*\(2, 16, 16, 2\)"):
        ReconstructionGrid(np.zeros((2, 16, 16, 2)), tmp_path)
