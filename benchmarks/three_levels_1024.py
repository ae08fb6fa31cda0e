"""Seconds and memory of each stage with three levels at 1024x1024, the paper's shape for FFHQ.

    pip install -e '.[jax,torch]'
    python benchmarks/three_levels_1024.py
    python benchmarks/three_levels_1024.py --backends=tensorflow --hidden_units=128 --batch=1

Maps of 32x32, 64x64 and 128x128 codes. --hidden_units sets the width of all models, half of it the
inner one of residual blocks; the priors have one causal block of two layers, attention (4 heads) in
the top and the middle one as in the paper, and a conditioning stack of one block. Each backend runs
in a process of its own, one stage after the other, training stages by one step of `fit`, all of a
batch of --batch random images.

- `first`: seconds of the first call, compilation included; `again`: of a second one.
- `peak MiB`: by how much the process grew beyond what it held before the stage.
"""

import json
import time

import measure
import numpy as np
from absl import app, flags

SHAPE = (1024, 1024, 3)
CODE_SHAPES = {"top": (32, 32), "middle": (64, 64), "bottom": (128, 128)}
HEADS = {"top": 4, "middle": 4, "bottom": 0}
FACTORS = {"top": {}, "middle": {"top": 2}, "bottom": {"top": 4, "middle": 2}}

FLAGS = flags.FLAGS
flags.DEFINE_list("backends", ["tensorflow", "jax", "torch"], "Which of tensorflow, jax, torch.")
flags.DEFINE_integer("hidden_units", 32, "Channels of all models; even.", lower_bound=8)
flags.DEFINE_integer("batch", 1, "Images at a time.", lower_bound=1)
flags.DEFINE_float("memory_limit_gib", 12.0, "Memory a case may take.", lower_bound=0.0)
flags.DEFINE_string("case", None, "The one case to measure, as JSON: for the script's own use.")


def build_prior(level, hidden_units):
    import keras_vqvae2

    return keras_vqvae2.PixelSnailPrior(
        CODE_SHAPES[level],
        level=level,
        condition_factors=FACTORS[level],
        hidden_units=hidden_units,
        residual_units=hidden_units // 2,
        num_blocks=1,
        block_layers=2,
        attention_heads=HEADS[level],
        condition_blocks=1,
        output_blocks=0,
    )


def measure_stage(call):
    seconds = []

    def first():
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)

    peak = measure.peak_extra_memory(first)
    return {"first": seconds[0], "again": measure.median_seconds(call, 1), "bytes": peak}


def measure_case(hidden_units, batch):
    """Runs in a process of its own. Returns the numbers of each stage."""
    import keras

    import keras_vqvae2

    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).random((batch, *SHAPE), dtype="float32")
    vqvae = keras_vqvae2.VQVAE2(
        SHAPE, num_levels=3, hidden_units=hidden_units, residual_units=hidden_units // 2
    )
    vqvae.compile(keras.optimizers.Adam(3e-4))
    fit = {"batch_size": batch, "verbose": 0}
    stages = {"train VQVAE2": measure_stage(lambda: vqvae.fit(images, **fit))}
    stages["encode"] = measure_stage(lambda: vqvae.encode(images, batch))
    codes = vqvae.encode(images, batch)
    priors = []
    for level in vqvae.levels:
        prior = build_prior(level, hidden_units)
        prior.compile(keras.optimizers.Adam(3e-4))
        stages[f"train {level} prior"] = measure_stage(lambda p=prior: p.fit(codes, **fit))
        priors.append(prior)
    condition = {}
    for prior in priors:
        draw = lambda p=prior, c=dict(condition): p.generate(batch, condition=c, verbose=0)  # noqa: E731
        stages[f"draw {prior.level}"] = measure_stage(draw)
        condition[prior.level] = codes[prior.level]
    stages["decode"] = measure_stage(lambda: vqvae.decode(codes, batch))
    generator = keras_vqvae2.HierarchicalImageGenerator(vqvae, priors)
    mask = np.zeros(SHAPE[:2], bool)
    mask[512:] = True
    stages["complete half"] = measure_stage(lambda: generator.complete(images, mask, verbose=0))
    return stages


def table_rows(backend):
    case = {"hidden_units": FLAGS.hidden_units, "batch": FLAGS.batch}
    limit = FLAGS.memory_limit_gib * measure.GIB
    stages = measure.run_case(__file__, case, backend, limit)
    if "error" in stages:
        return [[backend, stages["error"], "", "", ""]]
    return [
        [
            backend,
            stage,
            f"{numbers['first']:.2f}",
            f"{numbers['again']:.2f}",
            f"{numbers['bytes'] / measure.MIB:.0f}",
        ]
        for stage, numbers in stages.items()
    ]


def main(_):
    if FLAGS.case:
        measure.report(measure_case(**json.loads(FLAGS.case)))
        return
    columns = ["backend", "stage", "first", "again", "peak MiB"]
    rows = [row for backend in FLAGS.backends for row in table_rows(backend)]
    print(measure.markdown_table(columns, rows), end="\n\n")
    print(measure.environment())


if __name__ == "__main__":
    app.run(main)
