"""Seconds to draw images with models of pixels: with their caches, and by a full pass for each.

    python benchmarks/draw_pixels.py
    python benchmarks/draw_pixels.py --recipes=pixelcnn_cifar10,row_lstm_cifar10 --batch=8

The models are those of recipes in examples/recipes, with random weights. The naive loop, as most
public code has it, makes a full pass for each pixel, or for each colour of each where a model draws
them one after the other; it is timed for --naive_passes of them and scaled up to all. The Keras
backend is the one in KERAS_BACKEND.
"""

import keras
import measure
import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("recipes", ["pixelcnnpp_cifar10"], "Files in examples/recipes, without .py.")
flags.DEFINE_integer("batch", 16, "Images at a time.", lower_bound=1)
flags.DEFINE_integer("naive_passes", 4, "Full passes that are timed.", lower_bound=1)
flags.DEFINE_enum("clock", "wall", list(measure.CLOCKS), measure.CLOCK_HELP)


def build(name):
    recipe = measure.load_recipe(name)()
    model = recipe["pixel_model"](**recipe["model"])
    model.compile()
    return model


def table_row(name):
    model = build(name)
    images = np.zeros((FLAGS.batch, *model.image_shape), "uint8")

    def seconds(function, repeats=1):
        return measure.median_seconds(function, repeats, FLAGS.clock)

    def cached():
        model.generate(FLAGS.batch, batch_size=FLAGS.batch, verbose=0)

    first, drawing = seconds(cached), seconds(cached, 3)
    model.predict_on_batch(images)  # compiles
    naive = seconds(lambda: model.predict_on_batch(images), FLAGS.naive_passes)
    height, width, colours = model.image_shape
    naive *= height * width * (colours if model.distribution.colour_by_colour else 1)
    times = [f"{first:.1f}", f"{drawing:.2f}", f"{naive:.0f}", f"{naive / drawing:.0f}"]
    shape = f"{FLAGS.batch} of {height}x{width}"
    return [name, keras.backend.backend(), shape, f"{model.count_params():,}", *times]


def main(_):
    columns = ["recipe", "backend", "images", "parameters", "first, s", "cached, s", "naive, s"]
    rows = [table_row(name) for name in FLAGS.recipes]
    print(measure.markdown_table([*columns, "times faster"], rows), end="\n\n")
    print(measure.environment())


if __name__ == "__main__":
    app.run(main)
