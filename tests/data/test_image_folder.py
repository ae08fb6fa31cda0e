import resource
import shutil
import struct
import warnings

import numpy as np
import pytest
from PIL import Image

from keras_vqvae2.data import Options, class_names, image_folder, images_from_folder
from keras_vqvae2.data.image_folder import decode, list_images


def pixels(seed=0, size=(20, 24)):
    return np.random.default_rng(seed).integers(256, size=(*size, 3), dtype="uint8")


@pytest.fixture
def folder(tmp_path):
    """Twelve images in three classes, all 20x24."""
    for i in range(12):
        path = tmp_path / f"class_{i % 3}" / f"{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels(i)).save(path)
    return tmp_path


def everything(dataset):
    return [np.asarray(batch) for batch in dataset.as_numpy_iterator()]


def test_images_of_the_right_size_come_through_bit_for_bit(folder):
    batches = everything(images_from_folder(folder, (20, 24), batch_size=5))
    assert [b.shape for b in batches] == [(5, 20, 24, 3), (5, 20, 24, 3), (2, 20, 24, 3)]
    assert batches[0].dtype == np.float32
    order = [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]  # by class folder, then name
    for image, i in zip(np.concatenate(batches), order):
        np.testing.assert_array_equal(image, pixels(i).astype("float32") / np.float32(255))


def test_labels_come_from_folder_names(folder):
    assert class_names(folder) == ["class_0", "class_1", "class_2"]
    dataset = images_from_folder(folder, 16, labels=True, shuffle=True, batch_size=12)
    ((images, labels),) = dataset.as_numpy_iterator()
    assert images.shape == (12, 16, 16, 3)
    assert labels.dtype == np.int32
    assert sorted(labels) == [0] * 4 + [1] * 4 + [2] * 4


def test_center_crop_and_resize(tmp_path):
    Image.fromarray(pixels(size=(40, 60))).save(tmp_path / "a.png")
    (image,) = everything(images_from_folder(tmp_path, 30, resize=False))[0]
    expected = pixels(size=(40, 60))[5:35, 15:45] / 255
    np.testing.assert_allclose(image, expected, atol=1e-6)
    (image,) = everything(images_from_folder(tmp_path, 20))[0]
    small = Image.fromarray(pixels(size=(40, 60))).resize((30, 20), Image.Resampling.LANCZOS)
    np.testing.assert_allclose(image, np.asarray(small)[:, 5:25] / 255, atol=1e-6)
    # Too small for the size: scaled up to cover it whatever `resize` says.
    for resize in (None, False, 10):
        (image,) = everything(images_from_folder(tmp_path, 100, resize=resize))[0]
        assert image.shape == (100, 100, 3)


def test_random_crops_cover_all_places(folder):
    dataset = images_from_folder(folder, 19, 12, repeat=True, crop="random", resize=False)
    seen = set()
    for batch in dataset.take(20).as_numpy_iterator():
        first = np.round(batch[0] * 255).astype("uint8")  # epoch after epoch the same file
        for top in range(2):
            for left in range(6):
                if (pixels(0)[top : top + 19, left : left + 19] == first).all():
                    seen.add((top, left))
    assert len(seen) >= 6


def test_flip_mirrors_about_half(folder):
    dataset = images_from_folder(folder, (20, 24), flip=True, repeat=True, batch_size=12)
    plain = np.concatenate(everything(images_from_folder(folder, (20, 24))))
    flipped = 0
    for batch in dataset.take(10).as_numpy_iterator():
        for image, original in zip(batch, plain):
            mirrored = (image == original[:, ::-1]).all()
            assert mirrored or (image == original).all()
            flipped += mirrored
    assert 40 <= flipped <= 80


def test_orders(folder):
    def labels(**options):
        dataset = images_from_folder(folder, 16, 12, labels=True, repeat=True, **options)
        return [list(map(float, x.mean((1, 2, 3)))) for x, _ in dataset.take(2).as_numpy_iterator()]

    first, second = labels(shuffle=True)
    assert sorted(first) == sorted(second) and first != second
    assert labels(shuffle=True) == [first, second]
    assert labels(shuffle=True, seed=1)[0] != first


