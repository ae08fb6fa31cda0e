"""What more devices change: nothing in the result, and how much of the time.

    pip install -e '.[jax,torch]'
    python benchmarks/scaling.py

First table: both stages train on the same global batches with one device and with several; how far
apart are the losses of all steps, the codebooks, the weights. Second table: each device has a batch
of its own size (weak scaling). `compute` is how long a step takes when as many independent
processes of one device run at once, without a word between them: on one machine devices share its
cores, and that part is not the replicas' fault. `MB a step` is what a device sends and receives in
a ring: 2 (N - 1) / N times its gradients and codebook sums.
"""

import os
import statistics
import sys
import tempfile
from pathlib import Path

import measure
from absl import app, flags

SCRIPT = Path(__file__).parent / "train_replicas.py"
SEED_CODES, CODE_WIDTH = 32, 4  # of train_replicas.py

FLAGS = flags.FLAGS
flags.DEFINE_list("backends", ["tensorflow", "jax", "torch"], "Which of tensorflow, jax, torch.")
flags.DEFINE_list("counts", ["1", "2", "4"], "Numbers of devices; 1 comes first.")
flags.DEFINE_integer("steps", 50, "Steps of the first table; 0 leaves it out.", lower_bound=0)
flags.DEFINE_integer("timed_steps", 12, "Steps of the second table; 0 leaves it out.")
flags.DEFINE_integer("batch_size", 8, "Examples a device of the second table.", lower_bound=1)
flags.DEFINE_integer("units", 32, "Width of the models of the second table.", lower_bound=4)


def cases(backend):
    """Pairs of a name and the flags of train_replicas.py."""
    counts = [int(count) for count in FLAGS.counts if int(count) > 1]
    yield "1", []
    if backend != "torch":
        yield from ((f"{n} devices", [f"--devices={n}"]) for n in counts)
    yield from ((f"{n} processes", [f"--processes={n}"]) for n in counts)


def run(backend, arguments, copies=1):
    """What a run of train_replicas.py saved, or an error; of several copies at once the last."""
    import numpy as np

    print(f"{backend}: {' '.join(arguments)} …", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.npz" for i in range(copies)]
        started = [
            measure.launch([SCRIPT, f"--output={path}", *arguments], backend, 1)[0]
            for path in paths
        ]
        errors = [process.communicate()[1] for process in started]
        if not paths[-1].exists():
            print(errors[-1][-2000:], file=sys.stderr)
            return None
        with np.load(paths[-1]) as result:
            return dict(result)


def difference(result, expected, prefix):
    values = [
        abs(result[name] - expected[name]).max() for name in expected if name.startswith(prefix)
    ]
    return f"{max(values):.1e}" if values else ""


def same_rows(backend):
    for stage in ("1", "2"):
        expected = None
        for name, flag in cases(backend):
            result = run(backend, [f"--stage={stage}", f"--steps={FLAGS.steps}", *flag])
            expected = expected or result
            if result is None:
                yield [backend, stage, name, "failed", "", ""]
                continue
            # On PyTorch the logs of steps are those of one process; the epoch's are all processes'.
            losses = "loss" if backend == "torch" else "losses"
            yield [
                backend,
                stage,
                name,
                f"{abs(result[losses] - expected[losses]).max():.1e}",
                difference(result, expected, "codebook"),
                difference(result, expected, "weight"),
            ]


def timed_rows(backend):
    for stage in ("1", "2"):
        for name, flag in cases(backend):
            count = int(name.split()[0])
            base = [
                f"--stage={stage}",
                f"--steps={FLAGS.timed_steps}",
                f"--units={FLAGS.units}",
                "--size=64",
            ]
            alone = run(backend, [*base, f"--batch_size={FLAGS.batch_size}"], copies=count)
            result = alone
            if count > 1:
                result = run(backend, [*base, f"--batch_size={FLAGS.batch_size * count}", *flag])
            if result is None or alone is None:
                yield [backend, stage, name, "failed", "", "", ""]
                continue
            seconds, compute = (
                statistics.median(r["seconds"][2:].tolist()) for r in (result, alone)
            )
            sent = sum(v.nbytes for k, v in result.items() if k.startswith("weight"))
            if stage == "1":
                sent += 2 * SEED_CODES * (CODE_WIDTH + 1) * 4
            yield [
                backend,
                stage,
                name,
                f"{seconds:.3f}",
                f"{compute:.3f}",
                f"{FLAGS.batch_size * count / seconds:.1f}",
                f"{2 * (count - 1) / count * sent / 1e6:.2f}",
            ]


def main(_):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if FLAGS.steps:
        columns = ["backend", "stage", "devices", "losses", "codebooks", "weights"]
        rows = [row for backend in FLAGS.backends for row in same_rows(backend)]
        print(f"Largest difference from one device after {FLAGS.steps} steps, float32:\n")
        print(measure.markdown_table(columns, rows), end="\n\n", flush=True)
    if FLAGS.timed_steps:
        columns = ["backend", "stage", "devices", "seconds", "compute", "examples/s", "MB a step"]
        rows = [row for backend in FLAGS.backends for row in timed_rows(backend)]
        print(f"{FLAGS.batch_size} examples a device:\n")
        print(measure.markdown_table(columns, rows), end="\n\n")
    print(measure.environment())


if __name__ == "__main__":
    app.run(main)
