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
        FileNotFoundError: If there is no finished data set.
        ValueError: If the split or the engine is unknown or another model made the codes.

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
    source = builder.as_data_source(split=split)
    names = [*builder.info.metadata["levels"]]
    names += ["label"] if "label" in builder.info.features else []
    shapes = [builder.info.features[name].shape for name in names]

    def read(places):
        examples = source.__getitems__(places.tolist())
        return [np.stack([example[name] for example in examples]).astype("int32") for name in names]

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
    builder = import_tfds().builder_from_directory(directory)
    metadata = builder.info.metadata or {}
    if "fingerprint" not in metadata:
        raise ValueError(
            f"Expected a data set of codes. Received: {directory} with the features "
            f"{list(builder.info.features)}"
        )
    expected = vqvae if isinstance(vqvae, (str, type(None))) else vqvae.fingerprint()
    if expected not in (None, metadata["fingerprint"]):
        raise ValueError(
            f"Expected codes of the model with the fingerprint {expected}. Received: {directory}, "
            f"codes of the one with {metadata['fingerprint']}"
        )
    return builder


def prior_arguments(directory: FilePath, level: str) -> Config:
    """What a data set of codes says about the prior of one of its levels.

    Args:
        directory: The directory of a data set that `encode_dataset` wrote.
        level: Name of the level that is to be modelled.

    Returns:
        Dict of the arguments of a `CodePrior`: `code_shape`, `level`, `condition_factors` (all
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
    levels = list(info.metadata["levels"])
    if level not in levels:
        raise ValueError(f"Expected one of the levels {levels}. Received: level={level!r}")
    counts = info.metadata["num_embeddings"]
    if not isinstance(counts, dict):  # version 0.1 had one number for all levels
        counts = dict.fromkeys(levels, counts)
    num_classes = None
    if "label" in info.features:
        num_classes = getattr(info.features["label"], "num_classes", None)
        if num_classes is None:
            raise ValueError(
                "Expected a data set whose labels have names (class_names of encode_dataset). "
                f"Received: directory={str(directory)!r}"
            )
    code_shape = tuple(info.features[level].shape)
    coarser = levels[: levels.index(level)]
    return {
        "code_shape": code_shape,
        "level": level,
        "condition_factors": {
            name: code_shape[0] // info.features[name].shape[0] for name in coarser
        },
        "num_embeddings": int(counts[level]),
        "condition_embeddings": {name: int(counts[name]) for name in coarser},
        "num_classes": num_classes,
        "image_shape": tuple(info.metadata["image_shape"]),
        "codes_fingerprint": info.metadata["fingerprint"],
    }