@pytest.mark.parametrize("start_step", [1, 2, 5])
def test_start_step_goes_on_exactly(folder, start_step):
    options = {"shuffle": True, "repeat": True, "crop": "random", "flip": True, "seed": 3}
    whole = everything(images_from_folder(folder, 16, 5, **options).take(start_step + 3))
    rest = everything(images_from_folder(folder, 16, 5, start_step=start_step, **options).take(3))
    for a, b in zip(whole[start_step:], rest, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1", "I;16"])
def test_any_mode(tmp_path, mode):
    image = Image.fromarray(pixels())
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype("uint16") * 256)
    elif mode in ("LA", "RGBA"):
        image.putalpha(255)
        image = image.convert(mode)
    else:
        image = image.convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path)
    (result,) = everything(images_from_folder(tmp_path, (20, 24)))[0]
    gray = np.asarray(Image.fromarray(pixels()).convert("L")) / 255
    if mode in ("L", "LA", "I;16"):
        np.testing.assert_allclose(result[..., 0], gray, atol=1 / 255)
        np.testing.assert_array_equal(result[..., 0], result[..., 1])
    if mode == "RGBA":
        np.testing.assert_allclose(result, pixels() / 255, atol=1e-6)
    assert result.shape == (20, 24, 3)


def tiff(pixels, sample_format):
    """A TIFF that Pillow does not write: unsigned integers of 32 bits, signed ones of 16."""
    (height, width), bits = pixels.shape, 8 * pixels.itemsize
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height}
    tags |= {279: pixels.nbytes, 339: sample_format}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    header = struct.pack("<2sHI", b"II", 42, 8 + pixels.nbytes)
    return header + pixels.tobytes() + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(
    "dtype, most, suffix",
    [
        ("float32", 1, "tif"),
        ("float32", 1.02, "tif"),  # resized with overshoot
        ("float32", 255, "tif"),
        ("float32", 65535, "tif"),
        ("int32", 255, "tif"),
        ("int32", 65535, "tif"),
        ("int32", 2**31 - 1, "tif"),
        ("uint32", 2**32 - 1, "tif"),
        ("int16", 2**15 - 1, "tif"),
        ("uint16", 65535, "tif"),
        ("uint16", 65535, "png"),
        ("uint16", 65535, "pgm"),
        ("uint16", 300, "png"),  # dark, as its 16 bits say
    ],
)
def test_deep_pixels_are_scaled(tmp_path, dtype, most, suffix):
    ramp = np.linspace(0, 1, 32) * np.ones((32, 1))
    pixels = (ramp * most).astype(dtype)
    if dtype in ("uint32", "int16"):
        (tmp_path / "a.tif").write_bytes(tiff(pixels, 2 if dtype == "int16" else 1))
    else:
        Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
    (image,) = decode(tmp_path / f"a.{suffix}", Options(32))[None] / 255
    expected = np.minimum(ramp * {300: 300 / 65535, 1.02: 1.02}.get(most, 1), 1)
    np.testing.assert_allclose(image, np.repeat(expected[..., None], 3, -1), atol=0.01)


@pytest.mark.parametrize("dtype, most", [("int32", 2**31 - 1), ("uint32", 2**32 - 1)])
def test_deep_pixels_of_a_long_image_are_scaled_alike(tmp_path, dtype, most):
    """Its middle is cut out first, and no longer knows the file's tags."""
    pixels = (np.full((2, 4000), 0.75) * most).astype(dtype)
    (tmp_path / "a.tif").write_bytes(tiff(pixels, 2 if dtype == "int32" else 1))
    image = decode(tmp_path / "a.tif", Options(32))
    assert image.mean() == pytest.approx(0.75 * 255, abs=1)


