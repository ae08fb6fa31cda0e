"""A run that is killed between any two writes, and resumed, ends as if it had not been."""

import contextlib
import importlib.util
import os
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_vqvae2 import PixelSnailPrior, Replicas
from keras_vqvae2.callbacks import BestPreset, TrainingCheckpoint

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
spec = importlib.util.spec_from_file_location("compare_runs", BENCHMARKS / "compare_runs.py")
compare_runs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compare_runs)

RNG = np.random.default_rng(0)
CODES, HELD_OUT = ({"top": RNG.integers(4, size=(n, 2, 2), dtype="int32")} for n in (4, 2))


class Killed(BaseException):
    """A kill: from then on, nothing more is written."""


class Writes:
    """Counts the writes to a folder, and forbids them from a given one on.

    A process that is killed does not clean up: neither does one to which every write is forbidden.
    """

    folder, first_forbidden = None, None

    def __init__(self):
        self.seen = []  # whether each write changed what is not hidden

    def __call__(self, event, arguments):
        written = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
        opened = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if (event in written or opened) and not isinstance(arguments[0], int):
            paths = arguments[:2] if event == "os.rename" else arguments[:1]
            self.write(*map(os.path.abspath, paths))

    def write(self, *paths):
        start = f"{self.folder}{os.sep}"
        if self.folder is None or not paths[0].startswith(start):
            return
        self.seen.append(any(path.removeprefix(start)[0] != "." for path in paths))
        if self.first_forbidden is not None and len(self.seen) >= self.first_forbidden:
            raise Killed

    @contextlib.contextmanager
    def to(self, folder, first_forbidden=None):
        self.folder, self.seen, self.first_forbidden = folder, [], first_forbidden
        try:
            yield
        finally:
            self.folder = None


writes = Writes()
sys.addaudithook(writes)


def train(run_folder, output, epochs, patience=2, learning_rate=0.1):
    """What train_prior.py does; returns the epochs that were trained, and their losses."""
    keras.utils.clear_session(free_memory=False)  # names are those of a new process
    keras.utils.set_random_seed(0)
    model, epoch, step = TrainingCheckpoint.restore(output)
    if model is None:
        model = PixelSnailPrior(
            (2, 2), num_embeddings=4, hidden_units=4, residual_units=4, num_blocks=1,
            block_layers=1, attention_heads=0, output_blocks=0, dropout=0.5,
        )  # fmt: skip
        model.compile(optimizer=keras.optimizers.SGD(learning_rate, momentum=0.9, use_ema=True))
    callbacks = run_folder.callbacks(output, epoch, step, Replicas())
    best = BestPreset(output, patience=patience)
    history = model.fit(
        CODES,
        batch_size=2,
        shuffle=False,
        validation_data=HELD_OUT,
        initial_epoch=epoch,
        epochs=epoch if best.is_over(epoch) else epochs,
        callbacks=run_folder.committing(
            [*callbacks, keras.callbacks.SwapEMAWeights(swap_on_epoch=True), best]
        ),
        verbose=0,
    ).history
    return list(zip(history.get("loss", []), history.get("val_loss", [])))


@pytest.mark.parametrize(
    "epochs, hidden",
    [(1, True), (2, False), pytest.param(2, True, marks=pytest.mark.slow)],
    ids=["one epoch", "two epochs", "two epochs, hidden files too"],
)
def test_a_run_killed_between_any_two_writes_ends_the_same(load, tmp_path, epochs, hidden):
    run_folder = load("run_folder")
    whole = tmp_path / "whole"
    whole.mkdir()
    with writes.to(whole):
        history = train(run_folder, whole, epochs)
    numbers = [i for i, visible in enumerate(writes.seen, start=1) if visible or hidden]
    expected = compare_runs.content(whole)
    assert len(history) == epochs and len(numbers) >= (15 if hidden else 5) * epochs
    assert {f"checkpoint-{epochs}.keras", "log.csv", "best.json"} < set(expected)
    for number in numbers:
        killed = tmp_path / f"killed_{number}"
        killed.mkdir()
        with writes.to(killed, first_forbidden=number), pytest.raises(Killed):
            train(run_folder, killed, epochs)
        rest = train(run_folder, killed, epochs)
        assert history[epochs - len(rest) :] == rest
        assert compare_runs.differences(killed, expected) == [], number


def test_a_run_that_patience_had_ended_is_over(load, tmp_path):
    """A kill behind its last epoch, before what a script writes at the end."""
    run_folder = load("run_folder")
    history = train(run_folder, tmp_path, 9, patience=1, learning_rate=0.0)
    assert len(history) == 2  # the first was the best
    before = compare_runs.content(tmp_path)
    assert train(run_folder, tmp_path, 9, patience=1, learning_rate=0.0) == []
    assert compare_runs.differences(tmp_path, before) == []
