"""Seconds to draw images with a model of pixels: with its cache, and by a full pass for each pixel.

    python benchmarks/draw_pixels.py --batch=16

The naive loop, as most public code has it, is timed for --naive_pixels pixels and scaled up to all
of them. Sizes are those of examples/recipes/pixelcnnpp_cifar10.py; the Keras backend is the one in
KERAS_BACKEND.
"""

import math
import time

import keras
import numpy as np
from absl import app, flags

import keras_vqvae2

FLAGS = flags.FLAGS
flags.DEFINE_integer("batch", 16, "Images at a time.", lower_bound=1)
flags.DEFINE_integer("size", 32, "Height and width of the images.", lower_bound=4)
flags.DEFINE_integer("hidden_units", 40, "Features of a stream.", lower_bound=1)
flags.DEFINE_integer("num_blocks", 1, "Blocks of a group.", lower_bound=1)
flags.DEFINE_integer("naive_pixels", 4, "Pixels that the naive loop is timed for.", lower_bound=1)


def seconds(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main(arguments):
    shape = (FLAGS.size, FLAGS.size, 3)
    model = keras_vqvae2.PixelCNNPlusPlus(
        shape, hidden_units=FLAGS.hidden_units, num_blocks=FLAGS.num_blocks, num_mixtures=5
    )
    model.compile()
    images = np.zeros((FLAGS.batch, *shape), "uint8")

    def cached(seed):
        model.generate(FLAGS.batch, seed=seed, batch_size=FLAGS.batch, verbose=0)

    def full_passes(count):
        for _ in range(count):
            model.predict_on_batch(images)

    compiling = seconds(lambda: cached(0))
    drawing = min(seconds(lambda seed=seed: cached(seed)) for seed in (1, 2))
    full_passes(1)
    naive = seconds(lambda: full_passes(FLAGS.naive_pixels)) / FLAGS.naive_pixels
    naive *= math.prod(shape[:2])
    print("| backend | images | parameters | first, s | cached, s | naive, s | times faster |")
    print(
        f"| {keras.backend.backend()} | {FLAGS.batch} of {FLAGS.size}x{FLAGS.size} "
        f"| {model.count_params():,} | {compiling:.1f} | {drawing:.2f} | {naive:.0f} "
        f"| {naive / drawing:.0f} |"
    )


if __name__ == "__main__":
    app.run(main)