@pytest.mark.parametrize("shape", [(32, 32), (2, 4000)])
def test_pixels_of_12_bits(tmp_path, shape):
    values = np.arange(shape[0] * shape[1]).reshape(-1, 2) % 4096
    packed = [values[:, 0] >> 4, (values[:, 0] & 15) << 4 | values[:, 1] >> 8, values[:, 1] & 255]
    packed = np.stack(packed, -1).astype("uint8").tobytes()
    data = bytearray(tiff(values.astype("uint16").reshape(shape), 1))
    entries = data[8 + values.size * 2 :]
    entries = entries.replace(
        struct.pack("<HHII", 258, 4, 1, 16), struct.pack("<HHII", 258, 4, 1, 12)
    )
    header = struct.pack("<2sHI", b"II", 42, 8 + len(packed))
    (tmp_path / "a.tif").write_bytes(header + packed + entries)
    rows, columns = shape
    middle = values.reshape(shape)[:, max(0, columns // 2 - 16) : columns // 2 + 16]
    image = decode(tmp_path / "a.tif", Options(32))
    assert image.mean() == pytest.approx(middle.mean() / 4095 * 255, abs=2)


@pytest.mark.parametrize("pixels", [[-1.0, 1.0], [0.0, 5.0], [0.0, 1e9], [np.nan, 1.0]])
def test_pixels_of_no_known_scale_are_not_guessed(tmp_path, pixels):
    Image.fromarray(np.array([pixels], "float32")).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="none decodes.*brightest pixel from an eighth of 1 or"):
        images_from_folder(tmp_path, 8)


def test_transparency_is_laid_on_white(tmp_path):
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "a.png")
    (image,) = everything(images_from_folder(tmp_path, 8))[0]
    np.testing.assert_array_equal(image, np.ones((8, 8, 3)))


def test_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(pixels()).save(tmp_path / "a.png", exif=exif)
    (image,) = everything(images_from_folder(tmp_path, (24, 20)))[0]
    np.testing.assert_allclose(image, np.rot90(pixels(), -1) / 255, atol=1e-6)


def break_files(folder, count):
    for path in sorted(folder.rglob("*.png"))[:count]:
        path.write_bytes(path.read_bytes()[:60])


def test_files_that_do_not_decode_are_named_in_one_warning(folder):
    break_files(folder, 2)
    with pytest.warns(UserWarning) as caught:
        images = np.concatenate(everything(images_from_folder(folder, 16, batch_size=4)))
    assert len(images) == 10
    (warning,) = [w for w in caught if "decode" in str(w.message)]
    assert "2 of 12 files do not decode" in str(warning.message)
    assert "00.png" in str(warning.message) and "03.png" in str(warning.message)


def test_a_run_goes_on_exactly_over_files_that_do_not_decode(folder):
    break_files(folder, 2)
    options = {"batch_size": 2, "shuffle": True, "repeat": True, "seed": 3}
    with pytest.warns(UserWarning, match="replaced by the next"):
        whole = list(images_from_folder(folder, 8, **options).take(8))
    rest = list(images_from_folder(folder, 8, start_step=5, **options).take(3))
    for a, b in zip(rest, whole[5:], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_repeated_run_warns_once(folder):
    break_files(folder, 1)
    dataset = images_from_folder(folder, 16, batch_size=11, repeat=True)
    with pytest.warns(UserWarning) as caught:
        assert len(everything(dataset.take(5))) == 5
    assert len([w for w in caught if "1 of 12 files" in str(w.message)]) == 1


@pytest.mark.parametrize("repeat", [False, True])
def test_no_file_decodes(folder, repeat):
    break_files(folder, 12)
    with pytest.raises(ValueError, match="12 files of which none decodes"):
        images_from_folder(folder, 16, repeat=repeat)


def test_other_and_hidden_files_are_passed_over(folder):
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "a.png").write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert sum(len(b) for b in everything(images_from_folder(folder, 16))) == 12


def test_bad_folders(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="Received: directory=.*nowhere"):
        images_from_folder(tmp_path / "nowhere", 16)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"\.jpg.*Received: a folder without any"):
        images_from_folder(tmp_path / "empty", 16)
    with pytest.raises(ValueError, match="class folder.*4 images without one.*'00.png'"):
        images_from_folder(folder / "class_0", 16, labels=True)


