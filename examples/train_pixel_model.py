"""Trains a model of pixels, such as PixelCNN++, on a folder of images or a TFDS data set.

    python examples/train_pixel_model.py --data=photos --validation=held_out --output=runs/pixels
    python examples/train_pixel_model.py --recipe=examples/recipes/pixelcnnpp_cifar10.py \\
        --data=cifar10 --validation=cifar10 --output=runs/pixelcnnpp

A recipe is one Python file with a function `recipe(laptop)` that returns the class of the model
(any `keras_vqvae2.PixelModel`), its arguments, the data options, whether it is told labels, the
optimizer and the number of steps. Flags on the command line win over it. The folder --output
receives

    log.csv                 nats and bits a dimension, training and validation, an epoch a row
    log.png                 the same as a picture
    pictures/epoch-N.png    images that the model invents, on request (--samples_every)
    checkpoint-N.keras      model and optimizer; --resume goes on from it, after a kill too. SIGTERM
                            writes one (checkpoint-N-<step>.keras) and ends the run with exit code 0
    plan.json               what the run was begun with; --resume refuses what would make another
                            run of it, and says what it goes on with instead
    best.json, preset/      the model of the best epoch by validation loss (averaged weights, where
                            the recipe's optimizer averages), for PixelModel.from_preset
    metrics.json            its numbers on all images held out

Several devices and processes: as in train_vqvae2.py.

The Keras backend is the one in KERAS_BACKEND (tensorflow, jax or torch).
"""

import math
import time
from pathlib import Path

import command_line
import image_sources
import keras
import numpy as np
import run_folder
from absl import flags

import keras_vqvae2
from keras_vqvae2.plots import save_image_rows

DEFAULT_RECIPE = Path(__file__).parent / "recipes" / "pixelcnnpp_cifar10.py"
START = 128  # images that a data-dependent start looks at

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(run_folder)
command_line.define("data", "xla", "patience")
flags.DEFINE_string("validation", None, "Images held out from training, likewise; none by default.")
flags.DEFINE_string("recipe", str(DEFAULT_RECIPE), "Python file with a function `recipe`.")
flags.DEFINE_integer(
    "samples_every", 0, "Epochs between pictures of invented images; 0 for none.", lower_bound=0
)
flags.DEFINE_integer(
    "validation_images", 256, "Validation images an epoch; all of them at the end.", lower_bound=1
)
flags.mark_flags_as_required(["data", "output"])


def load_recipe():
    recipe = run_folder.load_recipe(
        FLAGS.recipe, needs=["model", "data"], takes=["pixel_model", "labels", "patience"]
    )
    model = recipe.get("pixel_model")
    if not (isinstance(model, type) and issubclass(model, keras_vqvae2.PixelModel)):
        raise ValueError(
            'Expected a recipe with a class of models of pixels, such as "pixel_model": '
            f"keras_vqvae2.PixelCNNPlusPlus. Received: {model} in --recipe={FLAGS.recipe}"
        )
    return recipe


def build(recipe):
    model = recipe["pixel_model"](**recipe["model"], **command_line.precision())
    jit_compile = run_folder.jit_compile(recipe, default=True)
    model.compile(optimizer=recipe["optimizer"], jit_compile=jit_compile)
    return model


