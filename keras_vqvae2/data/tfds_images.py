from pathlib import Path
from typing import Any

import numpy as np

from keras_vqvae2.data.optional_imports import import_tensorflow, import_tfds
from keras_vqvae2.data.pipeline import (
    Options,
    epochs,
    finish,
    full_batches_and_rest,
    warn_of_examples_left_out,
)
from keras_vqvae2.hints import Dataset, FilePath, Size


def images_from_tfds(
    name_or_directory: FilePath,
    image_size: Size,
    batch_size: int = 32,
    *,
    split: str = "train",
    data_dir: FilePath | None = None,
    **options: Any,
) -> Dataset:
    """Reads the images of a TFDS data set.

    Args:
        name_or_directory: Name of a data set (prepared, and downloaded if need be, by TFDS), or
            the directory of a prepared one.
        image_size: Integer or `(height, width)` of the images that come out.
        batch_size: Positive integer.
        split: Split of the data set, such as `"train"` or `"train[:10%]"`.
        data_dir: Folder in which TFDS keeps its data sets.
        **options: Further keywords of `keras_vqvae2.data.Options`. The data set is read in order
            and shuffled in a buffer of 10,000 examples, so `start_step` and `num_processes` read,
            but do not decode, what they leave out of an epoch. Images of one channel become RGB,
            transparency is laid on white.

    Returns:
        `tf.data.Dataset` of float32 images in `[0, 1]`, shape `(batch, height, width, 3)`, or of
        pairs `(images, labels)` with int32 labels of shape `(batch,)`.

    Raises:
        ValueError: If there is no such data set or split, or it has no feature `image` of uint8 or
            uint16 pixels (or `label`, where labels are wanted).

    Example:

    ```python
    import keras_vqvae2

    try:
        keras_vqvae2.data.images_from_tfds("no_such_data_set", 32)
    except ValueError as error:
        print(error)  # Expected the name of a TFDS data set or the directory of …
    ```
    """
    options = Options(image_size, batch_size, **options)
    tf, tfds = import_tensorflow(), import_tfds()
    try:
        if (Path(name_or_directory) / "dataset_info.json").exists():
            builder = tfds.builder_from_directory(name_or_directory)
        else:
            builder = tfds.builder(str(name_or_directory), data_dir=data_dir)
            builder.download_and_prepare()
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(
            "Expected the name of a TFDS data set or the directory of a prepared one. "
            f"Received: name_or_directory={str(name_or_directory)!r}"
        ) from error
    features = list(builder.info.features)
    for feature in ["image", "label"] if options.labels else ["image"]:
        if feature not in features:
            raise ValueError(
                f"Expected a data set with a feature {feature!r}. Received: "
                f"{builder.info.name} with the features {features}"
            )
    feature = builder.info.features["image"]
    is_image = isinstance(feature, tfds.features.Image)
    if not is_image or feature.np_dtype not in ("uint8", "uint16") or not feature.shape[-1]:
        raise ValueError(
            "Expected images of uint8 or uint16 pixels with a known number of channels. "
            f"Received: {builder.info.name} with the feature image={feature}"
        )
    splits = sorted(builder.info.splits)
    if split.split("[")[0] not in [*splits, "all"]:
        raise ValueError(f"Expected one of the splits {splits}. Received: split={split!r}")

    skip = {"image": tfds.decode.SkipDecoding()}  # until it is known whose the image is
    images = builder.as_dataset(split=split, shuffle_files=False, decoders=skip)

    def plan_of(height, width):
        sizes = options.kept_size(height, width), options.scaled_size(height, width)
        return np.array(sizes, "int32").ravel()

    def read(position, example):
        image = tf.image.convert_image_dtype(feature.decode_example(example["image"]), tf.float32)
        if feature.shape[-1] in (2, 4):  # on white, as `image_folder.decode` lays it
            image = image[..., :-1] * image[..., -1:] + (1 - image[..., -1:])
        if image.shape[-1] == 1:
            image = tf.image.grayscale_to_rgb(image)
        height, width = sizes = tf.unstack(tf.shape(image)[:2])
        plan = tf.numpy_function(plan_of, sizes, tf.int32, stateful=False)
        rows, columns, *size = tf.unstack(tf.ensure_shape(plan, (4,)))
        image = tf.image.crop_to_bounding_box(
            image, (height - rows) // 2, (width - columns) // 2, rows, columns
        )
        scaled = tf.cond(
            tf.reduce_all(tf.equal(tf.shape(image)[:2], size)),
            lambda: image,
            lambda: tf.clip_by_value(
                tf.image.resize(image, size, "lanczos3", antialias=True), 0.0, 1.0
            ),
        )
        label = tf.cast(example["label"], tf.int32) if options.labels else tf.constant(0)
        return position, scaled, label

    examples = _numbered(tf, images, options)
    return finish(examples.map(read, num_parallel_calls=tf.data.AUTOTUNE), options)


def _numbered(tf, images, options):
    """Pairs of position in the endless stream and example, those of this process."""
    count, rows = len(images), options.process_batch_size
    warn_of_examples_left_out(count, options)
    full, rest = full_batches_and_rest(count, options)
    start = options.start_step * options.batch_size
    first_epoch, size = 0, max(0, full * rows + rest - options.start_step * rows)
    if options.repeat:
        first_epoch, start = divmod(start, count)
        size = tf.data.INFINITE_CARDINALITY

    def epoch(number):
        examples = images
        if options.shuffle:
            # Else the order would depend on the global seed too (and 0 takes no tensor beside it).
            tf.compat.v1.get_default_graph().seed = None
            seeds = tf.stack([tf.cast(options.seed, tf.int64), number])
            seed = tf.random.stateless_uniform((), seeds, None, None, tf.int64)
            examples = examples.shuffle(10_000, seed, reshuffle_each_iteration=False)
        return examples.enumerate(number * count)

    def is_of_process(position, _):
        place = position if options.repeat else position % count
        step, row = place // options.batch_size, place % options.batch_size
        rows_of_step = tf.where(step < full, tf.constant(rows, tf.int64), rest)
        first = options.process_index * rows_of_step
        return (first <= row) & (row < first + rows_of_step)

    numbers = tf.data.Dataset.range(first_epoch, 2**62) if options.repeat else epochs(options)
    examples = numbers.flat_map(epoch).skip(start)
    several = options.num_processes > 1
    examples = examples.filter(is_of_process) if several else examples.take(size)
    return examples.apply(tf.data.experimental.assert_cardinality(size))