@pytest.mark.parametrize("engine", ["tf.data", "grain"])
def test_a_process_reads_its_own_files_only(folder, engine):
    pytest.importorskip("grain")
    options = {"batch_size": 6, "labels": True, "engine": engine}
    whole = list(images_from_folder(folder, 16, **options))
    share = images_from_folder(folder, 16, num_processes=3, process_index=1, **options)
    own = {f"{i:02}.png" for i in (6, 9, 2, 5)}  # rows 2 and 3 of both batches
    for path in folder.rglob("*.png"):
        if path.name not in own:
            path.unlink()
    for (images, labels), (all_images, all_labels) in zip(share, whole, strict=True):
        np.testing.assert_array_equal(images, all_images[2:4])
        np.testing.assert_array_equal(labels, all_labels[2:4])


def test_processes_replace_files_that_do_not_decode(folder):
    whole = np.concatenate(everything(images_from_folder(folder, 16)))
    break_files(folder, 2)  # the first in each pass: 00 and 03
    for index, places in ((0, [2, 2, 2]), (1, [3, 4, 5])):
        options = {"batch_size": 6, "num_processes": 2, "process_index": index}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            first, second = everything(images_from_folder(folder, 16, **options))
        np.testing.assert_array_equal(first, whole[places])
        np.testing.assert_array_equal(second, whole[[6 + 3 * index + i for i in range(3)]])
        messages = [str(w.message) for w in caught if "decode" in str(w.message)]
        assert len(messages) == 1 - index
        assert all("2 of 12 files do not decode and are replaced" in m for m in messages)


