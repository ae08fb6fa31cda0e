"""Photographs to .vqc files and back, by the bundled presets' own codes."""

import numpy as np
import pytest
from PIL import Image

from keras_vqvae2 import VQVAE2
from keras_vqvae2.compression import decompress_codes
from keras_vqvae2.data import sample_photographs


@pytest.fixture
def images(tmp_path):
    for i, image in enumerate(sample_photographs(40)[:2]):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(image[:, :37]).save(tmp_path / "in" / f"{i}.png")
    return tmp_path / "in"


def test_there_and_back(call, images, tmp_path):
    flags = ["--preset=vqvae2_clothing_64", "--coding=packed"]
    done = call("compress", *flags, f"--files={images}", f"--output={tmp_path / 'vqc'}")
    assert done.code == 0, done.err
    size = 17 + (5 * 4 + 10 * 8) * 9 // 8 + 1 + 4
    assert f"| 0.png | 40x32 | {size}" in done.out.replace("  ", " ")
    done = call("compress", *flags, f"--files={tmp_path / 'vqc'}", f"--output={tmp_path / 'back'}")
    assert done.code == 0, done.err
    vqvae = VQVAE2.from_preset("vqvae2_clothing_64")
    for name in "01":
        data = (tmp_path / "vqc" / f"{name}.vqc").read_bytes()
        assert len(data) == size
        wanted = vqvae.decode(decompress_codes(vqvae, data))[0]
        with Image.open(tmp_path / "back" / f"{name}.png") as image:
            np.testing.assert_allclose(np.asarray(image) / 255, wanted, atol=0.51 / 255)


def test_bad_input_is_one_sentence(call, images, tmp_path):
    preset, output = "--preset=vqvae2_clothing_64", f"--output={tmp_path / 'out'}"

    def refused(*flags):
        done = call("compress", preset, output, "--coding=packed", *flags)
        assert done.code == 1 and "Traceback" not in done.err
        return done.err

    assert "Expected a file or a folder" in refused(f"--files={tmp_path / 'nothing'}")
    assert "several called 0" in refused(f"--files={images / '0.png'},{images / '0.png'}")
    (tmp_path / "broken.vqc").write_bytes(b"\x93VQC\1")
    assert "Expected a whole .vqc file" in refused(f"--files={tmp_path / 'broken.vqc'}")
    (tmp_path / "empty").mkdir()
    assert "compress: Expected" in refused(f"--files={tmp_path / 'empty'}")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
