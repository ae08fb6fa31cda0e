"""Encodes images into a data set of codes, on which examples/train_prior.py trains.

    python examples/encode_dataset.py --preset=vqvae2_imagenette_128 --data=imagenette/train \\
        --flips --output=runs/codes
    python examples/encode_dataset.py --preset=vqvae2_imagenette_128 --data=imagenette/validation \\
        --split=validation --output=runs/codes

A small set of images goes further with --crops=N: N further passes, in which each image is scaled
so that its shorter side is --resize, cut at random and mirrored at random.

--data is a folder with a folder a class (or, with --nolabels, any folder of images), a TFDS name or
the directory of a prepared TFDS data set. What is written is a TFDS data set again. Shards appear
when they are complete: after a kill the same command goes on behind the last one.

Several processes, here or on machines that share --output, divide the shards among them. Started
at any time and in any order, each writes its own, and the last to finish makes a data set of them:

    for worker in 0 1 2 3; do
        CUDA_VISIBLE_DEVICES=$worker python examples/encode_dataset.py --num_workers=4 \\
            --worker=$worker --engine=grain --preset=vqvae2_imagenette_128 \\
            --data=imagenette/train --output=runs/codes &
    done; wait

All must count the images of a folder alike, so several workers read it with --engine=grain, which
replaces files that do not decode where tf.data leaves them out.
"""

import functools
import sys
from pathlib import Path

from absl import app, flags

import keras_vqvae2
from keras_vqvae2.data.image_folder import list_images
from keras_vqvae2.data.optional_imports import import_tfds

FLAGS = flags.FLAGS
flags.DEFINE_string("preset", None, "Name or directory of the VQVAE2 preset.")
flags.DEFINE_string("data", None, "Images: a folder, a TFDS name or directory.")
flags.DEFINE_string("output", None, "Directory of the data set of codes.")
flags.DEFINE_string("split", "train", "Name of the split to write.")
flags.DEFINE_string("source_split", None, "Split of a TFDS source; that of --split by default.")
flags.DEFINE_bool("labels", True, "Whether the images have labels, which are kept.")
flags.DEFINE_bool("flips", False, "Encode the images mirrored as well, in a second pass.")
flags.DEFINE_integer("crops", 0, "Further passes with random crops.", lower_bound=0)
flags.DEFINE_integer("resize", None, "Shorter side before a random crop, in pixels.")
flags.DEFINE_integer("batch_size", 32, "Images at a time.", lower_bound=1)
flags.DEFINE_integer("shard_size", 2048, "Examples a file.", lower_bound=1)
flags.DEFINE_enum("engine", "tf.data", ["tf.data", "grain"], "What reads a folder.")
flags.DEFINE_integer("num_workers", 1, "Processes that share the work.", lower_bound=1)
flags.DEFINE_integer("worker", 0, "Which of them this one is.", lower_bound=0)
flags.mark_flags_as_required(["preset", "data", "output"])


def open_images(size):
    """All passes over the images, in an order that stays.

    Returns:
        What opens each pass at a batch, the number of images of a pass (None if it shows only as
        they are read) and the names of the classes.
    """
    folder = Path(FLAGS.data)
    options = {"batch_size": FLAGS.batch_size, "labels": FLAGS.labels}
    if folder.is_dir() and not (folder / "dataset_info.json").exists():
        open_pass = keras_vqvae2.data.images_from_folder
        options["engine"] = FLAGS.engine
        names = keras_vqvae2.data.class_names(folder) if FLAGS.labels else None
        # tf.data leaves out files that do not decode.
        count = len(list_images(folder)) if FLAGS.engine == "grain" else None
        if count is None and FLAGS.num_workers > 1:
            raise ValueError(
                "Several workers expected --engine=grain to read a folder. "
                f"Received: --engine={FLAGS.engine}"
            )
    else:
        open_pass = keras_vqvae2.data.images_from_tfds
        options["split"] = FLAGS.source_split or FLAGS.split
        tfds = import_tfds()
        builder = (
            tfds.builder_from_directory(folder) if folder.is_dir() else tfds.builder(FLAGS.data)
        )
        names = builder.info.features["label"].names if FLAGS.labels else None
        builder.download_and_prepare()
        count = builder.info.splits[options["split"]].num_examples
    passes = [options]
    for seed in range(FLAGS.crops):
        cropped = {"resize": FLAGS.resize, "crop": "random", "flip": True, "seed": seed}
        passes.append({**options, **cropped})
    passes = [functools.partial(open_pass, FLAGS.data, size, **options) for options in passes]
    return passes, count, names


def main(_):
    try:
        vqvae = keras_vqvae2.VQVAE2.from_preset(FLAGS.preset)
        if FLAGS.crops and (FLAGS.resize or 0) <= min(vqvae.image_shape[:2]):
            raise ValueError(
                f"Random crops of {vqvae.image_shape[:2]} expected a --resize above "
                f"{min(vqvae.image_shape[:2])}. Received: --resize={FLAGS.resize}"
            )
        images, count, names = open_images(vqvae.image_shape[:2])
        keras_vqvae2.data.encode_dataset(
            vqvae,
            images,
            FLAGS.output,
            FLAGS.split,
            class_names=names,
            flips=FLAGS.flips,
            shard_size=FLAGS.shard_size,
            num_images=count,
            num_workers=FLAGS.num_workers,
            worker=FLAGS.worker,
        )
    except (ValueError, FileNotFoundError, ImportError) as error:
        sys.exit(f"encode_dataset: {error}")
    part = f"part {FLAGS.worker} of " if FLAGS.num_workers > 1 else ""
    print(f"Wrote {part}the split {FLAGS.split!r} of {FLAGS.output}.")


if __name__ == "__main__":
    app.run(main)