@pytest.mark.parametrize("size", [(4000, 1), (1, 4000)])
def test_slivers_are_not_blown_up(tmp_path, size):
    image = Image.new("RGB", size, "red")
    image.paste("blue", (1990 * (size[0] > 1), 1990 * (size[1] > 1), 2010, 2010))
    image.save(tmp_path / "a.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    options = Options(128)
    pixels = decode(tmp_path / "a.png", options)
    assert sorted(pixels.shape[:2]) == [128, 2048] == sorted(options.scaled_size(*size))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024
    np.testing.assert_array_equal(pixels[pixels.shape[0] // 2, pixels.shape[1] // 2], [0, 0, 255])
    assert Options(8, resize=1000).scaled_size(20, 20) == (150, 150)  # the middle 3 of 20 pixels


def test_of_a_large_strip_the_middle_is_kept(tmp_path, monkeypatch):
    Image.new("RGB", (50, 4000), (200, 200, 200)).save(tmp_path / "strip.png")
    monkeypatch.setattr(image_folder, "LARGE", 10_000)
    strip = decode(tmp_path / "strip.png", Options(52))
    assert strip.shape == (832, 52, 3) and (strip == 200).all()


@pytest.mark.parametrize("kind", ["jpg", "png", "P", "LA"])
def test_large_pictures_are_reduced_before_they_are_copied(tmp_path, monkeypatch, kind):
    ramp = Image.linear_gradient("L").resize((400, 300), Image.Resampling.BILINEAR)
    path = tmp_path / f"a.{kind if kind in ('jpg', 'png') else 'png'}"
    ramp.convert(kind if kind in ("P", "LA") else "RGB").save(path)
    options = Options(32)
    expected = decode(path, options)
    monkeypatch.setattr(image_folder, "LARGE", 10_000)
    # JPEG is halved while it is decoded, so that it passes below Pillow's limit.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60_000 if kind == "jpg" else 120_000)
    np.testing.assert_allclose(decode(path, options), expected, atol=4)
    if kind != "jpg":
        assert decode(path, Options(32, resize=False)).shape == (300, 400, 3)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 61_000)
        with pytest.raises(ValueError, match=r"at most 61000 pixels. Received: \(400, 300\)"):
            decode(path, options)


def test_all_that_pillow_reads_is_found_and_the_rest_named(tmp_path):
    names = ["a.jfif", "b.avif", "c.ppm", "d.jpe", "e.jp2", "f.pgm", "g.JPG", "h.tga"]
    for name in names:
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert [path.removeprefix(f"{tmp_path}/") for path in list_images(tmp_path)] == names
    for name in ("i.heic", "j.HEIC", "k.eps", "without_suffix", "notes.txt", "labels.csv"):
        (tmp_path / name).write_bytes(b"")
    with pytest.warns(UserWarning, match="4 files in .*heic.*without_suffix") as caught:
        images_from_folder(tmp_path, 8)
    assert len(caught) == 1
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.heic").write_bytes(b"")
    with pytest.raises(ValueError, match="without any, but 1 other files"):
        images_from_folder(tmp_path / "none", 8)


def test_links_to_folders_are_followed_but_not_in_circles(folder, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    shutil.move(folder / "class_1", store / "class_1")
    (folder / "class_1").symlink_to(store / "class_1")
    files = list_images(folder)
    assert len(files) == 12 and class_names(folder) == ["class_0", "class_1", "class_2"]
    (store / "class_1" / "up").symlink_to(folder)
    (store / "class_1" / "self").symlink_to(store / "class_1" / "self")
    (folder / "class_0" / "round").symlink_to(folder / "class_0")
    assert list_images(folder) == files
    (folder / "class_0" / "other").symlink_to(folder / "class_2")  # once more, as class_0
    assert len(list_images(folder)) == 16
    labels = np.concatenate([y for _, y in images_from_folder(folder, 16, labels=True)])
    np.testing.assert_array_equal(labels, [0] * 8 + [1] * 4 + [2] * 4)
    (folder / "class_0" / "gone.png").symlink_to(folder / "nowhere.png")
    with pytest.warns(UserWarning, match="1 of 17 files do not decode.*gone.png"):
        assert sum(len(batch) for batch in images_from_folder(folder, 16)) == 16


def test_empty_and_absent_classes_keep_their_labels(folder):
    def labels(**options):
        return np.concatenate(
            [y for _, y in images_from_folder(folder, 16, labels=True, **options)]
        )

    for path in (folder / "class_1").iterdir():
        path.unlink()
    with pytest.warns(UserWarning, match="1 class folders .* no images .*labels: class_1"):
        np.testing.assert_array_equal(labels(), [0] * 4 + [2] * 4)
    (folder / "class_1").rmdir()
    names = ["class_2", "class_1", "other", "class_0"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        np.testing.assert_array_equal(labels(), [0] * 4 + [1] * 4)
        np.testing.assert_array_equal(labels(class_names=names), [3] * 4 + [0] * 4)
    with pytest.raises(ValueError, match=r"class_names=\['class_0'\] and 1 other .*'class_2'"):
        labels(class_names=["class_0"])
    with pytest.raises(ValueError, match="Expected different class_names"):
        labels(class_names=["class_0", "class_2", "class_2"])
    with pytest.raises(ValueError, match="labels=True beside class_names"):
        images_from_folder(folder, 16, class_names=names)


@pytest.mark.parametrize(
    "options", [{}, {"repeat": True}, {"engine": "grain", "repeat": True}, {"num_processes": 2}]
)
def test_a_folder_that_vanishes_ends_the_search(folder, options):
    if "engine" in options:
        pytest.importorskip("grain")
    dataset = images_from_folder(folder, 16, 4, **options)
    shutil.rmtree(folder)
    with pytest.raises(Exception, match="12 files of which none decodes now, the last.*NotFound"):
        list(dataset)


def test_files_that_vanish_later_are_named_too(folder):
    dataset = images_from_folder(folder, 16)
    assert [len(batch) for batch in dataset] == [12]
    shutil.rmtree(folder / "class_1")
    with pytest.warns(UserWarning, match="4 of 12 files do not decode and are left out") as caught:
        assert [len(batch) for batch in dataset] == [8]
        assert [len(batch) for batch in dataset] == [8]
    assert len([w for w in caught if "decode" in str(w.message)]) == 1
