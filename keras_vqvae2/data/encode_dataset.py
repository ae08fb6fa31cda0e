import json
import shutil
from pathlib import Path

import numpy as np
import tqdm

from keras_vqvae2.data.optional_imports import import_tensorflow, import_tfds
from keras_vqvae2.files import replacing

SHARD_NAME = "{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}"
SETTINGS_FILE = "encoding.json"


def encode_dataset(
    vqvae,
    images,
    directory,
    split="train",
    *,
    class_names=None,
    flips=False,
    shard_size=2048,
    verbose=1,
):
    """Encodes images into a TFDS data set of codes (the paper's algorithm 2, first half).

    The data set is a directory of ArrayRecord files that `tfds.builder_from_directory` and
    `codes_from_tfds` read. An example is a dict: the codes of each level in the smallest integer
    type that holds them, `image_id` (the image's number in the source), `flipped`, and `label` if
    the source has labels. The metadata name the model by its fingerprint.

    Shards appear when they are complete. The same call after a kill goes on behind the last
    complete shard and ends with the same files; the data set can be read once all is done. A call
    for a split that is done does nothing, and one for another split adds it.

    Args:
        vqvae: The `VQVAE2`.
        images: Source of images in an order that stays: a `tf.data.Dataset` (see
            `images_from_folder`) or other iterable of batches, or an array. Images, or pairs
            `(images, labels)`.
        directory: The directory to write.
        split: Name of the split.
        class_names: None, or the names of the labels, stored with the data set.
        flips: Whether a second pass over the source encodes the images mirrored left to right.
        shard_size: Positive integer, examples a file.
        verbose: 1 shows a progress bar.

    Returns:
        The directory.

    Raises:
        ValueError: If the directory holds the codes of another model or of other settings, or the
            source is empty or can be read only once.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    vqvae = keras_vqvae2.VQVAE2((16, 16, 3), hidden_units=8, residual_units=4)
    photographs = np.random.default_rng(0).integers(256, size=(6, 16, 16, 3), dtype="uint8")
    images = keras_vqvae2.data.images_from_arrays(photographs, batch_size=4, labels=[0, 1] * 3)
    keras_vqvae2.data.encode_dataset(vqvae, images, "codes", flips=True, verbose=0)
    codes = keras_vqvae2.data.codes_from_tfds("codes", batch_size=12)
    print(next(iter(codes))["bottom"].shape)  # (12, 4, 4)
    ```

    Reference:
        - Razavi, van den Oord, Vinyals 2019, arXiv 1906.00446, algorithm 2.
    """
    if int(shard_size) != shard_size or shard_size < 1:
        raise ValueError(f"Expected a positive integer. Received: shard_size={shard_size}")
    if not split.isidentifier():
        raise ValueError(f"Expected a plain name. Received: split={split!r}")
    tf, tfds = import_tensorflow(), import_tfds()
    from tensorflow_datasets.core.file_adapters import ArrayRecordFileAdapter as array_record

    directory = Path(directory)
    fingerprint = vqvae.fingerprint()
    settings = {
        "fingerprint": fingerprint,
        "flips": bool(flips),
        "shard_size": int(shard_size),
        "class_names": None if class_names is None else list(class_names),
    }
    _hold_to(settings, directory / f"{split}.{SETTINGS_FILE}")
    splits = _finished_splits(tfds, directory, fingerprint)
    if split in splits:
        return directory
    batch, labels = _pair(next(iter(_batches(images)), None))
    if batch is None:
        raise ValueError("Expected at least one batch of images. Received: an empty source")
    features = _features(tfds, vqvae, batch.shape[1:3], labels is not None, class_names)

    def shard(index):
        return directory / f"{split}.array_record-{index:05d}"

    for unfinished in directory.glob(f".{split}.*"):  # of a process that was killed
        shutil.rmtree(unfinished)
    lengths = []
    while shard(len(lengths)).exists():
        lengths.append(array_record.num_examples(shard(len(lengths))))
    pending = []

    def write():
        with replacing(shard(len(lengths))) as temporary:
            array_record.write_examples(temporary, enumerate(pending))
        lengths.append(len(pending))
        pending.clear()

    progress = tqdm.tqdm(unit="image", initial=sum(lengths), disable=not verbose)
    for example in _examples(vqvae, images, flips, sum(lengths)):
        serialized = features.serialize_example(features.encode_example(example))
        # A map whose order is another in each process; a data set is to be the same, byte by byte.
        serialized = tf.train.Example.FromString(serialized)
        pending.append(serialized.SerializeToString(deterministic=True))
        progress.update()
        if len(pending) == shard_size:
            write()
    if pending:
        write()
    progress.close()
    template = tfds.core.ShardedFileTemplate(
        data_dir=directory, template=SHARD_NAME, split=split, filetype_suffix="array_record"
    )
    size = sum(shard(i).stat().st_size for i in range(len(lengths)))
    splits[split] = tfds.core.SplitInfo(split, lengths, size, template)
    _write_metadata(tfds, directory, features, splits, vqvae, fingerprint, batch.shape[1:])
    return directory


