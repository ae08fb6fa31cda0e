import warnings

import numpy as np
import pytest
from PIL import Image

from keras_vqvae2.data import class_names, images_from_folder


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
