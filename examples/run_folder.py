"""What the training scripts share: flags, recipes, and folders of runs that can be resumed."""

import csv
import importlib.util
import json
import subprocess
import sys
import traceback
from pathlib import Path

import keras
from absl import flags

import keras_vqvae2
from keras_vqvae2.files import replacing

FLAGS = flags.FLAGS
flags.DEFINE_bool("laptop", False, "The recipe's small size: minutes, not hours.")
flags.DEFINE_bool("resume", False, "Go on from the last checkpoint in --output, if there is one.")
flags.DEFINE_integer("batch_size", None, "Examples a step; overrides the recipe.")
flags.DEFINE_integer("steps", None, "Training steps in all; overrides the recipe.")
flags.DEFINE_integer("steps_per_epoch", None, "Steps between checkpoints; overrides the recipe.")
flags.DEFINE_float(
    "learning_rate", None, "A constant learning rate for Adam in place of the recipe's."
)
flags.DEFINE_integer(
    "accumulate_steps", 1, "Batches whose gradients are added up for an update.", lower_bound=1
)
flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "mixed_bfloat16", "mixed_float16"],
    "Dtype policy of the layers. Codebooks, logits and losses stay float32.",
)
flags.DEFINE_integer(
    "devices", None, "Devices of this process; all by default. PyTorch: one a process, by torchrun."
)
flags.DEFINE_bool(
    "join", None, "Join the job's other processes; by default if TF_CONFIG or the like names them."
)
flags.DEFINE_integer("seed", 0, "Seed of weights, dropout and the order of the examples.")


def load_recipe(path, **arguments):
    """The recipe of a file, for `--laptop` or not, with the flags that override it.

    Args:
        path: Python file with a function `recipe`.
        **arguments: Further arguments of the function.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"Expected a Python file with a function `recipe`. Received: --recipe={path}"
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    recipe = module.recipe(laptop=FLAGS.laptop, **arguments)
    for name in ("batch_size", "steps", "steps_per_epoch"):
        value = getattr(FLAGS, name)
        if value is not None:
            if value < 1:
                raise ValueError(f"Expected a positive number. Received: --{name}={value}")
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
    """Calls `train(parallel)` with the devices of the flags; errors become one sentence."""
    try:
        parallel = keras_vqvae2.DataParallel(FLAGS.devices, FLAGS.join)
    except ValueError as error:
        sys.exit(f"{name}: {error}")
    try:
        train(parallel)
    except Exception as error:
        expected = isinstance(error, (ValueError, FileNotFoundError, ImportError))
        if parallel.num_processes == 1:
            if not expected:
                raise
            sys.exit(f"{name}: {error}")
        traceback.print_exc()
        sys.exit(
            f"{name}: process {parallel.process_index} of {parallel.num_processes} stopped: "
            f"{error}. If another process was lost: start them all again with --resume, to go on "
            "from the last checkpoint."
        )


def check_devices(recipe, parallel):
    if recipe["batch_size"] % parallel.num_replicas:
        raise ValueError(
            f"Expected a batch that {parallel.num_replicas} devices can share out. "
            f"Received: batch_size={recipe['batch_size']}"
        )
    if FLAGS.accumulate_steps > 1 and (
        parallel.num_replicas > 1 and keras.backend.backend() == "tensorflow"
    ):
        raise ValueError(
            "Expected one device: Keras does not add up gradients under tf.distribute. "
            f"Received: --accumulate_steps={FLAGS.accumulate_steps}"
        )


def restore_or_build(output, resume, build, steps_per_epoch):
    """The model of a run, the number of finished epochs, and of the steps of the next.

    Args:
        output: Folder of the run; made if it is missing.
        resume: Whether a run that is there goes on; otherwise it is an error.
        build: Makes the compiled model of a new run.
        steps_per_epoch: Steps of an epoch.
    """
    runs = sorted(output.glob("checkpoint-*.keras"))
    if runs and not resume:
        raise ValueError(
            f"{output} holds a run ({runs[-1].name}): add --resume to go on with it, or choose "
            "another --output."
        )
    output.mkdir(parents=True, exist_ok=True)
    model, epoch, step = keras_vqvae2.callbacks.TrainingCheckpoint.restore(output)
    if model is None:
        return build(), 0, 0
    if step >= steps_per_epoch:
        raise ValueError(
            f"Expected more than the {step} steps an epoch after which the run in {output} was "
            f"stopped. Received: steps_per_epoch={steps_per_epoch}"
        )
    return model, epoch, step


def write_metrics(output, metrics):
    """Prints what a run ended with and keeps it as `metrics.json`."""
    text = json.dumps(metrics, indent=4)
    with replacing(output / "metrics.json") as temporary:
        temporary.write_text(text)
    print(text)


def forget_unfinished_epochs(log, epoch):
    """Drops the rows of epochs that a kill separated from their checkpoint."""
    if not log.exists():
        return
    with open(log, newline="") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if row["epoch"].isdigit() and int(row["epoch"]) < epoch]
    with replacing(log) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, reader.fieldnames)
        writer.writeheader()
        writer.writerows(rows)
