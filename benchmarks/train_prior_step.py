"""Codes a second that `PixelSnailPrior.fit` trains on, and what gradient checkpointing saves.

    pip install -e '.[jax,torch]'
    python benchmarks/train_prior_step.py
    python benchmarks/train_prior_step.py --levels=top --backends=jax

The priors are those of the bundled generator (examples/recipes/priors_imagenette_128.py), the codes
random. Measured is `fit` as users call it. Each case runs in a process of its own; a step's time
runs from the end of the step before to its own end, `--warmup_steps` are left out and the median
counts. `peak MiB` is the largest resident set of the process since its start, compilation included.
TensorFlow and JAX run compiled by XLA, PyTorch eager.
"""

import importlib.util
import json
import statistics
from pathlib import Path

import measure
import numpy as np
from absl import app, flags

RECIPE = Path(__file__).parents[1] / "examples" / "recipes" / "priors_imagenette_128.py"
SHAPES = {"top": (16, 16), "bottom": (32, 32)}

FLAGS = flags.FLAGS
flags.DEFINE_list("levels", list(SHAPES), "Which of top and bottom.")
flags.DEFINE_list("backends", ["tensorflow", "jax", "torch"], "Which of tensorflow, jax, torch.")
flags.DEFINE_integer("batch", 8, "Maps a step.", lower_bound=1)
flags.DEFINE_integer("steps", 4, "Timed steps, of which the median counts.", lower_bound=1)
flags.DEFINE_integer("warmup_steps", 2, "Steps before the timed ones.", lower_bound=1)
flags.DEFINE_float("memory_limit_gib", 16.0, "Memory a case may take.", lower_bound=0.0)
flags.DEFINE_string("case", None, "The one case to measure, as JSON: for the script's own use.")


def measure_case(level, batch, checkpointing, steps, warmup_steps):
    """Runs in a process of its own. Returns median seconds of a step, peak bytes and last loss."""
    import keras

    import keras_vqvae2

    spec = importlib.util.spec_from_file_location("recipe", RECIPE)
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    keras.utils.set_random_seed(0)
    prior = keras_vqvae2.PixelSnailPrior(
        SHAPES[level],
        level=level,
        condition_factors={"top": 2} if level == "bottom" else None,
        num_classes=10,
        gradient_checkpointing=checkpointing,
        **recipe.recipe(level)["model"],
    )
    prior.compile(
        optimizer=keras.optimizers.Adam(1e-3), jit_compile=keras.backend.backend() != "torch"
    )
    rng, count = np.random.default_rng(0), batch * (warmup_steps + steps)
    codes = {name: rng.integers(512, size=(count, *SHAPES[name])) for name in SHAPES}
    codes["label"] = rng.integers(10, size=count)
    timer = measure.step_timer()
    prior.fit(codes, batch_size=batch, callbacks=[timer], verbose=0)
    return {
        "parameters": prior.count_params(),
        "seconds": statistics.median(np.diff(timer.ends)[warmup_steps - 1 :]),
        "bytes": measure.process_memory("VmHWM"),
        "loss": timer.losses[-1],
    }


def table_row(level, backend, checkpointing):
    case = {
        "level": level,
        "batch": FLAGS.batch,
        "checkpointing": checkpointing,
        "steps": FLAGS.steps,
        "warmup_steps": FLAGS.warmup_steps,
    }
    limit = FLAGS.memory_limit_gib * measure.GIB
    result = measure.run_case(__file__, case, backend, limit)
    row = [level, FLAGS.batch, backend, checkpointing]
    if "error" in result:
        return [*row, result["error"], "", "", ""]
    codes = FLAGS.batch * SHAPES[level][0] * SHAPES[level][1]
    seconds, peak = result["seconds"], result["bytes"] / measure.MIB
    return [*row, f"{seconds:.3f}", f"{codes / seconds:.0f}", f"{peak:.0f}", result["parameters"]]


def main(_):
    if FLAGS.case:
        measure.report(measure_case(**json.loads(FLAGS.case)))
        return
    columns = ["level", "batch", "backend", "checkpointing", "seconds a step", "codes/s"]
    columns += ["peak MiB", "parameters"]
    rows = [
        table_row(level, backend, checkpointing)
        for level in FLAGS.levels
        for backend in FLAGS.backends
        for checkpointing in (False, True)
    ]
    print(measure.markdown_table(columns, rows), end="\n\n")
    print(measure.environment())


if __name__ == "__main__":
    app.run(main)
