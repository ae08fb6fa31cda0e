"""Draws images with a model of pixels, such as PixelCNN++, into one picture, a row a class.

    python examples/draw_pixels.py --preset=pixelcnnpp_cifar10_32 --output=runs/pixels
    python examples/draw_pixels.py --preset=runs/pixelcnnpp/preset --output=runs/pixels

The folder --output receives

    images.npy    uint8, shape (images, height, width, colours), class after class
    images.png    the same as a picture

The Keras backend is the one in KERAS_BACKEND (tensorflow, jax or torch).
"""

import time

import command_line
import numpy as np
import reports
from absl import flags

import keras_vqvae2
from keras_vqvae2.files import replacing

FLAGS = flags.FLAGS
command_line.define(
    "preset", "output", "images_per_class", "batch_size", "seed", "precision", "register"
)
flags.DEFINE_float("temperature", 1.0, "Below 1 draws what is more probable.", lower_bound=0.0)
flags.DEFINE_list("class_names", [], "What the picture calls the classes; numbers by default.")
flags.mark_flags_as_required(["preset", "output"])


def draw():
    output = command_line.folder_to_write("output")
    model = keras_vqvae2.PixelModel.from_preset(FLAGS.preset, **command_line.precision())
    if model.image_shape[-1] not in (1, 3):
        raise ValueError(
            "Expected a model of images with 1 or 3 colours, which a picture can show; "
            "PixelModel.generate draws any. "
            f"Received: --preset={FLAGS.preset} of images of {model.image_shape}"
        )
    classes = model.num_classes or 1
    names = FLAGS.class_names or ([str(i) for i in range(classes)] if model.num_classes else [""])
    if len(names) != classes:
        raise ValueError(
            f"Expected {classes} names, one a class of the model. "
            f"Received: --class_names={','.join(names)}"
        )
    count = classes * FLAGS.images_per_class
    command_line.announce(
        f"{type(model).__name__} {FLAGS.preset}",
        [model],
        "none",
        f"draw {count} images of {classes} classes, {FLAGS.batch_size} at a time",
        output,
    )
    labels = np.repeat(np.arange(classes), FLAGS.images_per_class)
    started = time.time()
    images = model.generate(
        count,
        labels if model.num_classes else None,
        temperature=FLAGS.temperature,
        seed=FLAGS.seed,
        batch_size=FLAGS.batch_size,
    )
    with replacing(output / "images.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, images)
    pixels = images / (model.levels - 1)
    reports.save_grid(pixels, names, output / "images.png", f"{FLAGS.preset}: drawn pixel by pixel")
    print(f"Wrote {output / 'images.png'}: {count} images in {time.time() - started:.1f} s.")


if __name__ == "__main__":
    command_line.run("draw_pixels", draw)
