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


def rejected(done):
    assert done.code == 1 and "Traceback" not in done.err and "output:" not in done.out
    return done.err


def test_an_original_is_not_replaced_by_its_reconstruction(call, images, tmp_path):
    flags = ["--preset=vqvae2_clothing_64", "--coding=packed"]
    original = (images / "0.png").read_bytes()
    for output in (images, images / "below"):
        done = call("compress", *flags, f"--files={images}", f"--output={output}")
        assert "Expected an --output outside the folders of --files" in rejected(done)
    # Named one by one, files may be written beside their images.
    beside = f"--output={images}"
    assert call("compress", *flags, f"--files={images / '0.png'}", beside).code == 0
    back = [*flags, f"--files={images / '0.vqc'}"]
    done = call("compress", *back, beside)
    assert f"Received: {images / '0.png'}, the first of 1 from elsewhere" in rejected(done)
    done = call("compress", *flags, f"--files={images}", f"--output={tmp_path / 'out'}")
    assert "with 2 images, the first" in rejected(done) and "and 1 .vqc files" in done.err
    assert (images / "0.png").read_bytes() == original and not (tmp_path / "out").exists()
    for _ in range(2):  # what it wrote itself is replaced
        assert call("compress", *back, f"--output={tmp_path / 'back'}").code == 0


def test_a_folder_named_from_where_one_is(call, images, monkeypatch):
    monkeypatch.chdir(images.parent)
    flags = ["--preset=vqvae2_clothing_64", "--coding=packed"]
    done = call("compress", *flags, "--files=in", "--output=out/vqc")
    assert done.code == 0, done.err
    names = sorted(path.name for path in (images.parent / "out" / "vqc").iterdir())
    assert names == ["0.vqc", "1.vqc"]


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_a_turned_photograph_is_coded_upright(call, images, tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned = images / f"turned.{suffix}"
    with Image.open(images / "0.png") as image:
        image.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)
    flags = ["--preset=vqvae2_clothing_64", "--coding=packed", f"--output={tmp_path / 'vqc'}"]
    done = call("compress", *flags, f"--files={images / '0.png'},{turned}")
    assert done.code == 0, done.err
    upright, again = ((tmp_path / "vqc" / f"{name}.vqc").read_bytes() for name in ("0", "turned"))
    assert upright == again
