"""Images that a flag names: a folder, or a TFDS data set by its name or directory."""

import functools
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags

import keras_vqvae2
from keras_vqvae2.files import replacing

FLAGS = flags.FLAGS
CHUNK = 64  # images at a time


class Images(NamedTuple):
    """Images that are there, not opened yet.

    Attributes:
        open: Function of image size, batch size and the options of `keras_vqvae2.data.Options`.
        count: How many; of a folder, its files.
        is_folder: Whether they lie in a folder, not in a TFDS data set.
        class_names: None, or the names of the labels.
        text: Where and how many, for people.
        content: What is there, wherever it lies, for a run's plan.
    """

    open: object
    count: int
    is_folder: bool
    class_names: list | None
    text: str
    content: dict


def find(flag, *splits, labels=False):
    """Finds the images of a flag before anything long begins.

    Args:
        flag: Name of the flag.
        *splits: Splits of a TFDS data set, of which the first that it has is taken.
        labels: Whether the names of the labels are wanted.
    """
    source = FLAGS[flag].value
    folder = Path(source)
    if folder.is_dir() and not (folder / "dataset_info.json").exists():
        return _folder(source, labels)
    return _data_set(source, flag, splits, labels)


def _folder(source, labels):
    files = keras_vqvae2.data.list_images(source)
    count, names = len(files), None
    if labels:
        try:
            names = keras_vqvae2.data.class_names(source)
        except ValueError as error:
            raise ValueError(f"{error}. Without classes: --nolabels") from error
    read = functools.partial(keras_vqvae2.data.images_from_folder, source, engine=FLAGS.engine)
    relative = [Path(file).relative_to(source).as_posix() for file in files]
    digest = hashlib.sha256("\n".join(relative).encode()).hexdigest()[:16]
    content = {"files": count, "digest_of_names": digest}
    return Images(read, count, True, names, f"{source}: {count:,} files", content)


def _data_set(source, flag, splits, labels):
    if FLAGS.engine == "grain":
        raise ValueError(
            "Expected a folder of images, the only source that --engine=grain reads. "
            f"Received: --{flag}={source}"
        )
    import tensorflow_datasets as tfds  # which imports TensorFlow

    try:
        is_prepared = Path(source).is_dir()
        builder = tfds.builder_from_directory(source) if is_prepared else tfds.builder(source)
    except ValueError as error:  # of a name that is none, or that TFDS does not know
        raise ValueError(
            "Expected a folder of images, the name of a TFDS data set, or the directory of a "
            f"prepared one. Received: --{flag}={source}"
        ) from error
    builder.download_and_prepare()
    there = builder.info.splits
    split = next((split for split in splits if split.split("[")[0] in there), None)
    if split is None:
        raise ValueError(
            f"Expected a data set with the split {' or '.join(splits)}. "
            f"Received: --{flag}={source} with {sorted(there)}"
        )
    if labels and "label" not in builder.info.features:
        raise ValueError(
            "Expected a data set with labels; without them: --nolabels. "
            f"Received: --{flag}={source} with {list(builder.info.features)}"
        )
    names = builder.info.features["label"].names if labels else None
    count = there[split].num_examples
    read = functools.partial(keras_vqvae2.data.images_from_tfds, source, split=split)
    content = {"data_set": builder.info.full_name, "split": split, "images": count}
    text = f"{source}: {count:,} images of the split {split}"
    return Images(read, count, False, names, text, content)


def check_classes(names, *flag_names):
    """Compares the class folders of flags with the names of classes.

    Args:
        names: List of names, or None for any.
        *flag_names: Names of the flags.

    Returns:
        Where and how many images, for people.
    """
    texts = []
    for flag in flag_names:
        folder = FLAGS[flag].value
        received = keras_vqvae2.data.class_names(folder)
        if names not in (None, received):
            raise ValueError(f"Expected the classes {names}. Received: {received} in {folder}")
        texts.append(f"{folder}: {len(keras_vqvae2.data.list_images(folder)):,} files")
    return ", ".join(texts)


def read_images(folder, size):
    """Images `(N, H, W, 3)`, uint8, and labels `(N,)` of a folder with a folder a class."""
    batches = keras_vqvae2.data.images_from_folder(folder, size, CHUNK, labels=True)
    pairs = [(np.rint(x * 255).astype("uint8"), y) for x, y in batches.as_numpy_iterator()]
    images, labels = zip(*pairs)
    return np.concatenate(images), np.concatenate(labels)


def read_features(extractor, images):
    """Features `(N, features)` of uint8 images, which --cache keeps under a digest of them."""
    digest = hashlib.sha256(str(images.shape).encode() + np.ascontiguousarray(images).tobytes())
    name = f"{extractor.name}-{digest.hexdigest()[:16]}.npy"
    path = Path(FLAGS.cache).expanduser() / name
    if path.exists():
        return np.load(path, allow_pickle=False)
    features = extractor.extract(images, batch_size=CHUNK)
    with replacing(path) as temporary:
        np.save(temporary, features)
    return features
