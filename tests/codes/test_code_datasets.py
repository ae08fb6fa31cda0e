"""`encode_dataset` and `codes_from_tfds`, each the other's test."""

import json
import os
import resource
import shutil
import signal

import keras
import numpy as np
import pytest

from keras_vqvae2 import VQVAE2, HierarchicalImageGenerator, PixelSnailPrior
from keras_vqvae2.codes import codes_from_tfds, encode_dataset, prior_arguments
from keras_vqvae2.data import images_from_arrays
from keras_vqvae2.layers import ResidualVectorQuantizer, VectorQuantizerEMA
from keras_vqvae2.models.vqvae2.vqvae2 import fingerprint_of


def small(**changes):
    arguments = {"hidden_units": 8, "residual_units": 4, "num_embeddings": 300, **changes}
    return VQVAE2((16, 16, 3), **arguments)


@pytest.fixture(scope="module")
def vqvae():
    keras.utils.set_random_seed(0)
    return small()


@pytest.fixture
def images(rng):
    return rng.integers(256, size=(11, 16, 16, 3), dtype="uint8")


LABELS = np.arange(11) % 3


def source(images):
    return images_from_arrays(images, batch_size=4, labels=LABELS)


def files(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_codes_labels_ids_and_flips_come_back(vqvae, images, tmp_path):
    import tensorflow_datasets as tfds

    path = encode_dataset(
        vqvae, source(images), tmp_path / "codes", class_names="abc", flips=True, shard_size=5,
        verbose=0,
    )  # fmt: skip
    batch = next(iter(codes_from_tfds(path, 30, vqvae=vqvae)))
    assert list(batch) == ["top", "bottom", "label"]
    for start, pixels in ((0, images), (11, images[:, :, ::-1])):
        codes = vqvae.encode(pixels)
        for level in codes:
            found = batch[level].numpy()[start : start + 11]
            assert found.dtype == np.int32
            np.testing.assert_array_equal(found, codes[level])
        np.testing.assert_array_equal(batch["label"].numpy()[start : start + 11], LABELS)
    info = tfds.builder_from_directory(path).info
    assert info.splits["train"].shard_lengths == [5, 5, 5, 5, 2]
    assert info.features["top"].np_dtype == np.uint16
    assert info.features["label"].names == ["a", "b", "c"]
    assert info.metadata["fingerprint"] == vqvae.fingerprint()
    examples = list(tfds.builder_from_directory(path).as_data_source("train"))
    assert [example["image_id"] for example in examples] == [*range(11), *range(11)]
    assert [bool(example["flipped"]) for example in examples] == [False] * 11 + [True] * 11


def test_another_split_joins_and_a_finished_one_is_left_alone(vqvae, images, tmp_path):
    encode_dataset(vqvae, source(images), tmp_path, verbose=0)
    encode_dataset(vqvae, source(images[::-1]), tmp_path, "validation", verbose=0)
    before = files(tmp_path)
    encode_dataset(vqvae, source(images), tmp_path, verbose=0)
    assert files(tmp_path) == before
    sizes = [len(list(codes_from_tfds(tmp_path, 1, split=s))) for s in ("train", "validation")]
    assert sizes == [11, 11]
    assert len(list(codes_from_tfds(tmp_path, 1, split="validation[:3]"))) == 3


def test_small_codebooks_take_a_byte_a_code(images, tmp_path):
    import tensorflow_datasets as tfds

    encode_dataset(small(num_embeddings=256), images, tmp_path, verbose=0)
    features = tfds.builder_from_directory(tmp_path).info.features
    assert features["top"].np_dtype == np.uint8 and "label" not in features
    assert list(next(iter(codes_from_tfds(tmp_path)))) == ["top", "bottom"]


@pytest.mark.parametrize("finished", [0, 1, 3])
def test_a_kill_after_any_shard_changes_nothing_in_the_end(vqvae, images, tmp_path, finished):
    arguments = {"flips": True, "shard_size": 6, "verbose": 0}
    encode_dataset(vqvae, source(images), tmp_path / "whole", **arguments)

    killed = tmp_path / "killed"

    class Source:
        """Ends the process, so to say, when so many shards are there."""

        def __iter__(self):
            yield next(iter(source(images)))  # the look at the first batch
            for batch in source(images).skip(1):
                if len(list(killed.glob("train.array_record-*"))) >= finished:
                    raise KeyboardInterrupt
                yield batch

    with pytest.raises(KeyboardInterrupt):
        encode_dataset(vqvae, Source(), killed, **arguments)
    with pytest.raises(FileNotFoundError, match="that encode_dataset has finished"):
        codes_from_tfds(killed)
    encode_dataset(vqvae, source(images), killed, **arguments)
    assert files(killed) == files(tmp_path / "whole")


def open_later(images, start_step, read=None):
    for i in range(4 * start_step, len(images), 4):
        if read is not None:
            read.append(i)
        yield images[i : i + 4], LABELS[i : i + 4]


@pytest.mark.parametrize("num_workers", [3, 9])  # there are 8 shards
def test_several_workers_write_the_files_of_one(vqvae, images, tmp_path, num_workers):
    import tensorflow_datasets as tfds

    arguments = {"flips": True, "shard_size": 3, "verbose": 0}
    one = encode_dataset(vqvae, source(images), tmp_path / "one", **arguments)
    read = [[] for _ in range(num_workers)]
    for worker in reversed(range(num_workers)):
        several = encode_dataset(
            vqvae,
            lambda start_step, worker=worker: open_later(images, start_step, read[worker]),
            tmp_path / "several",
            num_images=11,
            num_workers=num_workers,
            worker=worker,
            **arguments,
        )
    # Which worker wrote what does not show, but in the number of images that one had to be told.
    expected, found = files(one), files(several)
    settings = [json.loads(f.pop("train.encoding.json")) for f in (expected, found)]
    assert settings[1] == {**settings[0], "num_examples": 22}
    assert found == expected
    assert tfds.builder_from_directory(several).info.splits["train"].shard_lengths == [3] * 7 + [1]
    # The look at the first batch, then its own, and a batch at most that another worker has too.
    assert all(batches[0] == 0 and len(batches) <= 6 // num_workers + 4 for batches in read)


def test_workers_read_any_source(vqvae, images, tmp_path):
    one = encode_dataset(vqvae, images, tmp_path / "array", shard_size=4, verbose=0)
    # Batches of 4 in place of 32: the same codes (but for numbers so close that rounding decides).
    batches = [images[:4], images[4:8], images[8:]]
    passes = [lambda start_step: batches[start_step:]]
    for name, form in (("array", images), ("list", batches), ("functions", passes)):
        for worker in range(2):
            options = {"num_workers": 2, "worker": worker, "num_images": 11, "shard_size": 4}
            path = encode_dataset(vqvae, form, tmp_path / f"{name}_2", verbose=0, **options)
        assert files(path) == files(one)


def test_a_killed_worker_resumes_and_leaves_the_others_alone(vqvae, images, tmp_path):
    arguments = {"flips": True, "shard_size": 3, "verbose": 0, "num_images": 11}
    one = encode_dataset(vqvae, source(images), tmp_path / "one", **arguments)
    path = tmp_path / "several"

    def work(worker, images):
        encode_dataset(vqvae, images, path, num_workers=2, worker=worker, **arguments)

    def killed(start_step):
        for batch in source(images).skip(start_step):
            if (path / "train.array_record-00004").exists():
                raise KeyboardInterrupt
            yield batch

    # What a worker was at when it was killed. It is another's to clean up.
    unfinished = path / ".train.array_record-00001-x"
    unfinished.mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        work(1, killed)
    assert sorted(p.name for p in path.glob("train.array*")) == ["train.array_record-00004"]
    assert unfinished.exists()
    work(0, source(images))
    assert not unfinished.exists()
    before = {p: p.stat().st_mtime_ns for p in path.glob("train.array_record-*")}
    assert len(before) == 5 and not (path / "dataset_info.json").exists()
    work(1, lambda start_step: open_later(images, start_step))
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert files(path) == files(one)


def test_workers_that_meet_at_the_end_both_write_the_metadata(vqvae, images, tmp_path):
    arguments = {"shard_size": 6, "verbose": 0, "num_workers": 2}
    for worker in range(2):
        path = encode_dataset(vqvae, images, tmp_path, worker=worker, **arguments)
    before = files(path)
    (path / "dataset_info.json").unlink()  # killed there: all shards, and not yet a data set
    encode_dataset(vqvae, images, path, worker=0, **arguments)
    assert files(path) == before


def test_workers_agree_on_settings_and_number(vqvae, images, tmp_path):
    arguments = {"num_workers": 2, "shard_size": 4, "verbose": 0}
    encode_dataset(vqvae, images, tmp_path, **arguments)

    def second(source, message, **changes):
        with pytest.raises(ValueError, match=message):
            encode_dataset(vqvae, source, tmp_path, worker=1, **{**arguments, **changes})

    second(images, "Expected shard_size=4, with which .*shard_size=5", shard_size=5)
    second(images, "Expected flips=False", flips=True)
    second(images[:9], "Expected num_examples=11, with which .*num_examples=9")
    second(images, "Expected 11. Received: num_images=12", num_images=12)
    second(list(images[None]), "the number of images .*Received: num_images=None")
    short, uneven = [images[:4], images[4:8]], [images[:4], images[4:7], images[7:]]
    second(uneven, "Expected batches of 4 images.*Received: 3 images behind", num_images=11)
    second(short, "Expected num_images=11 in a pass.*Received: 8", num_images=11)
    second([*short, images[:4]], "Received: at least 12", num_images=11)
    with pytest.raises(ValueError, match="integer below 2. Received: worker=2"):
        encode_dataset(vqvae, images, tmp_path, worker=2, **arguments)
    with pytest.raises(ValueError, match="Received: num_workers=0"):
        encode_dataset(vqvae, images, tmp_path, num_workers=0)
    # The settings of a worker that started at the same moment took the place of one's own.
    path = tmp_path / "race"

    def late(start_step):
        if start_step:
            settings = path / "train.encoding.json"
            settings.write_text(settings.read_text().replace("false", "true"))
        yield images[4 * start_step :][:4]

    with pytest.raises(ValueError, match="Expected flips=True, with which .*race was begun"):
        encode_dataset(vqvae, late, path, worker=1, num_images=8, **arguments)


def test_splits_have_one_size_of_maps_and_one_numbering_of_classes(vqvae, images, tmp_path):
    labelled = [(images, np.arange(len(images)) % 2)]
    options = {"verbose": 0, "class_names": ["a", "b", "c"]}
    encode_dataset(vqvae, labelled, tmp_path, "train", **options)
    with pytest.raises(ValueError, match=r"'label': \['a', 'b', 'c'\]. Received: \['a', 'c'\]"):
        encode_dataset(vqvae, labelled, tmp_path, "held_out", **{**options, "class_names": "ac"})
    with pytest.raises(ValueError, match=r"'label': \['a', 'b', 'c'\]. Received: none"):
        encode_dataset(vqvae, [images], tmp_path, "held_out", verbose=0)
    large = [(images.repeat(2, axis=1).repeat(2, axis=2), labelled[0][1])]
    with pytest.raises(ValueError, match=r"with 'bottom': \("):
        encode_dataset(vqvae, large, tmp_path, "held_out", **options)
    assert not list(tmp_path.glob("held_out*"))
    encode_dataset(vqvae, labelled, tmp_path, "held_out", **options)


def test_another_number_of_passes_is_another_split(vqvae, images, tmp_path):
    def as_is(start_step):
        return iter([images[:8], images[8:]][start_step:])

    def negative(start_step):
        return (255 - batch for batch in as_is(start_step))

    encode_dataset(vqvae, [as_is], tmp_path, verbose=0)
    before = files(tmp_path)
    with pytest.raises(ValueError, match="Expected passes=1, with which .* Received: passes=2"):
        encode_dataset(vqvae, [as_is, negative], tmp_path, verbose=0)
    encode_dataset(vqvae, as_is, tmp_path, verbose=0)
    assert files(tmp_path) == before
    # Settings of before this was among them.
    path = tmp_path / "train.encoding.json"
    settings = json.loads(path.read_text())
    del settings["passes"]
    path.write_text(json.dumps(settings))
    encode_dataset(vqvae, as_is, tmp_path, verbose=0)
    assert len(list(codes_from_tfds(tmp_path, 1, vqvae=vqvae))) == 11


@pytest.mark.parametrize(
    "labels, received",
    [
        ([0.0, 1.0, 0.5, np.nan], r"shape \(4,\) and dtype float64"),
        ([[0], [1], [0], [1]], r"shape \(4, 1\) and dtype int64"),
        ([0, 1, 0], r"shape \(3,\) and dtype int64"),
        (1, r"shape \(\) and dtype int64"),
    ],
)
@pytest.mark.parametrize("batch", [0, 1])
def test_labels_that_are_no_integers_are_refused(vqvae, images, tmp_path, batch, labels, received):
    batches = [[images[:4], np.arange(4)], [images[4:8], np.arange(4)]]
    batches[batch][1] = labels
    message = f"a label for each of the 4 images of a batch, an integer. Received: .* {received}"
    with pytest.raises(ValueError, match=message):
        encode_dataset(vqvae, [*map(tuple, batches)], tmp_path, verbose=0)
    assert not list(tmp_path.glob("train.array_record*"))


def test_shuffled_epochs_are_permutations_and_resume_exactly(vqvae, images, tmp_path):
    encode_dataset(vqvae, source(images), tmp_path, verbose=0)
    options = {"shuffle": True, "repeat": True, "seed": 3}
    stream = [b["top"].numpy() for b in codes_from_tfds(tmp_path, 4, **options).take(8)]
    later = codes_from_tfds(tmp_path, 4, start_step=5, **options)
    for expected, batch in zip(stream[5:], later):
        np.testing.assert_array_equal(batch["top"].numpy(), expected)
    codes = {m.tobytes() for m in vqvae.encode(images)["top"]}
    epoch = np.concatenate(stream)[:11]
    assert {m.tobytes() for m in epoch} == codes
    assert any((a != b).any() for a, b in zip(epoch, vqvae.encode(images)["top"]))


def test_ten_kilobytes_hold_a_photograph_of_256x256(rng):
    # Shard files end on blocks of 64 KiB; the examples are what counts.
    import tensorflow_datasets as tfds

    from keras_vqvae2.codes.encode_dataset import _features

    vqvae = small(num_embeddings=512)
    features = _features(tfds, vqvae, (256, 256), True, None)
    codes = {k: rng.integers(512, size=s).astype("uint16") for k, s in
             vqvae.code_shapes((256, 256)).items()}  # fmt: skip
    example = {**codes, "image_id": 2**40, "flipped": True, "label": 999}
    assert {k: v.shape for k, v in codes.items()} == {"top": (32, 32), "bottom": (64, 64)}
    assert len(features.serialize_example(features.encode_example(example))) <= 10_240


def test_errors(vqvae, images, tmp_path):
    path = tmp_path / "codes"
    encode_dataset(vqvae, source(images), path, shard_size=5, verbose=0)
    other = small(num_embeddings=299)
    with pytest.raises(ValueError, match=f"Expected codes of the model.*{vqvae.fingerprint()}"):
        encode_dataset(other, source(images), path, "validation", verbose=0)
    with pytest.raises(ValueError, match="Expected shard_size=5, with which .* was begun"):
        encode_dataset(vqvae, source(images), path, shard_size=6, verbose=0)
    with pytest.raises(ValueError, match="Received: .*codes of the one with"):
        codes_from_tfds(path, vqvae=other)
    with pytest.raises(ValueError, match=r"splits \['train'\]. Received: split='test'"):
        codes_from_tfds(path, split="test")
    with pytest.raises(TypeError, match="crop"):
        codes_from_tfds(path, crop="random")
    with pytest.raises(ValueError, match="an empty source"):
        encode_dataset(vqvae, [], tmp_path / "empty", verbose=0)
    with pytest.raises(ValueError, match="read again from the start.*Received: generator"):
        encode_dataset(vqvae, (batch for batch in [images]), tmp_path / "once", verbose=0)
    shuffled = images_from_arrays(images, batch_size=4, shuffle=True)
    with pytest.raises(ValueError, match="reshuffle=False. Received: other images in the first"):
        encode_dataset(vqvae, shuffled, tmp_path / "shuffled", verbose=0)
    shuffled = images_from_arrays(images, batch_size=4, shuffle=True, reshuffle=False)
    encode_dataset(vqvae, shuffled, tmp_path / "held", flips=True, verbose=0)
    with pytest.raises(ValueError, match="plain name. Received: split='a/b'"):
        encode_dataset(vqvae, images, tmp_path / "x", "a/b", verbose=0)


@pytest.fixture(scope="module")
def finished(vqvae, tmp_path_factory):
    """Three shards of one length and one of another."""
    images = np.random.default_rng(1).integers(256, size=(11, 16, 16, 3), dtype="uint8")
    path = tmp_path_factory.mktemp("finished") / "codes"
    return encode_dataset(vqvae, images, path, shard_size=3, verbose=0)


@pytest.fixture
def damaged(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "codes")


def read_all(path, engine="tf.data"):
    return list(codes_from_tfds(path, 4, engine=engine))


def test_shards_that_encode_dataset_did_not_write_are_found(vqvae, damaged, tmp_path):
    def shard(index, directory=damaged):
        return directory / f"train.array_record-{index:05d}"

    other = np.random.default_rng(2).integers(256, size=(11, 16, 16, 3), dtype="uint8")
    foreign = encode_dataset(vqvae, other, tmp_path / "other", shard_size=3, verbose=0)
    whole = shard(1).read_bytes()
    for content in (shard(0).read_bytes(), shard(1, foreign).read_bytes(), whole[:-9], b""):
        shard(1).write_bytes(content)
        with pytest.raises(ValueError, match="of 3 examples .*another file .*00001; delete it"):
            read_all(damaged)
    shard(1).unlink()
    with pytest.raises(FileNotFoundError, match="all shards of 'train'. Received: no .*00001"):
        read_all(damaged)
    # What the message says mends it.
    (damaged / "dataset_info.json").unlink()
    images = np.random.default_rng(1).integers(256, size=(11, 16, 16, 3), dtype="uint8")
    encode_dataset(vqvae, images, damaged, shard_size=3, verbose=0)
    assert shard(1).read_bytes() == whole and len(read_all(damaged)) == 3
    # Data sets of version 0.1 had no hashes; their lengths are compared.
    metadata = json.loads((damaged / "metadata.json").read_text())
    assert len(metadata.pop("shards")["train"]) == 4
    (damaged / "metadata.json").write_text(json.dumps(metadata))
    assert len(read_all(damaged)) == 3
    shard(3).write_bytes(whole)
    with pytest.raises(ValueError, match="of 2 examples .*another file .*00003"):
        read_all(damaged)
    shard(3).write_bytes(whole[:100])
    with pytest.raises(ValueError, match="Expected a shard of codes.*00003 .RuntimeError"):
        read_all(damaged)


@pytest.mark.parametrize("engine", ["tf.data", "grain"])
def test_damage_that_shows_when_it_is_read(damaged, engine):
    if engine == "grain":
        pytest.importorskip("grain")
    metadata = (damaged / "metadata.json").read_text()
    (damaged / "metadata.json").write_text(metadata.replace("300", "2"))
    with pytest.raises(Exception, match=r"Expected codes in \[0, 2\). Received: top codes from 0"):
        read_all(damaged, engine)
    (damaged / "metadata.json").write_text(metadata)
    codes = codes_from_tfds(damaged, 4, engine=engine)
    shard = damaged / "train.array_record-00001"
    content = bytearray(shard.read_bytes())
    content[64:200] = bytes(136)
    shard.write_bytes(content)
    with pytest.raises(Exception, match="Expected whole shards of codes in .*codes. Received: Run"):
        list(codes)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "metadata.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", '{"fingerprint": "a"}'])
