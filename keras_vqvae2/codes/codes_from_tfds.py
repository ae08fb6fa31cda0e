import hashlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from keras_vqvae2.data import grain_pipeline
from keras_vqvae2.data.optional_imports import import_tensorflow, import_tfds
from keras_vqvae2.data.pipeline import Options, check_engine, positions
from keras_vqvae2.hints import Config, Dataset, FilePath
from keras_vqvae2.models.vqvae2 import VQVAE2

OPTIONS = ("shuffle", "seed", "repeat", "reshuffle", "start_step", "drop_remainder")
OPTIONS += ("num_processes", "process_index")


def codes_from_tfds(
    directory: FilePath,
    batch_size: int = 32,
    *,
    split: str = "train",
    vqvae: VQVAE2 | str | None = None,
    engine: str = "tf.data",
    **options: Any,
) -> Dataset:
    """Reads a data set of codes that `encode_dataset` wrote.

    Args:
        directory: Its directory.
        batch_size: Positive integer.
        split: Name of a split, or a part of one, such as `"train[:10%]"`.
        vqvae: None, or the `VQVAE2` (or its fingerprint) that must have made the codes.
        engine: `"tf.data"` or `"grain"`, as in `images_from_folder`.
        **options: `shuffle`, `seed`, `repeat`, `reshuffle`, `start_step`, `drop_remainder`,
            `num_processes`, `process_index` of `keras_vqvae2.data.Options`. Reading is random
            access: a shuffled epoch is a permutation of the whole split, and `start_step` and
            `num_processes` read nothing that they leave out.

    Returns:
        `tf.data.Dataset` or `grain.IterDataset` of dicts: int32 codes by level, coarse to fine,
        each `(batch, rows, columns)`, and int32 `"label"` if there are labels.

    Raises:
        FileNotFoundError: If there is no finished data set, or a shard is missing.
        ValueError: If the split or the engine is unknown, another model made the codes, metadata or
            shards are not those that `encode_dataset` wrote, or, when a batch is read, codes are
            out of range.

    Example: see `encode_dataset`.
    """
    unknown = set(options) - set(OPTIONS)
    if unknown:
        raise TypeError(f"Unexpected options {sorted(unknown)}")
    check_engine(engine)
    options = Options(1, batch_size, **options)
    builder = open_code_dataset(directory, vqvae)
    splits = sorted(builder.info.splits)
    if split.split("[")[0] not in splits:
        raise ValueError(f"Expected one of the splits {splits}. Received: split={split!r}")
    check_shards(builder, split.split("[")[0])
    source = builder.as_data_source(split=split)
    num_embeddings = embeddings_of_levels(builder.info.metadata)
    levels = list(num_embeddings)
    names = [*levels, *(["label"] if "label" in builder.info.features else [])]
    shapes = [builder.info.features[name].shape for name in names]

    def read(places):
        try:
            examples = source.__getitems__(places.tolist())
        except Exception as error:  # of ArrayRecord's chunks, of protocol buffers, of the disk
            raise ValueError(
                f"Expected whole shards of codes in {directory}. Received: {first_line(error)}"
            ) from error
        batch = {name: np.stack([example[name] for example in examples]) for name in names}
        for level in levels:
            low, high = batch[level].min(initial=0), batch[level].max(initial=0)
            if low < 0 or high >= num_embeddings[level]:
                raise ValueError(
                    f"Expected codes in [0, {num_embeddings[level]}). Received: {level} codes from "
                    f"{low} to {high} in {directory}"
                )
        return [array.astype("int32") for array in batch.values()]

    if engine == "grain":
        return grain_pipeline.batches(
            len(source), options, lambda _, places: dict(zip(names, read(places)))
        )
    tf = import_tensorflow()

    def batch(_, places):
        arrays = tf.numpy_function(read, [places], [tf.int32] * len(names), stateful=False)
        # numpy_function forgets shapes; the batch keeps what is known of its size.
        sizes = [(places.shape[0], *shape) for shape in shapes]
        return {n: tf.ensure_shape(a, size) for n, a, size in zip(names, arrays, sizes)}

    places = positions(len(source), options)
    places = places.batch(options.process_batch_size, drop_remainder=options.drop_remainder)
    return places.map(batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def open_code_dataset(directory: FilePath, vqvae: VQVAE2 | str | None = None) -> Any:
    """The TFDS builder of a data set of codes, checked to be one, and the model's.

    Args:
        directory: Its directory.
        vqvae: As in `codes_from_tfds`.

    Returns:
        A `tfds.core.DatasetBuilder`; `.info.metadata` holds `fingerprint`, `levels`, and
        `num_embeddings`.

    Raises:
        FileNotFoundError: If there is no finished data set.
        ValueError: If it holds no codes, or those of another model.
    """
    directory = Path(directory)
    if not (directory / "dataset_info.json").exists():
        raise FileNotFoundError(
            "Expected a directory that encode_dataset has finished. Received: "
            f"directory={str(directory)!r}"
        )
    tfds = import_tfds()
    try:
        builder = tfds.builder_from_directory(directory)
        metadata, features = builder.info.metadata or {}, list(builder.info.features)
    except Exception as error:  # TFDS raises what its parsers do
        raise ValueError(
            f"Expected metadata that encode_dataset wrote in {directory}. "
            f"Received: {first_line(error)}"
        ) from error
    if "fingerprint" not in metadata:
        raise ValueError(
            f"Expected a data set of codes. Received: {directory} with the features {features}"
        )
    counts, shards = embeddings_of_levels(metadata), metadata.get("shards", {})
    known = counts and set(counts) <= set(features)
    if not known or not isinstance(shards, dict):  # version 0.1 wrote no shards
        raise ValueError(
            f"Expected levels among the features {features}, their numbers of codes, and shards "
            f"in the metadata of {directory}. Received: levels={metadata.get('levels')}, "
            f"num_embeddings={metadata.get('num_embeddings')}, {shards=}"
        )
    made_by = metadata["fingerprint"]
    if isinstance(vqvae, (str, type(None))):
        expected, fits = vqvae, vqvae in (None, made_by)
    else:
        expected, fits = vqvae.fingerprint(), vqvae.has_fingerprint(made_by)
    if not fits:
        raise ValueError(
            f"Expected codes of the model with the fingerprint {expected}. Received: {directory}, "
            f"codes of the one with {made_by}"
        )
    return builder


def prior_arguments(directory: FilePath, level: str) -> Config:
    """What a data set of codes says about the prior of one of its levels.

    Args:
        directory: The directory of a data set that `encode_dataset` wrote.
        level: Name of the level that is to be modelled.

    Returns:
        Dict of the arguments of a `CodePrior`: `code_shape` (several codes of a position stand side
        by side), `level`, `condition_factors` (all
        coarser levels), `num_embeddings`, `condition_embeddings`, `num_classes`, `image_shape` and
        `codes_fingerprint`.

    Raises:
        FileNotFoundError: If there is no finished data set.
        ValueError: If it holds no codes, has no such level, or labels without names.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    vqvae = keras_vqvae2.VQVAE2((16, 16, 3), hidden_units=8, residual_units=4)
    images = np.random.default_rng(0).integers(256, size=(6, 16, 16, 3), dtype="uint8")
    keras_vqvae2.codes.encode_dataset(vqvae, images, "codes", verbose=0)
    arguments = keras_vqvae2.codes.prior_arguments("codes", "bottom")
    print(arguments["code_shape"], arguments["condition_factors"])  # (4, 4) {'top': 2}
    prior = keras_vqvae2.PixelSnailPrior(
        **arguments, hidden_units=8, residual_units=4, attention_heads=2
    )
    ```
    """
    info = open_code_dataset(directory).info
    counts = embeddings_of_levels(info.metadata)
    levels = list(counts)
    if level not in levels:
        raise ValueError(f"Expected one of the levels {levels}. Received: level={level!r}")
    num_classes = None
    if "label" in info.features:
        num_classes = getattr(info.features["label"], "num_classes", None)
        if num_classes is None:
            raise ValueError(
                "Expected a data set whose labels have names (class_names of encode_dataset). "
                f"Received: directory={str(directory)!r}"
            )
    coarser = levels[: levels.index(level)]
    shapes = {name: tuple(info.features[name].shape) for name in (level, *coarser)}
    # Codes of a position side by side.
    shapes = {name: (shape[0], math.prod(shape[1:])) for name, shape in shapes.items()}
    return {
        "code_shape": shapes[level],
        "level": level,
        "condition_factors": {
            name: condition_factor(level, shapes[level], name, shapes[name]) for name in coarser
        },
        "num_embeddings": counts[level],
        "condition_embeddings": {name: counts[name] for name in coarser},
        "num_classes": num_classes,
        "image_shape": tuple(info.metadata["image_shape"]),
        "codes_fingerprint": info.metadata["fingerprint"],
    }


def condition_factor(level, code_shape, coarser, coarser_shape):
    """How many times smaller a coarser level's maps are, for both axes or one for each."""
    axes = list(zip(code_shape, coarser_shape, strict=True))
    if any(size % smaller for size, smaller in axes):
        raise ValueError(
            f"Expected codes of {coarser!r}, those of a position side by side, to divide those of "
            f"{level!r} in rows and columns. "
            f"Received: maps of {coarser_shape} and {code_shape}"
        )
    rows, columns = (size // smaller for size, smaller in axes)
    return rows if rows == columns else (rows, columns)


def embeddings_of_levels(metadata: Config) -> dict[str, int]:
    """Dict from level to its number of codes; empty if the metadata do not tell."""
    levels, counts = metadata.get("levels"), metadata.get("num_embeddings")
    if not isinstance(levels, list):
        return {}
    # Version 0.1 had one number for all levels.
    numbers = [counts.get(str(k)) if isinstance(counts, dict) else counts for k in levels]
    known = [number for number in numbers if isinstance(number, int)]
    return dict(zip(map(str, levels), known)) if len(known) == len(levels) else {}


def check_shards(builder: Any, split: str) -> None:
    """Raises an error that names the first shard of a split that `encode_dataset` did not write."""
    info = builder.info.splits[split]
    paths = [Path(builder.data_path) / name for name in sorted(info.filenames)]
    digests = builder.info.metadata.get("shards", {}).get(split) or [None] * len(paths)
    if len(digests) != len(paths):
        raise ValueError(f"Expected {len(digests)} shards of {split!r}. Received: {len(paths)}")
    for path, length, digest in zip(paths, info.shard_lengths, digests):
        if not path.exists():
            raise FileNotFoundError(f"Expected all shards of {split!r}. Received: no {path}")
        if digest not in (None, shard_digest(path)) or num_examples(path) != length:
            raise ValueError(
                f"Expected the shard of {length} examples that encode_dataset wrote. Received: "
                f"another file {path}; delete it and dataset_info.json, and encode again"
            )


def num_examples(path: FilePath) -> int:
    """Examples in a shard, or `ValueError`."""
    from tensorflow_datasets.core.file_adapters import ArrayRecordFileAdapter

    try:
        return ArrayRecordFileAdapter.num_examples(path)
    except RuntimeError as error:
        raise ValueError(
            f"Expected a shard of codes. Received: {path} ({first_line(error)}); delete it, and "
            "dataset_info.json if there is one, and encode again"
        ) from error


def shard_digest(path: FilePath) -> str:
    """Tells a shard from others: a hash of its size, its first codes, and the index at its end."""
    size = os.path.getsize(path)
    digest = hashlib.blake2b(str(size).encode(), digest_size=8)
    with open(path, "rb") as file:
        digest.update(file.read(2**16))
        file.seek(max(0, size - 2**16))
        digest.update(file.read())
    return digest.hexdigest()


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
