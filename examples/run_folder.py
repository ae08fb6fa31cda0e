"""What the training scripts share: flags, recipes, and folders of runs that can be resumed."""

import contextlib
import csv
import inspect
import json
import math
import subprocess
import sys
import traceback
from pathlib import Path

import command_line
import keras
from absl import flags

import keras_vqvae2
from keras_vqvae2.files import clear_unfinished, keep_plan, only_process, replacing
from keras_vqvae2.plots import save_curves

FLAGS = flags.FLAGS
command_line.define("output", "seed", "precision", "engine", "register", batch_size=None)
flags.DEFINE_bool("laptop", False, "The recipe's small size: minutes, not hours.")
flags.DEFINE_bool("resume", False, "Go on from the last checkpoint in --output, if there is one.")
flags.DEFINE_integer("steps", None, "Training steps in all; overrides the recipe.", lower_bound=1)
flags.DEFINE_integer(
    "steps_per_epoch", None, "Steps between checkpoints; overrides the recipe.", lower_bound=1
)
flags.DEFINE_float(
    "learning_rate", None, "A constant learning rate for Adam in place of the recipe's."
)
flags.DEFINE_integer(
    "accumulate_steps", 1, "Batches whose gradients are added up for an update.", lower_bound=1
)
flags.DEFINE_integer(
    "devices", None, "Devices of this process; all by default. PyTorch: one a process, by torchrun."
)
flags.DEFINE_bool(
    "join", None, "Join the job's other processes; by default if TF_CONFIG or the like names them."
)


# What a run may go on with other values of; the plan says that it does. Anything else would make
# another run of it.
MAY_CHANGE = (
    *("steps", "patience", "backend", "recipe", "data_path", "codes_path"),
    *("validation", "validation_images", "validation_split", "validation_examples"),
    *("log", "picture_every", "samples_every"),
)


def load_recipe(path, needs, takes=(), **arguments):
    """The recipe of a file, for `--laptop` or not, with the flags that override it.

    Args:
        path: Python file with a function `recipe`.
        needs: Names that the script wants of the recipe, beside those that all want.
        takes: Names that it may hold as well.
        **arguments: Further arguments of the function.

    Raises:
        ValueError: If there is none, or it lacks a name or has one that nothing would read.
    """
    module = command_line.load_file(path) if Path(path).is_file() else None
    if not hasattr(module, "recipe"):
        raise ValueError(
            "Expected a Python file with a function `recipe`, such as those in examples/recipes. "
            f"Received: --recipe={path}"
        )
    signature = inspect.signature(module.recipe)
    try:
        signature.bind(laptop=FLAGS.laptop, **arguments)
    except TypeError:
        raise ValueError(
            f"Expected a function recipe({', '.join([*arguments, 'laptop'])}). "
            f"Received: recipe{signature} in --recipe={path}"
        ) from None
    recipe = module.recipe(laptop=FLAGS.laptop, **arguments)
    needs = {"batch_size", "steps", "steps_per_epoch", "optimizer", *needs}
    missing, unknown = needs - set(recipe), set(recipe) - needs - {"jit_compile", *takes}
    if missing or unknown:
        raise ValueError(
            f"Expected a recipe of {sorted(needs)} and perhaps {sorted({'jit_compile', *takes})}. "
            f"Received: --recipe={path}, which lacks {sorted(missing)} and has {sorted(unknown)}"
        )
    for name in ("batch_size", "steps", "steps_per_epoch"):
        value = getattr(FLAGS, name)
        if value is not None:
            recipe[name] = value
    if FLAGS.learning_rate is not None:
        recipe["optimizer"] = keras.optimizers.Adam(FLAGS.learning_rate)
    if FLAGS.accumulate_steps > 1:
        recipe["optimizer"] = accumulating(recipe["optimizer"], FLAGS.accumulate_steps)
    recipe["steps_per_epoch"] = min(recipe["steps_per_epoch"], recipe["steps"])
    return recipe


