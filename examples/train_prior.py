"""Trains the prior of one level (stage 2) on a data set of codes.

The two levels of the bundled generator, on what examples/encode_dataset.py wrote:

    python examples/train_prior.py --codes=runs/codes --level=top --output=runs/prior_top
    python examples/train_prior.py --codes=runs/codes --level=bottom --output=runs/prior_bottom

The sizes of the maps, the coarser levels and the classes are read off the data set; the rest is the
recipe's: one Python file with a function `recipe(level, laptop)` that returns the class of the
prior (any `keras_vqvae2.CodePrior`), its arguments, the optimizer and the number of steps. Flags on
the command line win over it. The folder --output receives

    log.csv                 nats and bits a code, training and validation, ... an epoch a row
    log.png                 the same as a picture
    checkpoint-N.keras      model and optimizer; --resume goes on from it, after a kill too. SIGTERM
                            writes one (checkpoint-N-<step>.keras) and ends the run with exit code 0
    plan.json               what the run was begun with; --resume refuses what would make another
                            run of it, and says what it goes on with instead
    best.json, preset/      the prior of the best epoch by validation loss (averaged weights, where
                            the recipe's optimizer averages), for CodePrior.from_preset
    metrics.json            its nats a code on the whole validation split, and on as many training
                            examples

Several devices and processes: as in train_vqvae2.py. Where one device does not hold the prior,
--model_parallel=N (JAX, one process) splits its weights over groups of N devices, which share out
the batch.

The Keras backend is the one in KERAS_BACKEND (tensorflow, jax or torch).
"""

import inspect
import math
import time
from pathlib import Path

import command_line
import keras
import run_folder
from absl import flags

import keras_vqvae2

DEFAULT_RECIPE = Path(__file__).parent / "recipes" / "priors_imagenette_128.py"

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(run_folder)
command_line.define("codes", "xla", "patience")
flags.DEFINE_string("level", None, "The level to model, such as top.")
flags.DEFINE_string("recipe", str(DEFAULT_RECIPE), "Python file with a function `recipe`.")
flags.DEFINE_string("train_split", "train", "Split to train on.")
flags.DEFINE_string("validation_split", "validation", "Split to stop by; empty for none.")
flags.DEFINE_bool("gradient_checkpointing", False, "Less memory, a third more time.")
flags.DEFINE_integer(
    "validation_examples",
    512,
    "Validation examples an epoch; all of them at the end.",
    lower_bound=1,
)
flags.DEFINE_integer(
    "model_parallel", 1, "Devices that share out the weights of the prior (JAX).", lower_bound=1
)
flags.mark_flags_as_required(["codes", "level", "output"])


def load_recipe():
    """The recipe of --recipe, whose prior is a class that takes what the flags ask for."""
    recipe = run_folder.load_recipe(
        FLAGS.recipe, needs=["model"], takes=["prior", "patience"], level=FLAGS.level
    )
    prior = recipe.get("prior")
    if not (isinstance(prior, type) and issubclass(prior, keras_vqvae2.CodePrior)):
        raise ValueError(
            'Expected a recipe with a class of priors, such as "prior": '
            f"keras_vqvae2.PixelSnailPrior. Received: {prior} in --recipe={FLAGS.recipe}"
        )
    takes = {
        "gradient_checkpointing": "gradient_checkpointing" in inspect.signature(prior).parameters,
        "model_parallel": hasattr(prior, "get_layout_map"),
    }
    for name, does in takes.items():
        if not does and FLAGS[name].value != FLAGS[name].default:
            raise ValueError(
                f"Expected --{name}={FLAGS[name].default} for a {prior.__name__}, which does not "
                f"offer it. Received: --{name}={FLAGS[name].value}"
            )
    return recipe


def build(recipe, arguments):
    if FLAGS.gradient_checkpointing:
        arguments = {**arguments, "gradient_checkpointing": True}
    arguments = {**recipe["model"], **arguments, **command_line.precision()}
    prior = recipe["prior"](**arguments)
    jit_compile = run_folder.jit_compile(recipe, default=True)
    prior.compile(optimizer=recipe["optimizer"], jit_compile=jit_compile)
    return prior


def check_splits(info):
    for name in ("train_split", "validation_split"):
        split = FLAGS[name].value
        if split and split.split("[")[0] not in info.splits:
            raise ValueError(
                f"Expected one of the splits {sorted(info.splits)} of {FLAGS.codes}, or no "
                f"validation by --validation_split= with nothing. Received: --{name}={split}"
            )


