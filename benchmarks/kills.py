"""What kills change: nothing in the end.

    KERAS_BACKEND=torch python benchmarks/kills.py

Runs the three scripts that take long, train_vqvae2.py, encode_dataset.py and train_prior.py, on
tiny data, and kills them: once before each write to the folder of the run (a file opened, renamed
or removed, a folder made), and at random times, by SIGKILL and by SIGTERM. Each is resumed until it
ends (after random kills it may be killed again), and what it leaves is compared with what a run
leaves that was never killed: weights, optimizer and seeds of the checkpoint, log.csv, the best
preset, best.json, pictures, metrics, and that nothing else is left, hidden files included. Only
dates and seconds may differ. Exits with 1 if anything does.

Every run is a fork of this process, which has imported what they need and computed nothing. Linux.
"""

import os
import random
import runpy
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import compare_runs
import measure
import numpy as np
from absl import app, flags

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = ("train_vqvae2", "encode_dataset", "train_prior")
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM}
WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")  # and files opened to write
RECIPES = {
    "train_vqvae2": """
import keras

def recipe(laptop=False):
    return {
        "model": {
            "image_shape": (16, 16, 3), "hidden_units": 4, "residual_units": 4,
            "num_embeddings": 8, "embedding_dim": 4, "quantizer_dropout": 0.3,
        },
        "data": {"crop": "random", "flip": True},
        "batch_size": 4, "steps": 6, "steps_per_epoch": 2, "optimizer": keras.optimizers.Adam(1e-2),
    }
""",
    "train_prior": """
import keras
import keras_vqvae2

def recipe(level, laptop=False):
    return {
        "prior": keras_vqvae2.PixelSnailPrior,
        "model": {
            "hidden_units": 4, "residual_units": 4, "num_blocks": 1, "block_layers": 1,
            "kernel_size": 3, "attention_heads": 0, "output_blocks": 0, "condition_blocks": 0,
            "condition_kernel_size": 3, "dropout": 0.2,
        },
        "batch_size": 4, "steps": 6, "steps_per_epoch": 2, "patience": 9,
        "optimizer": keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True),
    }
""",
}

FLAGS = flags.FLAGS
flags.DEFINE_list("scripts", list(SCRIPTS), "Which of the three.")
flags.DEFINE_list("signals", list(SIGNALS), "Which of the two.")
flags.DEFINE_integer("kills", 200, "Kills at random times, of all scripts and signals together.")
flags.DEFINE_integer("writes", None, "At how many of the writes, evenly spread; all by default.")
flags.DEFINE_integer("kill_seed", 0, "Of the random times.")


class Run:
    """A script in a fork of this process, which writes to `output`."""

    def __init__(self, script, arguments, output, kill_at=None, sig=None):
        self.output, self.started = output, time.monotonic()
        self.log = output.with_name(f"{output.name}.txt")
        read, write = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(read)
            self._child(script, arguments, write, kill_at, sig)
        os.close(write)
        self.events = os.fdopen(read)

    def _child(self, script, arguments, pipe, kill_at, sig):
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        count, inside = 0, f"{self.output}{os.sep}"

        def hook(event, arguments):
            nonlocal count
            opened = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if event not in WRITES and not opened:
                return
            path = arguments[0]
            if not isinstance(path, (str, os.PathLike)):
                return  # of a descriptor
            path = os.path.abspath(os.fspath(path))
            if path.startswith(inside) and not path.endswith(".lock"):
                os.write(pipe, f"{event} {path.removeprefix(inside)}\n".encode())
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), sig)

        code = 1
        try:
            sys.argv = [str(EXAMPLES / f"{script}.py"), *arguments, f"--output={self.output}"]
            sys.path.insert(0, str(EXAMPLES))
            sys.addaudithook(hook)
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
            if isinstance(code, str):
                print(code, file=sys.stderr)
                code = 1
        finally:
            sys.stdout.flush()
            os._exit(code)

    def wait(self, seconds=None):
        """What it ended with (a signal's number below 0), or None if it runs still after that."""
        end = time.monotonic() + (300 if seconds is None else seconds)
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.seconds = time.monotonic() - self.started
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                if seconds is None:
                    os.kill(self.pid, signal.SIGKILL)
                    raise RuntimeError(f"Expected an end within 300 s; see {self.log}")
                return None
            time.sleep(0.002)