def test_damaged_metadata(damaged, name, content):
    (damaged / name).write_text(content)
    with pytest.raises(ValueError, match="^Expected .*Received: [^\n]*$"):
        read_all(damaged)


def test_encode_dataset_on_damaged_files(vqvae, images, tmp_path):
    encode_dataset(vqvae, images, tmp_path, shard_size=4, verbose=0)
    settings = tmp_path / "train.encoding.json"
    whole = settings.read_text()
    for content in ("", "{", "[1]"):
        settings.write_text(content)
        with pytest.raises(ValueError, match="settings .*Received: .*does not read"):
            encode_dataset(vqvae, images, tmp_path, shard_size=4, verbose=0)
    settings.write_text(whole)
    (tmp_path / "dataset_info.json").write_text("{")
    with pytest.raises(ValueError, match="Expected metadata that encode_dataset wrote in"):
        encode_dataset(vqvae, images, tmp_path, shard_size=4, verbose=0)
    (tmp_path / "dataset_info.json").unlink()
    shards = sorted(tmp_path.glob("train.array*"))
    content = shards[2].read_bytes()
    shutil.copy(shards[0], shards[2])
    with pytest.raises(ValueError, match="a shard of 3 examples. Received: .*00002 of 4; delete"):
        encode_dataset(vqvae, images, tmp_path, shard_size=4, verbose=0)
    shards[2].write_bytes(content[:100])
    with pytest.raises(ValueError, match="Expected a shard of codes. Received: .*00002 .Runtime"):
        encode_dataset(vqvae, images, tmp_path, shard_size=4, verbose=0)
    assert not (tmp_path / "dataset_info.json").exists()