def as_the_model_takes_them(dataset, recipe):
    """Batches of images or of images and labels, in the model's colours and form."""
    grey = recipe["model"]["image_shape"][-1] == 1

    def convert(*batch):
        batch = batch[0] if isinstance(batch[0], tuple) else batch  # Grain's are one argument
        images = batch[0]
        if grey:
            total = images[..., :1] + images[..., 1:2] + images[..., 2:]
            images = ((85.0 * total + 0.5) // 1) / 255.0  # the mean, a whole level again
        return {"image": images, "label": batch[1]} if recipe["labels"] else images

    return dataset.map(convert)


class Pictures(keras.callbacks.Callback):
    """Draws images every few epochs."""

    def __init__(self, folder, every):
        super().__init__()
        self.folder, self.every = folder, every

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every:
            return
        classes = self.model.num_classes
        labels = None if classes is None else np.arange(16) % classes
        images = self.model.generate(16, labels, verbose=0) / (self.model.levels - 1)
        rows = {f"{first}-{first + 3}": images[first : first + 4] for first in range(0, 16, 4)}
        save_image_rows(rows, self.folder / f"epoch-{epoch + 1}.png")


def train(parallel):
    output = command_line.folder_to_write("output")
    labels = bool(load_recipe().get("labels"))
    data = image_sources.find("data", "train", labels=labels)
    held_out = None
    if FLAGS.validation:
        held_out = image_sources.find("validation", "test", "validation", labels=labels)
        if held_out.class_names != data.class_names:
            raise ValueError(
                f"Expected the classes {data.class_names}. Received: {held_out.class_names} in "
                f"--validation={FLAGS.validation}"
            )
    keras.utils.set_random_seed(FLAGS.seed)
    with parallel.scope():
        recipe = load_recipe()
        if labels:
            recipe["model"] = {**recipe["model"], "num_classes": len(data.class_names)}
        run_folder.check_devices(recipe, parallel)
        per_epoch = recipe["steps_per_epoch"]
        patience = FLAGS.patience or recipe.get("patience")
        plan = run_folder.plan_of(
            recipe,
            data={**data.content, **recipe["data"]},
            data_path=FLAGS.data,
            validation=FLAGS.validation,
            validation_images=FLAGS.validation_images,
            samples_every=FLAGS.samples_every,
            patience=patience,
        )
        model, epoch, step = run_folder.restore_or_build(
            output, lambda: build(recipe), plan, parallel
        )
    size = recipe["model"]["image_shape"][:2]
    batch = recipe["batch_size"]

    def open_images(source, batch_size=batch, **options):
        opened = source.open(size, batch_size, labels=labels, **options)
        return as_the_model_takes_them(opened, recipe)

    if getattr(model, "is_fresh", False):
        # The same images in every process.
        first = open_images(data, START, shuffle=True, seed=FLAGS.seed)
        model.start(keras.tree.map_structure(np.asarray, next(iter(first))))
    epochs = -(-recipe["steps"] // per_epoch)
    is_first = parallel.process_index == 0
    verbose = "auto" if is_first else 0
    if is_first:
        run_folder.announce(
            f"{type(model).__name__} {model.image_shape}",
            model,
            f"{data.text}; validation: {held_out.text if held_out else 'none'}",
            recipe,
            (epoch, step),
            output,
            parallel,
        )
    images = open_images(
        data,
        shuffle=True,
        repeat=True,
        seed=FLAGS.seed,
        start_step=epoch * per_epoch + step,
        **recipe["data"],
        **parallel.process,
    )
    options = run_folder.validation_options(parallel)
    metadata = run_folder.provenance(FLAGS.recipe)
    callbacks = run_folder.callbacks(output, epoch, step, parallel)
    kept, best, epochs = run_folder.best_callbacks(
        output, model, epoch, epochs, patience, metadata, held_out is not None
    )
    callbacks += kept
    if is_first:
        uniform = {"uniform": math.log2(model.levels)}
        title = type(model).__name__
        callbacks.append(
            run_folder.Curves(output, recipe, "bits/dim", title, uniform, "bits_per_dim")
        )
        if FLAGS.samples_every:
            callbacks.append(Pictures(output / "pictures", FLAGS.samples_every))
    fit_options = {}
    if held_out:
        shown = open_images(held_out, shuffle=True, seed=1, **options)
        fit_options["validation_data"] = parallel.distribute(shown)
        fit_options["validation_steps"] = -(-FLAGS.validation_images // batch)
    started = time.time()
    history = model.fit(
        parallel.distribute(images),
        epochs=epochs,
        initial_epoch=epoch,
        steps_per_epoch=per_epoch,
        callbacks=run_folder.committing(callbacks),
        verbose=verbose,
        **fit_options,
    )
    run_folder.check_trained(history)
    metrics = {
        "parameters": model.count_params(),
        "steps": epochs * per_epoch,
        "seconds": round(time.time() - started),
    }
    if held_out:
        # Every process has the best epoch in mind; the first one has finished writing it.
        parallel.wait()
        metrics["steps"] = run_folder.best_epoch(best) * per_epoch
        with parallel.scope():
            model = keras_vqvae2.PixelModel.from_preset(
                output / "preset", **command_line.precision()
            )
            model.compile()
        metrics["validation"] = model.evaluate(
            parallel.distribute(open_images(held_out, **options)), return_dict=True, verbose=verbose
        )
    if not is_first:
        return
    if not held_out:
        with parallel.alone():
            model.save_to_preset(output / "preset", metadata=metadata)
    run_folder.write_metrics(output, metrics)


if __name__ == "__main__":
    run_folder.run("train_pixel_model", train)