def prepare(folder):
    """Writes images, recipes, a VQVAE2 and its codes; what computes does so in a fork."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, recipe in RECIPES.items():
        (folder / f"{name}.py").write_text(recipe)
    for label in ("cats", "dogs"):
        (folder / "images" / label).mkdir(parents=True)
        for i in range(6):
            image = Image.fromarray(rng.integers(256, size=(20, 24, 3), dtype="uint8"))
            image.save(folder / "images" / label / f"{i}.png")
    (folder / "vqvae.py").write_text(
        "import keras_vqvae2\n"
        "vqvae = keras_vqvae2.VQVAE2((16, 16, 3), hidden_units=4, num_embeddings=8)\n"
        f"vqvae.save_to_preset({str(folder / 'vqvae')!r})\n"
    )
    pid = os.fork()
    if pid == 0:
        runpy.run_path(str(folder / "vqvae.py"))
        os._exit(0)
    os.waitpid(pid, 0)
    for split in ("train", "validation"):
        run = Run("encode_dataset", [*arguments_of("encode_dataset", folder), f"--split={split}"],
                  folder / "codes")  # fmt: skip
        if run.wait():
            sys.exit(f"kills: {run.log.read_text()}")


def arguments_of(script, folder):
    return {
        "train_vqvae2": [
            f"--recipe={folder}/train_vqvae2.py",
            f"--data={folder}/images",
            f"--validation={folder}/images",
            "--validation_images=4",
            "--picture_every=2",
            "--engine=grain",
            "--resume",
        ],
        "encode_dataset": [
            f"--preset={folder}/vqvae",
            f"--data={folder}/images",
            "--flips",
            "--shard_size=5",
            "--batch_size=4",
            "--engine=grain",
        ],
        "train_prior": [
            f"--recipe={folder}/train_prior.py",
            f"--codes={folder}/codes",
            "--level=bottom",
            "--validation_examples=4",
            "--engine=grain",
            "--resume",
        ],
    }[script]


class Trials:
    """Killed runs of a script, each compared with the one that was not killed."""

    def __init__(self, script, folder):
        self.script, self.folder = script, folder
        self.arguments = arguments_of(script, folder)
        whole = self._run(f"{script}_whole")
        if whole.wait():
            sys.exit(f"kills: {whole.log.read_text()}")
        self.writes, self.seconds = list(whole.events), whole.seconds
        self.expected = compare_runs.content(whole.output)
        shutil.rmtree(whole.output)
        self.failures = []

    def _run(self, name, **kill):
        return Run(self.script, self.arguments, self.folder / name, **kill)

    def _end(self, run, where):
        """Compares what a run ended with."""
        what = compare_runs.differences(run.output, self.expected)
        if what:
            self.failures.append(f"{self.script}, {where}: {what[:5]} differ; see {run.output}")
            print(self.failures[-1], file=sys.stderr, flush=True)
            return 1
        shutil.rmtree(run.output)
        run.log.unlink()
        return 0

    def _in_first_epoch(self, output):
        return self.script != "encode_dataset" and not any(output.glob("checkpoint-[1-9]*"))

    def at_each_write(self, signal_name):
        """The row of the table: one kill before each write."""
        started, first, failed = time.monotonic(), 0, 0
        count = len(self.writes)
        chosen = range(1, count + 1)
        if FLAGS.writes is not None:
            chosen = sorted({1 + i * count // FLAGS.writes for i in range(FLAGS.writes)})
        for number in chosen:
            name = f"{self.script}_{signal_name}_{number}"
            where = f"{signal_name} before write {number}, {self.writes[number - 1].strip()}"
            self._run(name, kill_at=number, sig=SIGNALS[signal_name]).wait()
            first += self._in_first_epoch(self.folder / name)
            failed += self._resume(name, where)
        return [signal_name, "each write", len(chosen), first, len(chosen), failed, started]

    def at_random_times(self, signal_name, kills, times):
        """The row: so many kills, each of a run that may have been killed before."""
        started, first, runs, failed, done = time.monotonic(), 0, 0, 0, 0
        while done < kills:
            name, runs, code = f"{self.script}_{signal_name}_random_{runs}", runs + 1, None
            while code is None and done < kills:
                run = self._run(name)
                code = run.wait(times.uniform(0, 1.1 * self.seconds))
                if code is None:
                    os.kill(run.pid, SIGNALS[signal_name])
                    done += 1
                    run.wait()
                    first += self._in_first_epoch(run.output)
            where = f"{signal_name} at a random time, run {runs - 1}"
            if code is None:
                failed += self._resume(name, where)
            else:
                failed += self._failed(run, code, where) or self._end(run, where)
        return [signal_name, "random times", kills, first, runs, failed, started]

    def _resume(self, name, where):
        run = self._run(name)
        return self._failed(run, run.wait(), where) or self._end(run, where)

    def _failed(self, run, code, where):
        if code:
            text = run.log.read_text().strip().splitlines()[-1:]
            self.failures.append(f"{self.script}, {where}: ended with {code}: {text}; {run.log}")
            print(self.failures[-1], file=sys.stderr, flush=True)
        return int(code != 0)


def main(_):
    # All that the scripts import, so that a fork starts with it.
    import grain  # noqa: F401
    import keras  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import tensorflow  # noqa: F401
    import tensorflow_datasets  # noqa: F401

    import keras_vqvae2  # noqa: F401

    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    prepare(folder)
    times, rows, failures = random.Random(FLAGS.kill_seed), [], []
    parts = len(FLAGS.scripts) * len(FLAGS.signals)
    shares = [FLAGS.kills * (i + 1) // parts - FLAGS.kills * i // parts for i in range(parts)]
    for script in FLAGS.scripts:
        trials = Trials(script, folder)
        print(f"{script}: {len(trials.writes)} writes, {trials.seconds:.1f} s", file=sys.stderr)
        for name in FLAGS.signals:
            for row in (
                trials.at_each_write(name),
                trials.at_random_times(name, shares.pop(), times),
            ):
                rows.append([script, *row[:-1], f"{time.monotonic() - row[-1]:.0f}"])
                print(rows[-1], file=sys.stderr, flush=True)
        failures += trials.failures
    columns = [
        "script",
        "signal",
        "killed",
        "kills",
        "in the first epoch",
        "runs",
        "differ",
        "seconds",
    ]
    print(measure.markdown_table(columns, rows), end="\n\n")
    print(measure.environment())
    if failures:
        sys.exit("\n".join(failures))
    shutil.rmtree(folder)


if __name__ == "__main__":
    app.run(main)
