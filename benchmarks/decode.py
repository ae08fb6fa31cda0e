"""Seconds to draw whole images of codes: cached decoding, the naive loop, and the floor.

    pip install -e '.[jax,torch]'
    python benchmarks/decode.py
    python benchmarks/decode.py --backends=tensorflow --levels=top --batches=1
    python benchmarks/decode.py --priors=pixelsnail,transformer,masked_transformer --batches=1 \
        --naive_rows=0

PixelSNAILs have the default sizes of the most used PyTorch port, random weights: top 32x32 (85 M
parameters, attention in each of 4 blocks of 4), bottom 64x64 (90 M, no attention, a conditioning
stack of 3 blocks). Transformers have 12 layers of 768 channels, the masked ones 8 passes. Each case
runs in a process of its own.

- `seconds`: `generate` for one whole batch, drawing and conditioning stack included, after two rows
  (passes, of a masked transformer) of warm-up (compilation).
- `naive`: what the loop of published code costs, one full forward pass over the rows so far for
  each position: timed (compiled, once) for --naive_rows numbers of rows spread over the
  map, and integrated by the trapezoidal rule.
- `floor`: the bytes of all weights that a position must be multiplied by, read once a position
  (those for the taps on finished rows: once a row), over the bandwidth of a matrix-vector product
  of 512 MiB.
- `cache MiB`: what is remembered between rows.

A masked transformer has none of the last three: all its passes are over whole maps.
"""

import functools
import json
import math

import measure
import numpy as np
import port_sizes
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("priors", ["pixelsnail"], f"Which of {', '.join(port_sizes.PRIORS)}.")
flags.DEFINE_list("levels", ["top", "bottom"], "Which of top and bottom.")
flags.DEFINE_list("batches", ["1", "8"], "Images at a time.")
flags.DEFINE_list("backends", ["tensorflow", "jax", "torch"], "Which of tensorflow, jax, torch.")
flags.DEFINE_integer(
    "naive_rows", 4, "Sizes at which the naive loop is timed; 0 leaves it out.", lower_bound=0
)
flags.DEFINE_enum("clock", "wall", list(measure.CLOCKS), measure.CLOCK_HELP)
flags.DEFINE_bool("small", False, "Priors of a size that says nothing, to try the script.")
flags.DEFINE_float("memory_limit_gib", 18.0, "Memory a case may take.", lower_bound=0.0)
flags.DEFINE_string("case", None, "The one case to measure, as JSON: for the script's own use.")


def inputs(prior, batch):
    """Random codes for everything a prior takes."""
    rng = np.random.default_rng(0)
    shapes = {name: (batch, *tensor.shape[1:]) for name, tensor in prior.input.items()}
    return {
        name: rng.integers(prior.num_embeddings, size=shape).astype("int32")
        for name, shape in shapes.items()
    }


def naive_seconds(name, level, batch, rows, columns, samples, small, clock):
    """Seconds of one full forward pass a position, over all positions of a map."""
    import keras

    # Even, as the map of the coarser level has half the rows.
    sizes = sorted({2 * round(n / 2) for n in np.linspace(2, rows, samples)})
    times = []
    for size in sizes:
        prior = port_sizes.port_prior(level, size, small, name)
        codes = inputs(prior, batch)
        call = lambda prior=prior, codes=codes: prior.predict_on_batch(codes)  # noqa: E731
        call()
        times.append(measure.median_seconds(call, 1, clock))
        del prior
        keras.backend.clear_session()
    return columns * float(np.interp(range(1, rows + 1), sizes, times).sum())


def bandwidth():
    """Bytes a second of a matrix-vector product: what reading weights can reach."""
    matrix = np.ones((8192, 16384), "float32")
    vector = np.ones(16384, "float32")
    seconds = min(measure.median_seconds(lambda: matrix @ vector, 1) for _ in range(7))
    return matrix.nbytes / seconds


