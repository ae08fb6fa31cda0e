import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from keras_vqvae2 import backend
from keras_vqvae2.files import clear_unfinished, replacing
from keras_vqvae2.hints import FilePath


class BestPreset(keras.callbacks.Callback):
    """Keeps the best epoch's model as a preset, and ends training when it gets no better.

    Writes `preset/` whenever the watched value is the best so far, and `best.json` with the epoch
    and the value. A run that is resumed goes on from what `best.json` says; what it says of epochs
    that are still to come belongs to another run, or comes once more. Of several processes only the
    first writes.

    Behind a `keras.callbacks.SwapEMAWeights(swap_on_epoch=True)` in the list of callbacks, the
    preset holds the averaged weights.

    Args:
        directory: Folder of the run.
        monitor: What is watched. Defaults to `"val_loss"`.
        mode: `"min"`, `"max"`, or `"auto"` for what the model's metric of that name says.
        patience: None, or after how many epochs without a better one training ends.
        metadata: None, or a dict of further entries for the preset's `metadata.json`.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    images = np.random.default_rng(0).uniform(size=(4, 16, 16, 3))
    model = keras_vqvae2.VQVAE2((16, 16, 3), hidden_units=8, residual_units=4)
    model.compile(optimizer="adam")
    best = keras_vqvae2.callbacks.BestPreset("run", patience=3)
    model.fit(images, validation_data=images, epochs=2, callbacks=[best], verbose=0)
    model = keras_vqvae2.VQVAE2.from_preset("run/preset")
    ```
    """

    def __init__(
        self,
        directory: FilePath,
        monitor: str = "val_loss",
        patience: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        mode: str = "auto",
    ) -> None:
        super().__init__()
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"Expected 'auto', 'min' or 'max'. Received: mode={mode!r}")
        self.directory = Path(directory)
        self.monitor = monitor
        self.patience = patience
        self.metadata = metadata
        self.mode = mode
        self._begun = False

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        if backend.process_index() == 0:
            for name in ("preset", "best.json"):
                clear_unfinished(self.directory / name)
        self._best = self.best()
        self._begun = False
        names = {m.name: getattr(m, "_direction", "down") for m in self.model.metrics}
        up = names.get(self.monitor.removeprefix("val_")) == "up"
        self._sign = -1 if self.mode == "max" or (self.mode == "auto" and up) else 1

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if not self._begun and self._best["epoch"] > epoch:
            self._best = {"epoch": 0, "value": None}
            if backend.process_index() == 0:
                (self.directory / "best.json").unlink(missing_ok=True)
        self._begun = True

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        logs = logs or {}
        validated = self.model._should_eval(epoch, self.model.validation_freq)
        if self.monitor not in logs and self.monitor.startswith("val_") and not validated:
            return
        if self.monitor not in logs:
            raise ValueError(f"Expected {self.monitor!r} to watch. Received: {sorted(logs)}")
        value, best = float(logs[self.monitor]), self._best["value"]
        counts = math.isfinite(value) and not math.isnan(logs.get("loss", 0.0))
        if not counts or (best is not None and not self._sign * value < self._sign * best):
            self.model.stop_training = self.model.stop_training or self.is_over(epoch + 1)
            return
        self._best = {"epoch": epoch + 1, "value": value}
        if backend.process_index() > 0:
            return
        with backend.alone():
            self.model.save_to_preset(self.directory / "preset", metadata=self.metadata)
        with replacing(self.directory / "best.json") as temporary:
            temporary.write_text(json.dumps({"epoch": epoch + 1, self.monitor: value}))

    def is_over(self, epochs: int) -> bool:
        """Whether a run ends after so many epochs, since `patience` of them were no better.

        A run that is resumed asks before it trains on: it may have been stopped after its last one.
        """
        best = self._best if self._begun else self.best()
        return self.patience is not None and epochs - best["epoch"] >= self.patience

    def best(self) -> dict[str, Any]:
        """Dict of `epoch`, from 1 on, and `value`; epoch 0 and None if there is none yet."""
        path = self.directory / "best.json"
        if not path.exists():
            return {"epoch": 0, "value": None}
        best = json.loads(path.read_text())
        return {"epoch": best["epoch"], "value": best.get(self.monitor)}
