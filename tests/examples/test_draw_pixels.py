import numpy as np
import pytest
from PIL import Image

from keras_vqvae2 import PixelCNN, PixelCNNPlusPlus


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pixels") / "preset"
    sizes = {"hidden_units": 4, "num_blocks": 1, "num_mixtures": 1}
    PixelCNNPlusPlus((4, 4, 3), num_classes=2, **sizes).save_to_preset(folder)
    return folder


def test_the_picture_has_a_row_a_class(call, preset, tmp_path):
    flags = [f"--preset={preset}", f"--output={tmp_path}/out", "--images_per_class=3", "--seed=2"]
    done = call("draw_pixels", *flags, "--class_names=ant,bee")
    assert done.code == 0, done.err
    assert "draw 6 images of 2 classes" in done.out and "6 images in" in done.out
    images = np.load(tmp_path / "out" / "images.npy")
    assert images.shape == (6, 4, 4, 3) and images.dtype == np.uint8
    expected = PixelCNNPlusPlus.from_preset(preset).generate(
        6, [0, 0, 0, 1, 1, 1], seed=2, verbose=0
    )
    np.testing.assert_array_equal(images, expected)
    width, height = Image.open(tmp_path / "out" / "images.png").size
    assert width > height


def test_without_classes(call, tmp_path):
    PixelCNN((4, 4, 1), hidden_units=2, num_layers=1, head_units=4).save_to_preset(tmp_path / "p")
    flags = [f"--preset={tmp_path}/p", f"--output={tmp_path}/out", "--images_per_class=2"]
    assert call("draw_pixels", *flags).code == 0
    assert np.load(tmp_path / "out" / "images.npy").shape == (2, 4, 4, 1)


def test_colours_that_no_picture_shows_are_refused_first(call, tmp_path):
    PixelCNN((4, 4, 2), hidden_units=2, num_layers=1, head_units=4).save_to_preset(tmp_path / "p")
    done = call("draw_pixels", f"--preset={tmp_path}/p", f"--output={tmp_path}/out")
    assert done.code == 1 and "Expected a model of images with 1 or 3 colours" in done.err
    assert not (tmp_path / "out" / "images.npy").exists()


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--class_names=ant", "Expected 2 names, one a class of the model. Received"),
        ("--temperature=0", "temperature"),
        ("--preset=no_such", "Expected the name of a preset of PixelModel"),
    ],
)
def test_errors_are_one_sentence(call, preset, tmp_path, flag, message):
    done = call("draw_pixels", f"--preset={preset}", f"--output={tmp_path}/out", flag)
    assert done.code == 1 and message in done.err and done.err.count("\n") == 1