def weights_touched(prior):
    """Bytes of weights read at each position, and of those read once a row."""
    import keras

    steps = prior._row_decoder.steps
    if hasattr(steps, "sequence"):  # a transformer, whose layers see one position each
        layers = [*steps.blocks, steps.norm, steps.logits]
        return 4 * sum(layer.count_params() for layer in layers), 0
    weights = steps.weights()
    weights.pop("first")  # tables of which a position reads a few rows
    a_step = a_row = 0
    for path, x in keras.tree.flatten_with_path(weights):
        size = math.prod(x.shape) * 4
        if "above" in path or "planes" in path:
            a_row += size
        else:
            a_step += size
    for v in prior.variables:  # a layer that the steps call
        a_row += 4 * math.prod(v.shape) * ("/condition_projection/" in v.path)
    return a_step, a_row


def measure_case(name, level, batch, naive_rows, small, clock):
    """Runs in a process of its own."""
    import keras

    keras.utils.set_random_seed(0)
    size = (32 if level == "top" else 64) // (8 if small else 1)
    prior = port_sizes.port_prior(level, size, small, name)
    codes = inputs(prior, batch)
    condition = {name: codes[name] for name in prior.condition_factors}

    from keras_vqvae2.decoding.sampling import Sampling

    codes[level] = np.full_like(codes[level], -1)
    uniforms = np.zeros((batch, *prior.uniforms_shape), "float32")
    for _, (_, drawn) in zip(range(2), prior._draw_codes(Sampling(), codes, uniforms)):
        keras.ops.convert_to_numpy(drawn)
    draw = functools.partial(prior.generate, batch, None, condition, batch_size=batch, verbose=0)
    seconds = measure.median_seconds(draw, 1, clock)
    result = {"parameters": prior.count_params(), "seconds": seconds}
    if name == "masked_transformer":
        return result
    a_step, a_row = weights_touched(prior)
    cache, speed = prior._row_decoder.cache_bytes(batch), bandwidth()
    del prior, draw
    naive = math.nan
    if naive_rows:
        naive = naive_seconds(name, level, batch, size, size, naive_rows, small, clock)
    return {
        **result,
        "naive": naive,
        "floor": (a_step * size * size + a_row * size) / speed,
        "step_bytes": a_step,
        "bandwidth": speed,
        "cache": cache,
    }


def table_row(name, level, batch, backend):
    case = {
        "name": name,
        "level": level,
        "batch": batch,
        "naive_rows": FLAGS.naive_rows,
        "small": FLAGS.small,
        "clock": FLAGS.clock,
    }
    result = measure.run_case(__file__, case, backend, FLAGS.memory_limit_gib * measure.GIB)
    row = [name, level, batch, backend]
    if "error" in result:
        return [*row, result["error"], *[""] * 7]
    seconds = result["seconds"]
    row.append(f"{seconds:.2f}")
    if "floor" not in result:
        return [*row, *[""] * 7]
    return [
        *row,
        f"{result['naive']:.1f}",
        f"{result['naive'] / seconds:.0f}",
        f"{result['floor']:.3g}",
        f"{seconds / result['floor']:.2f}",
        f"{result['step_bytes'] / measure.MIB:.1f}",
        f"{result['bandwidth'] / 1e9:.1f}",
        f"{result['cache'] / measure.MIB:.1f}",
    ]


def main(_):
    if FLAGS.case:
        measure.report(measure_case(**json.loads(FLAGS.case)))
        return
    columns = ["prior", "level", "batch", "backend", "seconds", "naive", "times faster", "floor"]
    columns += ["over floor", "MiB a step", "GB/s", "cache MiB"]
    rows = [
        table_row(name, level, int(batch), backend)
        for name in FLAGS.priors
        for level in FLAGS.levels
        for batch in FLAGS.batches
        for backend in FLAGS.backends
    ]
    print(measure.markdown_table(columns, rows), end="\n\n")
    print(measure.environment())


if __name__ == "__main__":
    app.run(main)
