import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tqdm

from keras_vqvae2.codes.batch_source import BatchSource
from keras_vqvae2.codes.codes_from_tfds import (
    num_examples,
    open_code_dataset,
    shard_digest,
)
from keras_vqvae2.data.optional_imports import import_tensorflow, import_tfds
from keras_vqvae2.files import keep_plan, only_process, replacing
from keras_vqvae2.hints import Dataset, FilePath, Tensor
from keras_vqvae2.models.vqvae2 import VQVAE2
from keras_vqvae2.validation import check_positive

SHARD_NAME = "{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}"
SETTINGS_FILE = "encoding.json"
INFO_FILE = "dataset_info.json"
ENDLESS = 2**40  # shards of a source whose size is not known
STALE = 600  # seconds after which no worker can still be writing a file of settings or metadata


def encode_dataset(
    vqvae: VQVAE2,
    images: Tensor | Dataset | Callable[..., Dataset],
    directory: FilePath,
    split: str = "train",
    *,
    class_names: Sequence[str] | None = None,
    flips: bool = False,
    shard_size: int = 2048,
    num_images: int | None = None,
    num_workers: int = 1,
    worker: int = 0,
    verbose: int = 1,
) -> Path:
    """Encodes images into a TFDS data set of codes (the paper's algorithm 2, first half).

    The data set is a directory of ArrayRecord files that `tfds.builder_from_directory` and
    `codes_from_tfds` read. An example is a dict: the codes of each level in the smallest integer
    type that holds them, `image_id` (the image's number in the source), `flipped`, and `label` if
    the source has labels. The metadata name the model by its fingerprint.

    Shards appear when they are complete. The same call after a kill or on a disk that was full goes
    on behind the last complete shard and ends with the same files; the data set can be read once
    all is done. A call
    for a split that is done does nothing, and one for another split adds it.

    Several processes share the work without talking to each other: all make the same call, but for
    `worker`. Shard `i` holds the examples from `i * shard_size` on whoever writes it, so the files
    are those of one process, and each process writes a run of them. The one that finds the last
    shard in its place writes the metadata. A worker that was killed is started again, and does
    again nothing but the shard it was at. Encode one split after the other.

    Args:
        vqvae: The `VQVAE2`.
        images: Source of images in an order that stays: an array, a `tf.data.Dataset` or other
            iterable of batches (one of shuffled or randomly cropped images with
            `reshuffle=False`), or a function that opens one at the batch `start_step`, such as
            `functools.partial(images_from_folder, "photographs", 256, engine="grain")`. Images, or
            pairs `(images, labels)`. A list of functions is as many passes, over equally many
            images.
        directory: The directory to write.
        split: Name of the split.
        class_names: None, or the names of the labels, stored with the data set.
        flips: Whether a second pass over the source encodes the images mirrored left to right.
        shard_size: Positive integer, examples a file.
        num_images: Number of images of a pass over the source, which an array knows. Several
            workers must be told. Where it is known, nothing of an array or a function is read that
            this process does not encode (of an iterable, all that stands before is), and all
            batches but the last are of one size. Files that `images_from_folder` leaves out would
            shift the rest: `engine="grain"` replaces them.
        num_workers: Positive integer, processes that share the work.
        worker: Which of them this one is, from 0.
        verbose: 1 shows a progress bar.

    Returns:
        The directory.

    Raises:
        ValueError: If another process is at the same work, the directory holds the codes of another
            model or of other settings (`flips`, passes, `shard_size`, names, number of images),
            other splits have maps of another size or other labels, or the source is empty, can be
            read only once, changes from pass to pass, has not `num_images` images, or labels that
            are not an integer an image; if files that are there are damaged.
        OSError: If the disk is full.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    vqvae = keras_vqvae2.VQVAE2((16, 16, 3), hidden_units=8, residual_units=4)
    photographs = np.random.default_rng(0).integers(256, size=(6, 16, 16, 3), dtype="uint8")
    images = keras_vqvae2.data.images_from_arrays(photographs, batch_size=4, labels=[0, 1] * 3)
    keras_vqvae2.codes.encode_dataset(vqvae, images, "codes", flips=True, verbose=0)
    codes = keras_vqvae2.codes.codes_from_tfds("codes", batch_size=12)
    print(next(iter(codes))["bottom"].shape)  # (12, 4, 4)
    ```

    Reference:
        - Razavi, van den Oord, Vinyals 2019, arXiv 1906.00446, algorithm 2.
    """
    check_positive(shard_size=shard_size, num_workers=num_workers)
    if worker not in range(num_workers):
        raise ValueError(f"Expected an integer below {num_workers}. Received: worker={worker}")
    if not split.isidentifier():
        raise ValueError(f"Expected a plain name. Received: split={split!r}")
    if num_images is not None:
        check_positive(num_images=num_images)
    directory = Path(directory)
    with only_process(directory / f".{split}-{worker}-of-{num_workers}.lock"):
        return _encode(
            vqvae, images, directory, split, class_names, flips, shard_size, num_images,
            num_workers, worker, verbose,
        )  # fmt: skip


