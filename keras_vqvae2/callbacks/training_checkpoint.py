import functools
import io
import os
import re
import signal
import sys
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vqvae2 import backend
from keras_vqvae2.files import clear_unfinished, replacing
from keras_vqvae2.hints import FilePath

_NAME = re.compile(r"checkpoint-(\d+)(?:-(\d+))?\.keras")
# What Keras' files leave out: what dropout draws from next, and the sums of an epoch's metrics.
_SEEDS, _METRICS = "seed_states.npy", "metrics.npz"
_PENDING = ".pending-"
# Steps after which the processes of a job ask each other whether one was told to stop.
_ASK_EVERY = 10


class TrainingCheckpoint(keras.callbacks.Callback):
    """Saves model, optimizer and the states of dropout's seeds after each epoch.

    A killed run that goes on from there ends as if it had never been killed.

    The file `checkpoint-<epochs finished>.keras` appears at once when it is complete; the one
    before it is removed after that. Whenever the process dies, one good checkpoint is there.

    On SIGTERM, which clusters send before they take a machine away, the running step is finished,
    `checkpoint-<epochs finished>-<steps of the next>.keras` is written, and the process exits with
    0 (`SystemExit`). A run that goes on from it gives `first_step`: its first epoch is then the
    rest of the one that was left, and ends at the same step; so do its logs. The data must start
    behind `epoch * steps_per_epoch + first_step` batches (`start_step` of the sources in
    `keras_vqvae2.data`). Of several processes the logs of that epoch are those of the rest.

    Other callbacks of an epoch write files too: a log, the best preset. `checkpoint.commit`, placed
    behind them in the list of callbacks, makes the checkpoint appear, and the process exit, only
    when they are done, so that a run which is killed between two of these files comes to them
    again: `callbacks=[log, checkpoint, swap, best, checkpoint.commit]`. The checkpoint itself is
    written at its own place in the list.

    Of several processes only the first writes, and all stop when one is told to; they ask each
    other every tenth step.

    Args:
        directory: Folder of the checkpoints; made if it is missing.
        first_step: Steps of the first epoch that were made before, as `restore` returned it.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    model = keras_vqvae2.VQVAE2((16, 16, 3), hidden_units=8, residual_units=4)
    model.compile(optimizer="adam")
    checkpoint = keras_vqvae2.callbacks.TrainingCheckpoint("run")
    model.fit(np.zeros((4, 16, 16, 3)), epochs=2, callbacks=[checkpoint], verbose=0)

    model, epoch, step = keras_vqvae2.callbacks.TrainingCheckpoint.restore("run")
    print(epoch, step)  # 2 0
    model.fit(np.zeros((4, 16, 16, 3)), initial_epoch=epoch, epochs=3, verbose=0)
    ```
    """

    def __init__(self, directory: FilePath, first_step: int = 0) -> None:
        super().__init__()
        self.directory = Path(directory)
        self.first_step = first_step
        self._told = False
        self._handler: Any = None
        self._pending: Path | None = None

    @functools.cached_property
    def commit(self) -> keras.callbacks.Callback:
        """The callback that makes an epoch's checkpoint appear."""
        return _Commit(self)

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self._told, self._several = False, backend.process_count() > 1
        if backend.process_index() == 0:
            self._clear()
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGTERM, self._stop)

    def _clear(self):
        """Removes what a process that was killed left."""
        clear_unfinished(self.directory / f"{_PENDING}checkpoint-*.keras")
        for pending in self.directory.glob(f"{_PENDING}checkpoint-*.keras"):
            pending.unlink()
        for old in _checkpoints(self.directory)[:-1]:
            old.unlink()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        if self._handler is not None and signal.getsignal(signal.SIGTERM) == self._stop:
            signal.signal(signal.SIGTERM, self._handler)
        self._handler = None

    def _stop(self, signum, frame):
        # Keras does not say when `fit` ends by an error: the frames that led here do.
        while frame is not None:
            if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is self.model:
                self._told = True
                return
            frame = frame.f_back
        self.on_train_end()
        os.kill(os.getpid(), signum)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._epoch = epoch
        newest = _checkpoints(self.directory)[-1:] if backend.process_index() == 0 else []
        if newest and _place(newest[0]) > (epoch, self.first_step):
            raise ValueError(
                f"Expected no checkpoint of later epochs than the {epoch} of this run, or what "
                "TrainingCheckpoint.restore returns of it. "
                f"Received: {newest[0]}, of another run; choose another folder, or remove it"
            )
        if self.first_step and not self._several:
            path = self.directory / f"checkpoint-{epoch}-{self.first_step}.keras"
            _restore_arrays(path, _METRICS, self.model.metrics_variables)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        done, steps = self.first_step + batch + 1, self.params.get("steps")
        if done == steps:
            # The signal waits for the end of the epoch, which is near.
            self.model.stop_training = self.model.stop_training or self.first_step > 0
            return
        stop = self._told
        if self._several:
            stop = done % _ASK_EVERY == 0 and backend.any_process(self._told, self.model)
        if stop:
            backend.sync_training_state(self.model)
            self._save(f"checkpoint-{self._epoch}-{done}.keras", within_epoch=True)
            self._commit()
            self._exit()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self.first_step:
            # Keras leaves an epoch early only to end training; this one was the rest of an epoch.
            self.model.stop_training = False
            self.first_step = 0
        self._save(f"checkpoint-{epoch + 1}.keras")
        if "commit" not in self.__dict__:
            self._end_epoch()

    def _end_epoch(self):
        self._commit()
        if backend.any_process(self._told, self.model):
            self._exit()

    def _save(self, name, within_epoch=False):
        if backend.process_index() > 0:
            return
        self._pending = self.directory / f"{_PENDING}{name}"
        with backend.alone(), replacing(self._pending) as temporary:
            self.model.save(temporary)
            _append_arrays(temporary, _SEEDS, _seeds(self.model))
            if within_epoch and not self._several:
                _append_arrays(temporary, _METRICS, self.model.metrics_variables)

    def _commit(self):
        if self._pending is None:
            return
        name = self._pending.name.removeprefix(_PENDING)
        os.replace(self._pending, self._pending.with_name(name))
        self._pending = None
        for old in _checkpoints(self.directory)[:-1]:
            old.unlink()

    def _exit(self):
        # No process leaves before the first one has written.
        backend.any_process(False, self.model)
        self.on_train_end()
        if backend.process_index() == 0:
            last = _checkpoints(self.directory)[-1]
            print(f"\nTold to stop by SIGTERM: {last} is written.", file=sys.stderr, flush=True)
        sys.exit(0)

    @staticmethod
    def restore(directory: FilePath) -> tuple[keras.Model | None, int, int]:
        """Loads the newest checkpoint.

        Args:
            directory: Folder of the checkpoints.

        Returns:
            A tuple `(model, epoch, step)`: the compiled model, the number of finished epochs and of
            the steps of the next one, or `(None, 0, 0)` if there is no checkpoint.
        """
        checkpoints = _checkpoints(Path(directory))
        if not checkpoints:
            return None, 0, 0
        model = keras.models.load_model(checkpoints[-1])
        _restore_arrays(checkpoints[-1], _SEEDS, _seeds(model))
        return model, *_place(checkpoints[-1])


class _Commit(keras.callbacks.Callback):
    """Ends an epoch of a `TrainingCheckpoint` when the callbacks before it have ended theirs."""

    def __init__(self, checkpoint):
        super().__init__()
        self.checkpoint = checkpoint

    def on_epoch_end(self, epoch, logs=None):
        self.checkpoint._end_epoch()


def _place(path):
    return tuple(int(part or 0) for part in _NAME.fullmatch(path.name).groups())


def _checkpoints(directory):
    return sorted(filter(lambda p: _NAME.fullmatch(p.name), directory.glob("*.keras")), key=_place)


def _seeds(model):
    return [v for v in model.variables if v.name == "seed_generator_state"]


def _append_arrays(path, name, variables):
    content = io.BytesIO()
    arrays = [keras.ops.convert_to_numpy(variable) for variable in variables]
    if name == _SEEDS:
        np.save(content, np.array(arrays))
    else:
        np.savez(content, *arrays)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, content.getvalue())


def _restore_arrays(path, name, variables):
    if not path.exists():
        return  # the run goes on in another folder
    with zipfile.ZipFile(path) as archive:
        if name not in archive.namelist():
            return  # written before there were any in it
        content = np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
    arrays = content if name == _SEEDS else content.values()
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