def accumulating(optimizer, steps):
    """The optimizer, with an update after so many batches; its schedule counts updates."""
    config = optimizer.get_config() | {"gradient_accumulation_steps": steps}
    if config.get("use_ema"):
        config["ema_momentum"] **= 1 / steps  # Keras averages after each batch
    return type(optimizer).from_config(config)


def provenance(recipe_path):
    """What a preset's `metadata.json` says of its making: the recipe, and the project's commit."""
    recipe, project = Path(recipe_path).resolve(), Path(__file__).resolve().parents[1]
    try:
        command = ["git", "-C", project, "rev-parse", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None  # installed without git, or not a clone
    inside = recipe.is_relative_to(project)
    return {"recipe": str(recipe.relative_to(project)) if inside else recipe.name, "commit": commit}


def run(name, train):
    """`command_line.run` of `train(parallel)`, with the devices of the flags.

    Of several processes the first one writes: it holds the folder.
    """

    def start():
        parallel = keras_vqvae2.Replicas(FLAGS.devices, FLAGS.join)
        try:
            output = command_line.folder_to_write("output")
            first = parallel.process_index == 0
            with only_process(output / ".lock") if first else contextlib.nullcontext():
                train(parallel)
        except Exception as error:
            if parallel.num_processes == 1:
                raise
            traceback.print_exc()
            sys.exit(
                f"{name}: process {parallel.process_index} of {parallel.num_processes} stopped: "
                f"{error}. If another process was lost: start them all again with --resume, to go "
                "on from the last checkpoint."
            )

    command_line.run(name, start, "--resume goes on from the last checkpoint in --output.")


def check_devices(recipe, parallel):
    if recipe["batch_size"] % parallel.num_replicas:
        raise ValueError(
            f"Expected a batch that {parallel.num_replicas} devices can share out. "
            f"Received: batch_size={recipe['batch_size']}"
        )
    on_tensorflow = keras.backend.backend() == "tensorflow"
    if FLAGS.accumulate_steps > 1 and parallel.num_replicas > 1 and on_tensorflow:
        raise ValueError(
            "Expected one device: Keras does not add up gradients under tf.distribute. "
            f"Received: --accumulate_steps={FLAGS.accumulate_steps}"
        )
    if FLAGS.engine == "grain" and parallel.num_processes > 1 and on_tensorflow:
        raise ValueError(
            "Expected --engine=tf.data, which several TensorFlow processes share out. "
            f"Received: --engine={FLAGS.engine}"
        )


def validation_options(parallel):
    """Options of validation data: every pass sees the same images.

    JAX shares out no batch of Grain's that is not full.
    """
    several = parallel.num_replicas > parallel.num_processes
    return {
        "reshuffle": False,
        "drop_remainder": FLAGS.engine == "grain" and several and keras.backend.backend() == "jax",
        **parallel.process,
    }


def plan_of(recipe, **further):
    """What a run is made with: the flags, and what they stand for.

    Args:
        recipe: The recipe, with the flags that override it.
        **further: What the script's own flags say.
    """
    plan = {name: value for name, value in recipe.items() if name != "optimizer"}
    optimizer = {"class": type(recipe["optimizer"]), **recipe["optimizer"].get_config()}
    for name in ("name", "gradient_accumulation_steps"):  # the second is a flag
        optimizer.pop(name, None)
    rate = optimizer.pop("learning_rate")  # a float32, or a schedule
    rate = float(f"{rate:.6g}") if isinstance(rate, float) else rate
    plan |= {"learning_rate": rate, "optimizer": optimizer}
    for name in ("recipe", "seed", "engine", "accumulate_steps", "xla"):
        plan[name] = FLAGS[name].value
    return {**plan, **further, "backend": keras.backend.backend()}


def restore_or_build(output, build, plan, parallel):
    """The compiled model of a run, the number of finished epochs, and of the steps of the next.

    With --resume a run that is there goes on, as its plan says that it was begun; `build` makes the
    model of a new one.
    """
    runs = sorted(output.glob("checkpoint-*.keras"))
    if runs and not FLAGS.resume:
        raise ValueError(
            f"{output} holds a run ({runs[-1].name}): add --resume to go on with it, or choose "
            "another --output."
        )
    path = output / "plan.json"
    if runs and path.exists():
        keep_plan(path, {name: plan[name] for name in plan if name not in MAY_CHANGE})
    model, epoch, step = keras_vqvae2.callbacks.TrainingCheckpoint.restore(output)
    if model is None:
        precision = FLAGS.precision or keras.config.dtype_policy().name
    else:
        _check_place(output, epoch, step, plan)
        precision = model.dtype_policy.name
        if FLAGS.precision not in (None, precision):
            raise ValueError(
                f"Expected --precision={precision}, with which the run in {output} was begun. "
                f"Received: --precision={FLAGS.precision}"
            )
    if parallel.process_index == 0:
        if model is None:  # what is there is of a run that came to no checkpoint
            path.unlink(missing_ok=True)
            clear_unfinished(path)
        changes = keep_plan(path, {**plan, "precision": precision}, MAY_CHANGE)
        for name, (before, now) in changes.items():
            print(f"change: goes on with {name}={now!r}, no longer {before!r}", flush=True)
    return build() if model is None else model, epoch, step


def _check_place(output, epoch, step, plan):
    """Raises `ValueError` if a run has made steps that it is not to make."""
    per_epoch = plan["steps_per_epoch"]
    if step >= per_epoch:
        raise ValueError(
            f"Expected more than the {step} steps an epoch after which the run in {output} was "
            f"stopped. Received: steps_per_epoch={per_epoch}"
        )
    done, epochs = epoch * per_epoch + step, -(-plan["steps"] // per_epoch)
    if done > epochs * per_epoch:
        raise ValueError(
            f"Expected at least the {done} steps that the run in {output} has made. "
            f"Received: steps={plan['steps']}"
        )


def announce(what, model, data, recipe, place, output, parallel):
    """Prints what a run is about to do, from `place`: finished epochs, and steps of the next."""
    epoch, step = place
    per_epoch = recipe["steps_per_epoch"]
    work = f"{recipe['steps']:,} steps of {recipe['batch_size']}"
    if FLAGS.accumulate_steps > 1:
        work += f", an update every {FLAGS.accumulate_steps} steps"
    work += f", a checkpoint every {per_epoch:,}; from step {epoch * per_epoch + step:,}"
    begun = "a new run"
    if epoch or step:
        begun = f"goes on from checkpoint-{epoch}{f'-{step}' if step else ''}.keras"
    command_line.announce(
        f"{what}, {FLAGS.recipe}", [model], data, work, f"{output}, {begun}", devices_text(parallel)
    )


def devices_text(parallel):
    batch, weights = parallel.num_replicas, parallel.model_parallel
    text = f"{batch * weights} device{'s' * (batch * weights > 1)}"
    if weights > 1:
        return f"{text} ({batch} x {weights}, batch x weights)"
    count = parallel.num_processes
    return text if count == 1 else f"{text} of {count} processes"


def write_metrics(output, metrics):
    """Prints what a run ended with and keeps it as `metrics.json`."""
    text = json.dumps(metrics, indent=4)
    command_line.write_text(output / "metrics.json", text)
    print(text)


def callbacks(output, epoch, step, parallel):
    """The callbacks that keep log.csv (in the first process) and checkpoints."""
    checkpoint = keras_vqvae2.callbacks.TrainingCheckpoint(output, first_step=step)
    if parallel.process_index > 0:
        return [checkpoint]
    for folder in (output, output / "pictures"):
        clear_unfinished(folder / "*")
    return [EpochLog(output / "log.csv", epoch), checkpoint]


def jit_compile(recipe, default="auto"):
    """Whether a step is compiled by XLA: what --xla says, or else, on TensorFlow, the recipe.

    There XLA makes priors in float32 a quarter faster, and in bfloat16 several times slower than
    what the processor has for it. JAX has nothing else; PyTorch's compiler takes minutes to start.
    """
    if FLAGS.xla is not None:
        return FLAGS.xla
    is_tensorflow = keras.backend.backend() == "tensorflow"
    return recipe.get("jit_compile", default) if is_tensorflow else "auto"


class EpochLog(keras.callbacks.Callback):
    """Keeps what epochs logged: a row each, with NA for what others have and it has not.

    Args:
        path: The CSV file. Rows of later epochs, whose checkpoint a kill prevented, are dropped.
        epoch: Finished epochs.
    """

    def __init__(self, path, epoch):
        super().__init__()
        self.path, self.rows = path, []
        if path.exists():
            with open(path, newline="") as file:
                rows = list(csv.DictReader(file))
            rows = [row for row in rows if None not in [*row, *row.values()]]  # not one cut off
            self.rows = [r for r in rows if r["epoch"].isdigit() and int(r["epoch"]) < epoch]

    def on_epoch_end(self, epoch, logs=None):
        self.rows.append({"epoch": epoch, **{name: float(x) for name, x in logs.items()}})
        names = ["epoch", *sorted({name for row in self.rows for name in row} - {"epoch"})]
        with replacing(self.path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, names, restval="NA")
            writer.writeheader()
            writer.writerows(self.rows)


class Curves(keras.callbacks.Callback):
    """Draws log.csv as log.png after each epoch.

    Args:
        output: Folder of the run.
        recipe: The recipe.
        unit: Of the loss, for the axis.
        title: Of the picture.
        levels: Dict of name to a value that does not change, to compare with.
        metric: What of the log is drawn, with `val_` before it for validation.
    """

    def __init__(self, output, recipe, unit, title, levels=None, metric="loss"):
        super().__init__()
        self.output, self.recipe, self.unit, self.title = output, recipe, unit, title
        self.levels, self.metric = levels or {}, metric

    def on_epoch_end(self, epoch, logs=None):
        with open(self.output / "log.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        steps = [self.recipe["steps_per_epoch"] * (int(row["epoch"]) + 1) for row in rows]
        curves = {}
        for name, label in {self.metric: "training", f"val_{self.metric}": "validation"}.items():
            values = zip(steps, (row.get(name, "NA") for row in rows))
            points = [(step, float(value)) for step, value in values if value != "NA"]
            if points:  # without validation none
                curves[label] = tuple(zip(*points))
        for label, value in self.levels.items():
            curves[label] = (steps, [value] * len(steps))
        save_curves(curves, self.output / "log.png", "steps", self.unit, self.title)


def best_callbacks(output, model, epoch, epochs, patience, metadata, validation):
    """What keeps the best epoch's averaged weights: callbacks, the `BestPreset`, the epochs left.

    Args:
        output: Folder of the run.
        model: The model.
        epoch: Finished epochs.
        epochs: Epochs in all.
        patience: None, or as in `BestPreset`.
        metadata: As in `BestPreset`.
        validation: Whether there is validation; without it there is no best epoch.
    """
    callbacks, best = [], None
    # Under mixed_float16 the optimizer lies within one that scales the loss.
    if getattr(model.optimizer, "inner_optimizer", model.optimizer).use_ema:
        callbacks.append(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    if validation:
        best = keras_vqvae2.callbacks.BestPreset(output, patience=patience, metadata=metadata)
        callbacks.append(best)
        epochs = epoch if best.is_over(epoch) else epochs
    return callbacks, best, epochs


def best_epoch(best):
    """The number of the best epoch, or an error where none was finite."""
    epoch = best.best()["epoch"]
    if not epoch:
        raise FloatingPointError(
            "Expected an epoch with a finite validation loss, to keep as the best. Received: "
            "none. Look at the data, or lower --learning_rate"
        )
    return epoch


def check_trained(history):
    """Raises `FloatingPointError` if no step of the last epoch counted: nothing is to be kept."""
    losses = history.history.get("loss")
    if losses and math.isnan(losses[-1]):
        raise FloatingPointError(
            "Expected a step with a finite loss and finite gradients in the last epoch. Received: "
            "none. Look at the data, or lower --learning_rate"
        )


def committing(callbacks):
    """The callbacks, and behind them what makes the files of an epoch count together."""
    kind = keras_vqvae2.callbacks.TrainingCheckpoint
    return [*callbacks, next(c for c in callbacks if isinstance(c, kind)).commit]
