"""Images a second that `VQVAE2.fit` trains on, with the paper's network and random images.

    pip install -e '.[jax,torch]'
    python benchmarks/train_step.py
    python benchmarks/train_step.py --sizes=64:32 --backends=jax --policies=float32,mixed_bfloat16

Measured is `fit` as users call it, data pipeline, metrics and guard included, with Adam and the
defaults of `VQVAE2` (128 channels, 2 levels of 512 codes of width 64). Each case runs in a process
of its own. A step's time runs from the end of the step before to its own end, where its loss is
read; `--warmup_steps` are left out and the median counts. `peak MiB` is the largest resident set of
the process since its start, compilation included. TensorFlow runs with `jit_compile` off and on,
JAX on, PyTorch off. A 256x256 batch of 4 takes seconds a step on two cores.
"""

import json
import statistics

import measure
import numpy as np
from absl import app, flags

JIT_COMPILE = {"tensorflow": (False, True), "jax": (True,), "torch": (False,)}

FLAGS = flags.FLAGS
flags.DEFINE_list("sizes", ["64:32", "256:4"], "Cases as image size:batch size.")
flags.DEFINE_list("policies", ["float32"], "Dtype policies, such as float32,mixed_bfloat16.")
flags.DEFINE_list("backends", list(JIT_COMPILE), "Which of tensorflow, jax and torch.")
flags.DEFINE_integer("steps", 5, "Timed steps, of which the median counts.", lower_bound=1)
flags.DEFINE_integer("warmup_steps", 2, "Steps before the timed ones.", lower_bound=1)
flags.DEFINE_float("memory_limit_gib", 8.0, "Memory a case may take.", lower_bound=0.0)
flags.DEFINE_string("case", None, "The one case to measure, as JSON: for the script's own use.")


def measure_case(size, batch, policy, jit_compile, steps, warmup_steps):
    """Runs in a process of its own. Returns median seconds of a step, peak bytes and last loss."""
    import keras

    import keras_vqvae2

    keras.utils.set_random_seed(0)
    shape = (size, size, 3)
    count = batch * (warmup_steps + steps)
    images = np.random.default_rng(0).random((count, *shape), dtype="float32")
    vqvae = keras_vqvae2.VQVAE2(image_shape=shape, dtype=policy)
    vqvae.compile(optimizer=keras.optimizers.Adam(3e-4), jit_compile=jit_compile)
    timer = measure.step_timer()
    vqvae.fit(images, batch_size=batch, callbacks=[timer], verbose=0)
    return {
        "seconds": statistics.median(np.diff(timer.ends)[warmup_steps - 1 :]),
        "bytes": measure.process_memory("VmHWM"),
        "loss": timer.losses[-1],
    }


def table_row(size, batch, policy, backend, jit_compile):
    case = {
        "size": size,
        "batch": batch,
        "policy": policy,
        "jit_compile": jit_compile,
        "steps": FLAGS.steps,
        "warmup_steps": FLAGS.warmup_steps,
    }
    limit = FLAGS.memory_limit_gib * measure.GIB
    result = measure.run_case(__file__, case, backend, limit)
    row = [f"{size}x{size}", batch, policy, backend, jit_compile]
    if "error" in result:
        return [*row, result["error"], "", "", ""]
    seconds = result["seconds"]
    peak = f"{result['bytes'] / measure.MIB:.0f}"
    return [*row, f"{seconds:.3f}", f"{batch / seconds:.2f}", peak, f"{result['loss']:.4f}"]


def main(_):
    if FLAGS.case:
        measure.report(measure_case(**json.loads(FLAGS.case)))
        return
    columns = ["images", "batch", "policy", "backend", "jit_compile", "seconds a step"]
    columns += ["images/s", "peak MiB", "loss"]
    rows = [
        table_row(*map(int, size.split(":")), policy, backend, jit_compile)
        for size in FLAGS.sizes
        for policy in FLAGS.policies
        for backend in FLAGS.backends
        for jit_compile in JIT_COMPILE[backend]
    ]
    print(measure.markdown_table(columns, rows), end="\n\n")
    print(measure.environment())


if __name__ == "__main__":
    app.run(main)
