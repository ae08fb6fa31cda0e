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
"""

import sys
from pathlib import Path

from absl import app, flags

import keras_vqvae2
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
flags.mark_flags_as_required(["preset", "data", "output"])


def open_images(size):
    """All passes over the images, in an order that stays, and the names of their classes."""
    folder = Path(FLAGS.data)
    options = {"batch_size": FLAGS.batch_size, "labels": FLAGS.labels}
    if folder.is_dir() and not (folder / "dataset_info.json").exists():
        open_pass = keras_vqvae2.data.images_from_folder
        names = keras_vqvae2.data.class_names(folder) if FLAGS.labels else None
    else:
        open_pass = keras_vqvae2.data.images_from_tfds
        options["split"] = FLAGS.source_split or FLAGS.split
        tfds = import_tfds()
        builder = (
            tfds.builder_from_directory(folder) if folder.is_dir() else tfds.builder(FLAGS.data)
        )
        names = builder.info.features["label"].names if FLAGS.labels else None
    images = open_pass(FLAGS.data, size, **options)
    for seed in range(FLAGS.crops):
        options |= {"resize": FLAGS.resize, "crop": "random", "flip": True, "seed": seed}
        images = images.concatenate(open_pass(FLAGS.data, size, **options))
    return images, names


def main(_):
    try:
        vqvae = keras_vqvae2.VQVAE2.from_preset(FLAGS.preset)
        if FLAGS.crops and (FLAGS.resize or 0) <= min(vqvae.image_shape[:2]):
            raise ValueError(
                f"Random crops of {vqvae.image_shape[:2]} expected a --resize above "
                f"{min(vqvae.image_shape[:2])}. Received: --resize={FLAGS.resize}"
            )
        images, names = open_images(vqvae.image_shape[:2])
        keras_vqvae2.data.encode_dataset(
            vqvae,
            images,
            FLAGS.output,
            FLAGS.split,
            class_names=names,
            flips=FLAGS.flips,
            shard_size=FLAGS.shard_size,
        )
    except (ValueError, FileNotFoundError, ImportError) as error:
        sys.exit(f"encode_dataset: {error}")
    print(f"Wrote the split {FLAGS.split!r} of {FLAGS.output}.")


if __name__ == "__main__":
    app.run(main)