def _encode(
    vqvae, images, directory, split, class_names, flips, shard_size, num_images, num_workers,
    worker, verbose,
):  # fmt: skip
    tf, tfds = import_tensorflow(), import_tfds()
    from tensorflow_datasets.core.file_adapters import ArrayRecordFileAdapter as array_record

    source = BatchSource(images, num_images, flips)
    if source.num_images is None and num_workers > 1:
        raise ValueError(
            "Expected the number of images of the source, which workers share. "
            "Received: num_images=None"
        )
    fingerprint = _fingerprint(directory, vqvae)
    settings = {
        "fingerprint": fingerprint,
        "flips": bool(flips),
        "passes": source.plain_passes,
        "shard_size": int(shard_size),
        "class_names": None if class_names is None else list(class_names),
    }
    if source.num_images is not None:
        settings["num_examples"] = source.num_examples
    size, has_labels = source.pixels.shape[1:], source.labels is not None
    features = _features(tfds, vqvae, size[:2], has_labels, class_names)
    _check_features(directory, features)
    settings_path = directory / f"{split}.{SETTINGS_FILE}"
    keep_plan(settings_path, settings)

    def shard(index):
        return directory / f"{split}.array_record-{index:05d}"

    shards, own = None, range(ENDLESS)
    if source.num_examples is not None:
        shards = -(-source.num_examples // shard_size)
        own = range(worker * shards // num_workers, (worker + 1) * shards // num_workers)
    _clear(directory, split, own, STALE if num_workers > 1 else 0)
    if split in _finished_splits(directory, fingerprint):
        return directory
    index = own.start
    while index in own and shard(index).exists():
        index += 1
    pending: list[bytes] = []

    def write():
        # Of workers that start together each may have found no settings and written its own.
        keep_plan(settings_path, settings)
        with replacing(shard(index)) as temporary:
            try:
                array_record.write_examples(temporary, enumerate(pending))
            except RuntimeError as error:  # ArrayRecord's word for a full disk
                raise OSError(
                    f"Expected room for a shard of {len(pending)} examples in {directory}. "
                    f"Received: {error}"
                ) from error
        pending.clear()

    start, stop = index * shard_size, own.stop * shard_size
    done, total = start - own.start * shard_size, None
    if shards is not None:
        total = min(stop, source.num_examples) - own.start * shard_size
        done = min(done, total)
    with tqdm.tqdm(unit="image", initial=done, total=total, disable=not verbose) as progress:
        for example in _examples(vqvae, source, start, stop) if index in own else ():
            serialized = features.serialize_example(features.encode_example(example))
            # A map whose order is another in each process; a data set is the same, byte by byte.
            serialized = tf.train.Example.FromString(serialized)
            pending.append(serialized.SerializeToString(deterministic=True))
            progress.update()
            if len(pending) == shard_size:
                write()
                index += 1
        if pending:
            write()
            index += 1
    written = [shard(i) for i in range(index if shards is None else shards)]
    if all(path.exists() for path in written):
        lengths = [num_examples(path) for path in written]
        for i, (path, length) in enumerate(zip(written, lengths)):
            left = shard_size if shards is None else source.num_examples - i * shard_size
            last = shards is None and path == written[-1]
            if length != min(left, shard_size) and not (last and length < shard_size):
                raise ValueError(
                    f"Expected a shard of {min(left, shard_size)} examples. Received: {path} of "
                    f"{length}; delete it and encode again"
                )
        template = tfds.core.ShardedFileTemplate(
            data_dir=directory, template=SHARD_NAME, split=split, filetype_suffix="array_record"
        )
        bytes_of_all = sum(path.stat().st_size for path in written)
        splits = _finished_splits(directory, fingerprint)
        digests = {}
        if splits:
            digests = open_code_dataset(directory).info.metadata.get("shards", {})
        digests = {**digests, split: [shard_digest(path) for path in written]}
        splits[split] = tfds.core.SplitInfo(split, lengths, bytes_of_all, template)
        metadata = {
            "fingerprint": fingerprint,
            "levels": list(vqvae.levels),
            "num_embeddings": vqvae.num_embeddings,
            "image_shape": list(size),
            "shards": digests,
        }
        _write_metadata(tfds, directory, features, splits, metadata)
    return directory


def _clear(directory, split, own, age):
    """Removes what a process that was killed left half written, but nothing of other workers."""
    for unfinished in directory.glob(f".{split}.array_record-*"):
        if int(unfinished.name.split("-")[1]) in own:
            shutil.rmtree(unfinished)
    for pattern in (f".{split}.{SETTINGS_FILE}-*", ".metadata-*"):
        for unfinished in directory.glob(pattern):
            if time.time() - unfinished.stat().st_mtime >= age:
                shutil.rmtree(unfinished, ignore_errors=True)


def _fingerprint(directory, vqvae):
    """That of the splits that are there, if they are of this model."""
    if not (directory / INFO_FILE).exists():
        return vqvae.fingerprint()
    return open_code_dataset(directory, vqvae).info.metadata["fingerprint"]


def _finished_splits(directory, fingerprint):
    if not (directory / INFO_FILE).exists():
        return {}
    return dict(open_code_dataset(directory, fingerprint).info.splits)


def _features(tfds, vqvae, image_size, has_labels, class_names):
    features = {
        level: tfds.features.Tensor(
            shape=(*shape, *vqvae.code_axes[level]),
            dtype=smallest_integer(vqvae.num_embeddings[level]),
        )
        for level, shape in vqvae.code_shapes(image_size).items()
    }
    features["image_id"] = tfds.features.Scalar(np.int64)
    features["flipped"] = tfds.features.Scalar(np.bool_)
    if has_labels:
        features["label"] = tfds.features.Scalar(np.int32)
        if class_names is not None:
            features["label"] = tfds.features.ClassLabel(names=list(class_names))
    return tfds.features.FeaturesDict(features)


def _check_features(directory, features):
    """Refuses examples of another kind than those of the splits that are there."""
    if not (directory / INFO_FILE).exists():
        return
    there, given = map(_kinds, (open_code_dataset(directory).info.features, features))
    for name in sorted({*there, *given}):
        if there.get(name) != given.get(name):
            raise ValueError(
                f"Expected examples like those of the splits that are there, with {name!r}: "
                f"{there.get(name, 'none')}. Received: {given.get(name, 'none')}. Of folders an "
                "empty one keeps a class its label"
            )


def _kinds(features):
    """Dict from name to the names of classes, or else the shape, of each feature."""
    return {name: getattr(f, "names", None) or f.shape for name, f in features.items()}


def smallest_integer(num_embeddings: int) -> type[np.generic]:
    """The smallest unsigned dtype for codes in `[0, num_embeddings)`."""
    return np.min_scalar_type(num_embeddings - 1).type


def _examples(vqvae, source, start, stop):
    """Yields the examples from `start` to `stop`; batches are those of the source, always."""
    dtypes = {level: smallest_integer(count) for level, count in vqvae.num_embeddings.items()}
    for position, image_id, flipped, pixels, labels in source.read(start, stop):
        count = len(pixels)
        codes = vqvae.encode(pixels[:, :, ::-1] if flipped else pixels, count)
        codes = {level: value.astype(dtypes[level]) for level, value in codes.items()}
        for i in range(max(0, start - position), min(count, stop - position)):
            example = {level: value[i] for level, value in codes.items()}
            example |= {"image_id": image_id + i, "flipped": flipped}
            yield example if labels is None else {**example, "label": labels[i]}


def _write_metadata(tfds, directory, features, splits, metadata):
    """Puts the metadata in their place; several processes may do it at once, with the same."""
    with tempfile.TemporaryDirectory(prefix=".metadata-", dir=directory) as folder:
        # TFDS wants to see a file of each split; one that is not finished is not to be seen.
        stand_ins = [Path(folder) / f"{split}.array_record-00000" for split in splits]
        for path in stand_ins:
            path.touch()
        tfds.folder_dataset.write_metadata(
            data_dir=folder,
            features=features,
            split_infos=list(splits.values()),
            filename_template=SHARD_NAME,
            check_data=False,
            description="Code maps of images, coarse to fine, made by keras_vqvae2.",
            metadata=tfds.core.MetadataDict(metadata),
        )
        written = set(Path(folder).iterdir()) - set(stand_ins)
        # The file by which a data set is found comes last.
        for path in sorted(written, key=lambda path: path.name == INFO_FILE):
            os.replace(path, directory / path.name)