def test_a_full_disk_is_one_sentence_and_leaves_no_half_files(vqvae, images, tmp_path):
    encode_dataset(vqvae, images, tmp_path / "whole", shard_size=4, verbose=0)
    # Files of 64 KiB at most, a shard's size, stand in for a disk with that much room.
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="Expected room for a shard of 4 examples in .*full"):
            encode_dataset(vqvae, images, tmp_path / "full", shard_size=4, verbose=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["train.encoding.json"]
    encode_dataset(vqvae, images, tmp_path / "full", shard_size=4, verbose=0)
    assert files(tmp_path / "full") == files(tmp_path / "whole")


def test_what_kills_left_is_cleared_but_for_other_workers(vqvae, images, tmp_path):
    left = [".metadata-x", ".train.encoding.json-x", ".train.array_record-00000-x"]
    others = [".validation.encoding.json-x", ".validation.array_record-00000-x"]
    for name in left + others:
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").touch()
    arguments = {"shard_size": 4, "num_workers": 2, "verbose": 0}
    encode_dataset(vqvae, images, tmp_path, worker=1, **arguments)
    assert all((tmp_path / name).exists() for name in left)  # another may be at it
    os.utime(tmp_path / left[0], (0, 0))
    encode_dataset(vqvae, images, tmp_path, worker=0, **arguments)
    assert [(tmp_path / name).exists() for name in left] == [False, True, False]
    encode_dataset(vqvae, images, tmp_path, shard_size=4, verbose=0)
    assert [(tmp_path / name).exists() for name in left + others] == [False] * 3 + [True] * 2


def test_the_progress_bar_is_closed_when_encoding_fails(vqvae, images, tmp_path, monkeypatch):
    import tqdm

    bars = []
    monkeypatch.setattr(tqdm, "tqdm", lambda bar=tqdm.tqdm, **k: bars.append(bar(**k)) or bars[-1])

    def fails(start_step):
        yield images[:4]
        raise RuntimeError("the camera is gone")

    with pytest.raises(RuntimeError, match="camera"):
        encode_dataset(vqvae, fails, tmp_path)
    assert len(bars) == 1 and bars[0].disable  # as `close` leaves it


def test_the_fingerprint_follows_the_weights(tmp_path):
    vqvae = small()
    before = vqvae.fingerprint()
    vqvae.save_to_preset(tmp_path / "preset")
    assert VQVAE2.from_preset(tmp_path / "preset").fingerprint() == before
    half = VQVAE2.from_preset(tmp_path / "preset", dtype="mixed_bfloat16")
    assert half.fingerprint() == before
    vqvae.trainable_variables[0].assign(vqvae.trainable_variables[0] + 1e-3)
    assert vqvae.fingerprint() != before


def test_the_fingerprint_leaves_aside_what_only_decodes(vqvae, images, tmp_path):
    """And data sets of 0.1, whose fingerprint is of all weights, are still recognised."""
    model = small()
    model.set_weights(vqvae.get_weights())
    of_all = fingerprint_of(model.weights)
    assert model.has_fingerprint(of_all) and of_all != model.fingerprint()
    encode_dataset(model, source(images), tmp_path / "codes", verbose=0)
    info = tmp_path / "codes" / "dataset_info.json"
    info.write_text(info.read_text().replace(model.fingerprint(), of_all))
    encode_dataset(model, source(images), tmp_path / "codes", "validation", verbose=0)
    assert codes_from_tfds(tmp_path / "codes", 2, split="validation", vqvae=model)
    for variable in model.get_layer("pixel_decoder").weights:
        variable.assign(variable + 1.0)
    assert model.fingerprint() == vqvae.fingerprint()
    assert not model.has_fingerprint(of_all)


def test_what_a_data_set_says_of_a_prior(images, tmp_path):
    quantizers = {"top": VectorQuantizerEMA(6, 4), "bottom": VectorQuantizerEMA(10, 4)}
    vqvae = VQVAE2((16, 16, 3), hidden_units=8, residual_units=4, quantizer=quantizers)
    encode_dataset(vqvae, source(images), tmp_path, class_names="abc", verbose=0)
    common = {
        "num_classes": 3, "image_shape": (16, 16, 3), "codes_fingerprint": vqvae.fingerprint(),
    }  # fmt: skip
    bottom = {
        "code_shape": (4, 4), "level": "bottom", "condition_factors": {"top": 2},
        "num_embeddings": 10, "condition_embeddings": {"top": 6}, **common,
    }  # fmt: skip
    assert prior_arguments(tmp_path, "bottom") == bottom
    top = prior_arguments(tmp_path, "top")
    assert (top["num_embeddings"], top["condition_factors"], top["code_shape"]) == (6, {}, (2, 2))
    with pytest.raises(ValueError, match=r"\['top', 'bottom'\]. Received: level='middle'"):
        prior_arguments(tmp_path, "middle")

    # Version 0.1 wrote one number for all levels.
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_embeddings": 10}))
    assert prior_arguments(tmp_path, "bottom") == {**bottom, "condition_embeddings": {"top": 10}}


def test_levels_with_other_numbers_of_codes_a_position(images, tmp_path):
    def residual(count):
        return ResidualVectorQuantizer(VectorQuantizerEMA(6, 4), num_quantizers=count)

    def encode(name, **quantizer):
        vqvae = VQVAE2((16, 16, 3), hidden_units=8, residual_units=4, quantizer=quantizer)
        encode_dataset(vqvae, source(images), tmp_path / name, class_names="abc", verbose=0)
        return vqvae

    vqvae = encode("finer", top=VectorQuantizerEMA(6, 4), bottom=residual(2))
    arguments = [prior_arguments(tmp_path / "finer", level) for level in vqvae.levels]
    assert [a["code_shape"] for a in arguments] == [(2, 2), (4, 8)]
    assert arguments[1]["condition_factors"] == {"top": (2, 4)}
    sizes = {"hidden_units": 8, "residual_units": 8, "num_blocks": 1, "block_layers": 1}
    priors = [PixelSnailPrior(**a, **sizes, attention_heads=0) for a in arguments]
    assert HierarchicalImageGenerator(vqvae, priors).generate(2, labels=1).shape == (2, 16, 16, 3)

    encode("coarser", top=residual(4), bottom=VectorQuantizerEMA(6, 4))
    message = r"'top', .* to divide .*Received: maps of \(2, 8\) and \(4, 4\)"
    with pytest.raises(ValueError, match=message):
        prior_arguments(tmp_path / "coarser", "bottom")


def test_labels_without_names_do_not_tell_how_many_classes(vqvae, images, tmp_path):
    encode_dataset(vqvae, source(images), tmp_path, verbose=0)
    with pytest.raises(ValueError, match="labels have names"):
        prior_arguments(tmp_path, "top")
