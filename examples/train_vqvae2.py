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
    checkpoint-N.keras      model and optimizer; --resume goes on from it, after a kill too. SIGTERM
                            writes one (checkpoint-N-<step>.keras) and ends the run with exit code 0
    plan.json               what the run was begun with; --resume refuses what would make another
                            run of it, and says what it goes on with instead
    preset/                 the trained model, for keras_vqvae2.VQVAE2.from_preset
    metrics.json            the metrics on the whole validation set

On a machine with several devices all take part; --batch_size stays the whole batch's. Of several
processes (docs/scaling.md) each takes its part of a batch, and the first one writes; all must see
the folder --output:

    torchrun --nproc-per-node=8 examples/train_vqvae2.py --data=photos --output=runs/photos

The Keras backend is the one in KERAS_BACKEND (tensorflow, jax or torch).
"""

import importlib.util
import time
from pathlib import Path

import command_line
import image_sources
import keras
import run_folder
from absl import flags

import keras_vqvae2

DEFAULT_RECIPE = Path(__file__).parent / "recipes" / "vqvae2_imagenette_128.py"

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(run_folder)
command_line.define("data", "xla")
flags.DEFINE_string("validation", None, "Images held out from training, likewise; none by default.")
flags.DEFINE_string("recipe", str(DEFAULT_RECIPE), "Python file with a function `recipe`.")
flags.DEFINE_integer(
    "image_size", None, "Height and width of the images; overrides the recipe.", lower_bound=1
)
flags.DEFINE_enum("log", "csv", ["csv", "tensorboard"], "tensorboard: event files beside log.csv.")
flags.DEFINE_integer("picture_every", 1, "Epochs between two pictures.", lower_bound=1)
flags.DEFINE_integer(
    "validation_images", 256, "Validation images an epoch; all of them at the end.", lower_bound=1
)
flags.mark_flags_as_required(["data", "output"])


def load_recipe():
    """The recipe of --recipe with the flags that override it."""
    recipe = run_folder.load_recipe(FLAGS.recipe, needs=["model", "data"])
    if FLAGS.image_size is not None:
        channels = recipe["model"]["image_shape"][-1]
        recipe["model"]["image_shape"] = (FLAGS.image_size, FLAGS.image_size, channels)
    return recipe


def build(recipe):
    model = keras_vqvae2.VQVAE2(**recipe["model"], **command_line.precision())
    jit_compile = run_folder.jit_compile(recipe)
    model.compile(optimizer=recipe["optimizer"], jit_compile=jit_compile)
    return model


def train(parallel, own_recipe=None, own_build=None):
    """Trains; `examples/finetune_decoder.py` has a recipe and a model of its own."""
    output = command_line.folder_to_write("output")
    if FLAGS.log == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        raise ImportError("--log=tensorboard needs `pip install tensorboard`.")
    data = image_sources.find("data", "train")
    held_out = image_sources.find("validation", "test", "validation") if FLAGS.validation else None
    keras.utils.set_random_seed(FLAGS.seed)
    with parallel.scope():
        recipe = (own_recipe or load_recipe)()
        run_folder.check_devices(recipe, parallel)
        per_epoch = recipe["steps_per_epoch"]
        plan = run_folder.plan_of(
            recipe,
            data={**data.content, **recipe["data"]},
            data_path=FLAGS.data,
            validation=FLAGS.validation,
            validation_images=FLAGS.validation_images,
            log=FLAGS.log,
            picture_every=FLAGS.picture_every,
        )
        model, epoch, step = run_folder.restore_or_build(
            output, lambda: (own_build or build)(recipe), plan, parallel
        )
    epochs = -(-recipe["steps"] // per_epoch)
    first = parallel.process_index == 0
    if first:
        run_folder.announce(
            f"{type(model).__name__} {recipe['model']['image_shape']}",
            model,
            f"{data.text}; validation: {held_out.text if held_out else 'none'}",
            recipe,
            (epoch, step),
            output,
            parallel,
        )
    size = (recipe["model"]["image_shape"][:2], recipe["batch_size"])
    images = data.open(
        *size,
        shuffle=True,
        repeat=True,
        seed=FLAGS.seed,
        start_step=epoch * per_epoch + step,
        **recipe["data"],
        **parallel.process,
    )
    options = run_folder.validation_options(parallel)
    shown = (held_out or data).open(*size, shuffle=True, seed=1, **options)
    pictures = keras.ops.convert_to_numpy(next(iter(shown)))[:8]
    fit_options = {}
    if held_out:
        fit_options["validation_data"] = parallel.distribute(shown)
        fit_options["validation_steps"] = -(-FLAGS.validation_images // recipe["batch_size"])

    callbacks = run_folder.callbacks(output, epoch, step, parallel)
    if first:
        folder, every = output / "pictures", FLAGS.picture_every
        callbacks.insert(0, keras_vqvae2.callbacks.ReconstructionGrid(pictures, folder, every))
    if first and FLAGS.log == "tensorboard":
        callbacks.append(keras.callbacks.TensorBoard(output / "tensorboard"))
    started = time.time()
    history = model.fit(
        parallel.distribute(images),
        epochs=epochs,
        initial_epoch=epoch,
        steps_per_epoch=per_epoch,
        callbacks=run_folder.committing(callbacks),
        verbose="auto" if first else 0,
        **fit_options,
    )
    seconds = time.time() - started
    run_folder.check_trained(history)

    measured = None
    if held_out:
        measured = model.evaluate(
            parallel.distribute(held_out.open(*size, **options)),
            return_dict=True,
            verbose="auto" if first else 0,
        )
    if not first:
        return
    metadata = run_folder.provenance(FLAGS.recipe)
    with parallel.alone():
        model.save_to_preset(output / "preset", metadata=metadata)
    metrics = {
        "parameters": model.count_params(),
        "steps": epochs * per_epoch,
        "seconds": round(seconds),
    }
    if measured is not None:
        metrics["validation"] = measured
    run_folder.write_metrics(output, metrics)


if __name__ == "__main__":
    run_folder.run("train_vqvae2", train)
