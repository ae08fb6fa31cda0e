"""What all scripts here share: flags, the plan that they print, errors of one sentence, exit codes.

    0    done; also a training run that SIGTERM stopped after it wrote a checkpoint
    1    bad flags or input, or a run that failed: one sentence on stderr names it and the way out
    130  stopped by Ctrl-C; what is written stays

`--help` exits with 1, as everywhere in absl.
"""

import functools
import importlib.util
import os
import re
import sys
from pathlib import Path

import keras
from absl import app, flags, logging

from keras_vqvae2.files import replacing

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # the flags of `define` are its caller's

EXPECTED_ERRORS = (ValueError, OSError, ImportError, NotImplementedError, FloatingPointError)

_integer = functools.partial(flags.DEFINE_integer, lower_bound=1)
_SHARED = {
    "preset": functools.partial(
        flags.DEFINE_string,
        default=None,
        help="Preset: a name, a directory, hf://user/repo or kaggle://user/model/keras/variation.",
    ),
    "data": functools.partial(
        flags.DEFINE_string,
        default=None,
        help="Images to work on: a folder (nested or flat), a TFDS name or directory.",
    ),
    "codes": functools.partial(
        flags.DEFINE_string, default=None, help="Data set of codes that encode_dataset.py wrote."
    ),
    "output": functools.partial(
        flags.DEFINE_string, default=None, help="Folder to write to; made if it is missing."
    ),
    "batch_size": functools.partial(
        _integer,
        default=32,
        help="Images, or maps of codes, at a time; in training the recipe's by default.",
    ),
    "images_per_class": functools.partial(
        _integer, default=6, help="Images to invent of each class, a row of the picture."
    ),
    "seed": functools.partial(
        flags.DEFINE_integer,
        default=0,
        lower_bound=0,
        help="Seed of all that is random: the same seed, the same result.",
    ),
    "precision": functools.partial(
        flags.DEFINE_enum,
        default=None,
        enum_values=["float32", "mixed_bfloat16", "mixed_float16"],
        help="Dtype policy of the layers: the preset's by default, of new models float32. "
        "Codebooks, logits and losses stay float32.",
    ),
    "patience": functools.partial(
        _integer,
        default=None,
        help="Epochs without a better validation loss before training ends; the recipe's by "
        "default.",
    ),
    "xla": functools.partial(
        flags.DEFINE_bool,
        default=None,
        help="Compile by XLA; by default on JAX, and on TensorFlow as the recipe says.",
    ),
    "engine": functools.partial(
        flags.DEFINE_enum,
        default="tf.data",
        enum_values=["tf.data", "grain"],
        help="What reads folders and codes; grain needs no TensorFlow.",
    ),
    "num_workers": functools.partial(
        _integer, default=1, help="Processes that share the work, each started by itself."
    ),
    "worker": functools.partial(
        flags.DEFINE_integer, default=0, lower_bound=0, help="Which of them this one is, from 0."
    ),
    "register": functools.partial(
        flags.DEFINE_list,
        default=[],
        help="Python files of your own, run first: they register the classes that presets name.",
    ),
    "cache": functools.partial(
        flags.DEFINE_string,
        default="~/.keras/keras_vqvae2/features",
        help="Folder that keeps the features of real images.",
    ),
}


def define(*names, **defaults):
    """Defines shared flags for the calling script, with other defaults where it has its own."""
    for name in (*names, *defaults):
        _SHARED[name](name, **({"default": defaults[name]} if name in defaults else {}))


def run(name, function, go_on="What is written stays."):
    """Parses the flags and calls `function()`.

    Args:
        name: Of the script, before its messages.
        function: What to do, without arguments.
        go_on: What follows "interrupted." after Ctrl-C: how to go on.
    """

    def main(arguments):
        try:
            if len(arguments) > 1:
                raise ValueError(f"Expected flags, such as --name=value. Received: {arguments[1]}")
            for path in FLAGS.register if "register" in FLAGS else ():
                load_file(path)
            function()
        except EXPECTED_ERRORS as error:
            _stop(name, error)
        except KeyboardInterrupt:
            print(file=sys.stderr)  # behind a progress bar
            _stop(name, f"interrupted. {go_on}", 130)

    app.run(main, flags_parser=functools.partial(_parse, name))


def _parse(name, arguments):
    try:
        rest = FLAGS(arguments)
    except flags.Error as error:
        message = str(error)
        missing = re.findall(r"Flag (--\w+) must have a value", message)
        if missing:
            message = f"Expected {', '.join(missing)}. Received: {arguments[1:]}"
        _stop(name, f"{message}. --help lists all flags.")
    if FLAGS["verbosity"].using_default_value:
        logging.set_verbosity(logging.WARNING)  # TFDS tells much
    return rest


def _stop(name, message, code=1):
    print(f"{name}: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(code)


@functools.cache
def load_file(path):
    """The module of a Python file. It is run once; others import it by the name of the file."""
    path = Path(path)
    if not (path.is_file() and path.suffix == ".py"):
        raise ValueError(f"Expected a Python file. Received: {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def announce(what, models, data, work, output, devices="1 device"):
    """Prints what a script is about to do.

    Args:
        what: The model in words.
        models: The models that it consists of; their parameters are counted.
        data: What is read, and how much.
        work: What is done with it, and how long.
        output: What is written, and where.
        devices: On how many devices.
    """
    if models:
        what = f"{what}, {sum(model.count_params() for model in models):,} parameters"
    policies = dict.fromkeys(model.dtype_policy.name for model in models)
    plan = {
        "model": what,
        "data": data,
        "work": work,
        "on": ", ".join([keras.backend.backend(), devices, *policies]),
        "output": output,
    }
    for name, text in plan.items():
        print(f"{name + ':':8}{text}", flush=True)


def parts(generator):
    """The models of a generator."""
    return [generator.vqvae, *generator.priors.values()]


def precision():
    """The keyword of --precision for `from_preset` and constructors, if it was given."""
    return {} if FLAGS.precision is None else {"dtype": FLAGS.precision}


def folder_to_write(flag, folder=None):
    """The folder of a flag, checked before long work to be one that can be written to."""
    folder = Path(FLAGS[flag].value if folder is None else folder)
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise ValueError(
            f"Expected a folder that can be written to: {there} cannot. Choose another --{flag}. "
            f"Received: --{flag}={FLAGS[flag].value}"
        )
    return folder


def write_text(path, text):
    with replacing(path) as temporary:
        temporary.write_text(text)


def numbers(flag, most=float("inf")):
    """The positive numbers of a list flag."""
    texts = FLAGS[flag].value
    try:
        values = [float(text) for text in texts]
    except ValueError:
        values = []
    if not values or not all(0 < value <= most for value in values):
        bound = f" up to {most:g}" if most < float("inf") else ""
        raise ValueError(
            f"Expected positive numbers{bound}, such as --{flag}=1,0.5. "
            f"Received: --{flag}={','.join(texts)}"
        )
    return values


def check_worker():
    if FLAGS.worker >= FLAGS.num_workers:
        raise ValueError(
            f"Expected a --worker below {FLAGS.num_workers}. Received: --worker={FLAGS.worker}"
        )