def _batches(images, size=32):
    """The batches of a source, from the first on; a source is read more than once."""
    if hasattr(images, "shape") and hasattr(images, "dtype"):
        return (images[i : i + size] for i in range(0, len(images), size))
    batches = iter(images)
    if batches is images:
        raise ValueError(
            "Expected images that can be read again from the start, such as a list of batches, an "
            f"array or a tf.data.Dataset. Received: {type(images).__name__}"
        )
    return batches


def _pair(batch):
    """Images and labels of what a source gives, as arrays."""
    parts = batch if isinstance(batch, (tuple, list)) else (batch, None)
    return [None if part is None else np.asarray(part) for part in parts]


def _hold_to(settings, path):
    """Writes the settings of a split, or raises `ValueError` if it was begun with others."""
    if path.exists():
        begun = json.loads(path.read_text())
        for name, value in settings.items():
            if begun[name] != value:
                raise ValueError(
                    f"Expected {name}={begun[name]!r}, with which {path.parent} was begun. "
                    f"Received: {name}={value!r}"
                )
        return
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(settings, indent=4))


def _finished_splits(tfds, directory, fingerprint):
    if not (directory / "dataset_info.json").exists():
        return {}
    info = tfds.builder_from_directory(directory).info
    if info.metadata["fingerprint"] != fingerprint:
        raise ValueError(
            f"Expected the model that made {directory}, with the fingerprint "
            f"{info.metadata['fingerprint']}. Received: one with {fingerprint}"
        )
    return dict(info.splits)


def _features(tfds, vqvae, image_size, has_labels, class_names):
    features = {
        level: tfds.features.Tensor(shape=shape, dtype=smallest_integer(vqvae.num_embeddings))
        for level, shape in vqvae.code_shapes(image_size).items()
    }
    features["image_id"] = tfds.features.Scalar(np.int64)
    features["flipped"] = tfds.features.Scalar(np.bool_)
    if has_labels:
        features["label"] = tfds.features.Scalar(np.int32)
        if class_names is not None:
            features["label"] = tfds.features.ClassLabel(names=list(class_names))
    return tfds.features.FeaturesDict(features)


def smallest_integer(num_embeddings):
    """The smallest unsigned dtype for codes in `[0, num_embeddings)`."""
    return np.min_scalar_type(num_embeddings - 1).type


def _examples(vqvae, images, flips, skip):
    """Yields examples behind the first `skip`; batches are those of the source, always."""
    dtype, position = smallest_integer(vqvae.num_embeddings), 0
    for flipped in (False, True) if flips else (False,):
        image_id = 0
        for batch in _batches(images):
            pixels, labels = _pair(batch)
            count = len(pixels)
            if position + count > skip:
                codes = vqvae.encode(pixels[:, :, ::-1] if flipped else pixels, count)
                codes = {level: value.astype(dtype) for level, value in codes.items()}
                for i in range(max(0, skip - position), count):
                    example = {level: value[i] for level, value in codes.items()}
                    example |= {"image_id": image_id + i, "flipped": flipped}
                    yield example if labels is None else {**example, "label": labels[i]}
            position, image_id = position + count, image_id + count


def _write_metadata(tfds, directory, features, splits, vqvae, fingerprint, image_shape):
    metadata = {
        "fingerprint": fingerprint,
        "levels": list(vqvae.levels),
        "num_embeddings": vqvae.num_embeddings,
        "image_shape": list(image_shape),
    }
    tfds.folder_dataset.write_metadata(
        data_dir=directory,
        features=features,
        split_infos=list(splits.values()),
        filename_template=SHARD_NAME,
        check_data=False,
        description="Code maps of images, coarse to fine, made by keras_vqvae2.",
        metadata=tfds.core.MetadataDict(metadata),
    )
