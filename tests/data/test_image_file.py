import numpy as np
import pytest
from PIL import Image

from keras_vqvae2.data import images_from_folder, list_images, read_image


def test_one_picture_is_as_in_a_folder_of_many(tmp_path, rng):
    Image.fromarray(rng.integers(256, size=(30, 50, 3), dtype="uint8")).save(tmp_path / "a.png")
    (path,) = list_images(tmp_path)
    pixels = read_image(path, (16, 24))
    assert pixels.shape == (16, 24, 3) and pixels.dtype == np.uint8
    (image,) = next(iter(images_from_folder(tmp_path, (16, 24), engine="grain")))
    np.testing.assert_allclose(np.asarray(image), pixels / 255, atol=1e-6)


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    for name in ("text.png", "none.png"):
        with pytest.raises(OSError, match=name):
            read_image(tmp_path / name, 16)
