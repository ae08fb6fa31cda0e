"""Encodes images into a data set of codes, on which examples/train_prior.py trains.

    python examples/encode_dataset.py --preset=vqvae2_imagenette_128 --data=imagenette/train \\
        --flips --output=runs/codes
    python examples/encode_dataset.py --preset=vqvae2_imagenette_128 --data=imagenette/validation \\
        --split=validation --output=runs/codes

A small set of images goes further with --crops=N: N further passes, in which each image is scaled
so that its shorter side is --resize, cut at random and mirrored at random.

--preset is that of a VQVAE2. --data is a folder with a folder a class (or, with --nolabels, any
folder of images), a TFDS name or the directory of a prepared TFDS data set. What is written is a
TFDS data set again. Shards appear when they are complete: after a kill the same command goes on
behind the last one.

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

import command_line
import image_sources
from absl import flags

import keras_vqvae2

FLAGS = flags.FLAGS
command_line.define("preset", "data", "output", "batch_size", "engine", "num_workers", "worker")
command_line.define("register")
flags.DEFINE_string("split", "train", "Name of the split to write.")
flags.DEFINE_string("source_split", None, "Split of a TFDS source; that of --split by default.")
flags.DEFINE_bool("labels", True, "Whether the images have labels, which are kept.")
flags.DEFINE_bool("flips", False, "Encode the images mirrored as well, in a second pass.")
flags.DEFINE_integer("crops", 0, "Further passes with random crops.", lower_bound=0)
flags.DEFINE_integer("resize", None, "Shorter side before a random crop, in pixels.", lower_bound=1)
flags.DEFINE_integer("shard_size", 2048, "Examples a file.", lower_bound=1)
flags.mark_flags_as_required(["preset", "data", "output"])


def passes(images, size):
    """What opens each pass over the images at a batch, in an order that stays."""
    options = {"batch_size": FLAGS.batch_size, "labels": FLAGS.labels}
    result = [options]
    for seed in range(FLAGS.crops):
        cropped = {"resize": FLAGS.resize, "crop": "random", "flip": True, "seed": seed}
        result.append({**options, **cropped})
    return [functools.partial(images.open, size, **options) for options in result]


def encode():
    command_line.check_worker()
    command_line.folder_to_write("output")
    vqvae = keras_vqvae2.VQVAE2.from_preset(FLAGS.preset)
    size = vqvae.image_shape[:2]
    if FLAGS.crops and (FLAGS.resize or 0) <= min(size):
        raise ValueError(
            f"Random crops of {size} expected a --resize above {min(size)}. "
            f"Received: --resize={FLAGS.resize}"
        )
    images = image_sources.find("data", FLAGS.source_split or FLAGS.split, labels=FLAGS.labels)
    count = images.count
    if images.is_folder and FLAGS.engine == "tf.data":  # leaves out files that do not decode
        count = None
        if FLAGS.num_workers > 1:
            raise ValueError(
                "Several workers expected --engine=grain to read a folder. "
                f"Received: --engine={FLAGS.engine}"
            )
    classes = f", {len(images.class_names)} classes" if images.class_names else ""
    mirrored = " and as many mirrored" if FLAGS.flips else ""
    work = f"{1 + FLAGS.crops} passes{mirrored}, {FLAGS.batch_size} images at a time"
    part = f"part {FLAGS.worker} of {FLAGS.num_workers} of " if FLAGS.num_workers > 1 else ""
    command_line.announce(
        f"VQVAE2 {FLAGS.preset} {vqvae.image_shape}",
        [vqvae],
        images.text + classes,
        work,
        f"{FLAGS.output}, {part}the split {FLAGS.split}",
    )
    keras_vqvae2.codes.encode_dataset(
        vqvae,
        passes(images, size),
        FLAGS.output,
        FLAGS.split,
        class_names=images.class_names,
        flips=FLAGS.flips,
        shard_size=FLAGS.shard_size,
        num_images=count,
        num_workers=FLAGS.num_workers,
        worker=FLAGS.worker,
    )
    part = f"part {FLAGS.worker} of " if FLAGS.num_workers > 1 else ""
    print(f"Wrote {part}the split {FLAGS.split!r} of {FLAGS.output}.")


if __name__ == "__main__":
    command_line.run("encode_dataset", encode, "The same command goes on.")
