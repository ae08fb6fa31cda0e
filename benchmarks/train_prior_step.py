"""Codes a second that the `fit` of priors trains on, and what gradient checkpointing saves.

    pip install -e '.[jax,torch]'
    python benchmarks/train_prior_step.py
    python benchmarks/train_prior_step.py --levels=top --backends=jax
    python benchmarks/train_prior_step.py --recipes=transformers_clothing_64 --rows=8 \\
        --precisions=float32,mixed_bfloat16 --noxla

The priors are those of recipes in examples/recipes, by default the bundled generator's
(priors_imagenette_128), the codes random. Measured is `fit` as users call it. Each case runs in a
process of its own; a step's time runs from the end of the step before to its own end,
`--warmup_steps` are left out and the median counts. `peak MiB` is the largest resident set of the
process since its start, compilation included.
TensorFlow and JAX run compiled by XLA, TensorFlow not with --noxla; PyTorch eager.
"""

import itertools
import json
import statistics

import measure
import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("recipes", ["priors_imagenette_128"], "Files in examples/recipes, without .py.")
flags.DEFINE_integer("rows", 16, "Rows of the top map; the bottom one has twice as many.", 1)
flags.DEFINE_list("levels", ["top", "bottom"], "Which of top and bottom.")
flags.DEFINE_list("precisions", ["float32"], "Policies, such as float32 and mixed_bfloat16.")
flags.DEFINE_list("checkpointing", ["no", "yes"], "Whether with gradient checkpointing.")
flags.DEFINE_bool("xla", True, "Whether TensorFlow compiles by XLA.")
flags.DEFINE_list("backends", ["tensorflow", "jax", "torch"], "Which of tensorflow, jax, torch.")
flags.DEFINE_integer("batch", 8, "Maps a step.", lower_bound=1)
flags.DEFINE_integer("steps", 4, "Timed steps, of which the median counts.", lower_bound=1)
flags.DEFINE_integer("warmup_steps", 2, "Steps before the timed ones.", lower_bound=1)
flags.DEFINE_enum("clock", "wall", list(measure.CLOCKS), measure.CLOCK_HELP)
flags.DEFINE_float("memory_limit_gib", 16.0, "Memory a case may take.", lower_bound=0.0)
flags.DEFINE_string("case", None, "The one case to measure, as JSON: for the script's own use.")


def measure_case(
    recipe, level, rows, batch, precision, checkpointing, xla, steps, warmup_steps, clock
):
    """Runs in a process of its own. Returns median seconds of a step, peak bytes and last loss."""
    import keras

    recipe = measure.load_recipe(recipe)(level)
    keras.utils.set_random_seed(0)
    shapes = {"top": (rows, rows), "bottom": (2 * rows, 2 * rows)}
    prior = recipe["prior"](
        shapes[level],
        level=level,
        condition_factors={"top": 2} if level == "bottom" else None,
        num_classes=10,
        dtype=precision,
        **({"gradient_checkpointing": True} if checkpointing else {}),  # which some lack
        **recipe["model"],
    )
    compiles = {"tensorflow": xla, "jax": True, "torch": False}[keras.backend.backend()]
    prior.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=compiles)
    rng, count = np.random.default_rng(0), batch * (warmup_steps + steps)
    codes = {name: rng.integers(512, size=(count, *shape)) for name, shape in shapes.items()}
    codes["label"] = rng.integers(10, size=count)
    timer = measure.step_timer(clock)
    prior.fit(codes, batch_size=batch, callbacks=[timer], verbose=0)
    return {
        "parameters": prior.count_params(),
        "seconds": statistics.median(np.diff(timer.ends)[warmup_steps - 1 :]),
        "bytes": measure.process_memory("VmHWM"),
        "loss": timer.losses[-1],
    }


def table_row(recipe, level, backend, precision, checkpointing):
    case = {
        "recipe": recipe,
        "level": level,
        "rows": FLAGS.rows,
        "batch": FLAGS.batch,
        "precision": precision,
        "checkpointing": checkpointing == "yes",
        "xla": FLAGS.xla,
        "steps": FLAGS.steps,
        "warmup_steps": FLAGS.warmup_steps,
        "clock": FLAGS.clock,
    }
    limit = FLAGS.memory_limit_gib * measure.GIB
    result = measure.run_case(__file__, case, backend, limit)
    row = [recipe, level, FLAGS.batch, backend, precision, checkpointing]
    if "error" in result:
        return [*row, result["error"], "", "", ""]
    codes = FLAGS.batch * FLAGS.rows**2 * (1 if level == "top" else 4)
    seconds, peak = result["seconds"], result["bytes"] / measure.MIB
    return [*row, f"{seconds:.3f}", f"{codes / seconds:.0f}", f"{peak:.0f}", result["parameters"]]


def main(_):
    if FLAGS.case:
        measure.report(measure_case(**json.loads(FLAGS.case)))
        return
    columns = ["recipe", "level", "batch", "backend", "precision", "checkpointing"]
    columns += ["seconds a step", "codes/s", "peak MiB", "parameters"]
    cases = itertools.product(
        FLAGS.recipes, FLAGS.levels, FLAGS.backends, FLAGS.precisions, FLAGS.checkpointing
    )
    rows = [table_row(*case) for case in cases]
    print(measure.markdown_table(columns, rows), end="\n\n")
    print(measure.environment())


if __name__ == "__main__":
    app.run(main)
