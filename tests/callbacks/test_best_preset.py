import json

import keras
import pytest

from keras_vqvae2 import VQVAE2
from keras_vqvae2.callbacks import BestPreset


def run(directory, losses, start=0, **arguments):
    """The epochs, from 1 on, that a run with such validation losses comes to."""
    model = VQVAE2((16, 16, 3), hidden_units=8, residual_units=4)
    callback = BestPreset(directory, **arguments)
    callback.set_model(model)
    callback.on_train_begin()
    model.stop_training = False
    for epoch in range(start, len(losses)):
        model.trainable_variables[0].assign(
            keras.ops.full(model.trainable_variables[0].shape, epoch + 1.0)
        )
        callback.on_epoch_end(epoch, {"val_loss": losses[epoch]})
        if model.stop_training:
            return epoch + 1
    return len(losses)


def best(directory):
    weights = VQVAE2.from_preset(directory / "preset").trainable_variables[0]
    record = json.loads((directory / "best.json").read_text())
    return record["epoch"], float(keras.ops.max(weights))


def test_keeps_the_best_epoch_and_stops(tmp_path):
    assert run(tmp_path, [3.0, 2.0, 2.5, 2.1, 2.2, 1.0], patience=3) == 5
    assert best(tmp_path) == (2, 2.0)


def test_without_patience_it_never_stops(tmp_path):
    assert run(tmp_path, [3.0, 2.0, 2.5, 2.1, float("nan")]) == 5
    assert best(tmp_path) == (2, 2.0)


def test_a_resumed_run_goes_on_counting(tmp_path):
    losses = [3.0, 2.0, 2.5, 2.1, 2.2, 1.0]
    run(tmp_path, losses[:3], patience=3)
    assert run(tmp_path, losses, start=3, patience=3) == 5
    # The best epoch was kept, but not checkpointed, before a kill: it comes once more.
    assert run(tmp_path, losses, start=1, patience=3) == 5
    assert best(tmp_path) == (2, 2.0)


def test_what_is_watched_must_be_there(tmp_path):
    with pytest.raises(ValueError, match=r"Expected 'val_psnr' to watch. Received: \['val_loss'\]"):
        run(tmp_path, [1.0], monitor="val_psnr")