def train(parallel):
    output = command_line.folder_to_write("output")
    info = keras_vqvae2.codes.open_code_dataset(FLAGS.codes).info
    arguments = keras_vqvae2.codes.prior_arguments(FLAGS.codes, FLAGS.level)
    check_splits(info)
    if FLAGS.model_parallel > 1:
        get_layout_map = load_recipe()["prior"].get_layout_map
        parallel.split_weights(FLAGS.model_parallel, get_layout_map)
    keras.utils.set_random_seed(FLAGS.seed)
    with parallel.scope():
        recipe = load_recipe()
        run_folder.check_devices(recipe, parallel)
        per_epoch = recipe["steps_per_epoch"]
        patience = FLAGS.patience or recipe.get("patience")
        plan = run_folder.plan_of(
            recipe,
            level=FLAGS.level,
            codes={
                "fingerprint": arguments["codes_fingerprint"],
                FLAGS.train_split: info.splits[FLAGS.train_split].num_examples,
            },
            codes_path=FLAGS.codes,
            validation_split=FLAGS.validation_split,
            validation_examples=FLAGS.validation_examples,
            patience=patience,
            gradient_checkpointing=FLAGS.gradient_checkpointing,
        )
        prior, epoch, step = run_folder.restore_or_build(
            output, lambda: build(recipe, arguments), plan, parallel
        )
    epochs = -(-recipe["steps"] // per_epoch)
    first = parallel.process_index == 0
    verbose = "auto" if first else 0
    if first:
        splits = filter(None, (FLAGS.train_split, FLAGS.validation_split))
        counts = [f"{info.splits[split].num_examples:,} of {split}" for split in splits]
        classes = f", {prior.num_classes} classes" if prior.num_classes else ""
        run_folder.announce(
            f"{type(prior).__name__} of {FLAGS.level} {prior.code_shape}",
            prior,
            f"{FLAGS.codes}: maps, {', '.join(counts)}{classes}",
            recipe,
            (epoch, step),
            output,
            parallel,
        )

    def open_codes(split, **options):
        return keras_vqvae2.codes.codes_from_tfds(
            FLAGS.codes, recipe["batch_size"], split=split, engine=FLAGS.engine, **options
        )

    codes = open_codes(
        FLAGS.train_split,
        shuffle=True,
        repeat=True,
        seed=FLAGS.seed,
        start_step=epoch * per_epoch + step,
        **parallel.process,
    )
    options = run_folder.validation_options(parallel)
    validation = None
    if FLAGS.validation_split:
        validation = open_codes(FLAGS.validation_split, shuffle=True, seed=1, **options)
    metadata = run_folder.provenance(FLAGS.recipe)
    callbacks = run_folder.callbacks(output, epoch, step, parallel)
    kept, best, epochs = run_folder.best_callbacks(
        output, prior, epoch, epochs, patience, metadata, validation is not None
    )
    callbacks += kept
    uniform = math.log(prior.num_embeddings)
    if first:
        callbacks.append(
            run_folder.Curves(output, recipe, "nats a code", FLAGS.level, {"uniform": uniform})
        )

    fit_options = {}
    if validation is not None:
        fit_options["validation_data"] = parallel.distribute(validation)
        fit_options["validation_steps"] = -(-FLAGS.validation_examples // recipe["batch_size"])
    started = time.time()
    history = prior.fit(
        parallel.distribute(codes),
        epochs=epochs,
        initial_epoch=epoch,
        steps_per_epoch=per_epoch,
        callbacks=run_folder.committing(callbacks),
        verbose=verbose,
        **fit_options,
    )
    run_folder.check_trained(history)
    metrics = {
        "parameters": prior.count_params(),
        "seconds": round(time.time() - started),
        "uniform": uniform,
    }
    if validation is not None:
        # Every process has the best epoch in mind; the first one has finished writing it.
        parallel.wait()
        epoch = run_folder.best_epoch(best)
        metrics["steps"] = epoch * per_epoch
        with parallel.scope():
            prior = keras_vqvae2.CodePrior.from_preset(
                output / "preset", **command_line.precision()
            )
            prior.compile()
        examples = info.splits[FLAGS.validation_split].num_examples
        some = open_codes(f"{FLAGS.train_split.split('[')[0]}[:{examples}]", **options)
        for name, source in (("validation", validation), ("train", some)):
            metrics[name] = prior.evaluate(
                parallel.distribute(source), return_dict=True, verbose=verbose
            )
    if not first:
        return
    if validation is None:
        with parallel.alone():
            prior.save_to_preset(output / "preset", metadata=metadata)
    run_folder.write_metrics(output, metrics)


if __name__ == "__main__":
    run_folder.run("train_prior", train)
