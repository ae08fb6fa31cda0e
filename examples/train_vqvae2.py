"""Trains a VQ-VAE-2 (stage 1) on a folder of images or a TFDS data set.

On your own photographs:

    python examples/train_vqvae2.py --data=photos --output=runs/photos

The bundled preset, from its recipe:

    python examples/train_vqvae2.py --recipe=examples/recipes/vqvae2_imagenette_128.py \\
        --data=imagenette/train --validation=imagenette/validation --output=runs/imagenette

A recipe is one Python file with a function `recipe(laptop)` that returns the model's arguments, the
data options, the optimizer and the number of steps. Flags given on the command line win over it.
The folder --output receives

    log.csv                 loss, PSNR, code usage, ... an epoch a row (and TensorBoard on request)
    pictures/epoch-N.png    original, reconstruction, what the top level alone holds
    checkpoint-N.keras      model and optimizer; --resume goes on from it, after a kill too
    preset/                 the trained model, for keras_vqvae2.VQVAE2.from_preset
    metrics.json            the metrics on the whole validation set

The Keras backend is the one in KERAS_BACKEND (tensorflow, jax or torch).
"""

import importlib.util
import sys
import time
from pathlib import Path

import keras
import run_folder
from absl import app, flags

import keras_vqvae2

DEFAULT_RECIPE = Path(__file__).parent / "recipes" / "vqvae2_imagenette_128.py"

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(run_folder)
flags.DEFINE_string(
    "data", None, "Training images: a folder (nested or flat), a TFDS name or directory."
)
flags.DEFINE_string("validation", None, "Validation images, likewise. Default: none.")
flags.DEFINE_string("output", None, "Folder of the run; made if it is missing.")
flags.DEFINE_string("recipe", str(DEFAULT_RECIPE), "Python file with a function `recipe`.")
flags.DEFINE_integer("image_size", None, "Height and width of the images; overrides the recipe.")
flags.DEFINE_enum("log", "csv", ["csv", "tensorboard"], "tensorboard: event files beside log.csv.")
flags.DEFINE_integer("picture_every", 1, "Epochs between two pictures.")
flags.DEFINE_integer(
    "validation_images", 256, "Validation images an epoch; all of them at the end."
)
flags.mark_flags_as_required(["data", "output"])


def load_recipe():
    """The recipe of --recipe with the flags that override it."""
    recipe = run_folder.load_recipe(FLAGS.recipe)
    if FLAGS.image_size is not None:
        channels = recipe["model"]["image_shape"][-1]
        recipe["model"]["image_shape"] = (FLAGS.image_size, FLAGS.image_size, channels)
    return recipe


def open_images(source, split, recipe, **options):
    """Images of a folder, a prepared TFDS directory or a TFDS data set."""
    size = tuple(recipe["model"]["image_shape"][:2])
    batch_size = recipe["batch_size"]
    folder = Path(source)
    if folder.is_dir() and not (folder / "dataset_info.json").exists():
        return keras_vqvae2.data.images_from_folder(folder, size, batch_size, **options)
    return keras_vqvae2.data.images_from_tfds(source, size, batch_size, split=split, **options)


def build(recipe):
    model = keras_vqvae2.VQVAE2(**recipe["model"], dtype=FLAGS.precision)
    model.compile(optimizer=recipe["optimizer"])
    return model


def callbacks(recipe, pictures, output, started_anew):
    steps = recipe["steps"]
    result = [
        keras.callbacks.CSVLogger(output / "log.csv", append=not started_anew),
        keras_vqvae2.callbacks.ReconstructionGrid(
            pictures, output / "pictures", every=FLAGS.picture_every
        ),
        keras_vqvae2.callbacks.TrainingCheckpoint(output),
    ]
    if FLAGS.log == "tensorboard":
        if importlib.util.find_spec("tensorboard") is None:
            raise ImportError("--log=tensorboard needs `pip install tensorboard`.")
        result.append(keras.callbacks.TensorBoard(output / "tensorboard"))
    print(f"Training for {steps} steps; see {output}/log.csv and {output}/pictures.")
    return result


def train():
    output = Path(FLAGS.output)
    recipe = load_recipe()
    keras.utils.set_random_seed(FLAGS.seed)
    model, epoch = run_folder.restore_or_build(output, FLAGS.resume, lambda: build(recipe))
    per_epoch = recipe["steps_per_epoch"]
    epochs = -(-recipe["steps"] // per_epoch)
    print(
        f"VQVAE2 {recipe['model']['image_shape']}, {model.count_params():,} parameters, backend "
        f"{keras.backend.backend()}, {FLAGS.precision}, epoch {epoch} of {epochs}."
    )
    images = open_images(
        FLAGS.data,
        "train",
        recipe,
        shuffle=True,
        repeat=True,
        seed=FLAGS.seed,
        start_step=epoch * per_epoch,
        **recipe["data"],
    )
    validation = None
    if FLAGS.validation:
        validation = open_images(FLAGS.validation, "test", recipe)
    shown = open_images(
        FLAGS.validation or FLAGS.data,
        "test" if FLAGS.validation else "train",
        recipe,
        shuffle=True,
        seed=1,
    )
    pictures = next(iter(shown))[:8].numpy()

    started = time.time()
    model.fit(
        images,
        epochs=epochs,
        initial_epoch=epoch,
        steps_per_epoch=per_epoch,
        validation_data=None if validation is None else shown,
        validation_steps=None
        if validation is None
        else -(-FLAGS.validation_images // recipe["batch_size"]),
        callbacks=callbacks(recipe, pictures, output, started_anew=epoch == 0),
    )
    seconds = time.time() - started

    metadata = run_folder.provenance(FLAGS.recipe)
    model.save_to_preset(output / "preset", metadata=metadata)
    metrics = {
        "parameters": model.count_params(),
        "steps": epochs * per_epoch,
        "seconds": round(seconds),
    }
    if validation is not None:
        metrics["validation"] = model.evaluate(validation, return_dict=True)
    run_folder.write_metrics(output, metrics)


def main(_):
    try:
        train()
    except (ValueError, FileNotFoundError, ImportError) as error:
        sys.exit(f"train_vqvae2: {error}")


if __name__ == "__main__":
    app.run(main)
