import json

import keras
import pytest

from keras_vqvae2 import VQVAE2
from keras_vqvae2.callbacks import BestPreset


def run(directory, losses, start=0, monitor="val_loss", **arguments):
    """The epochs, from 1 on, that a run with such validation losses comes to."""
    model = VQVAE2((16, 16, 3), hidden_units=8, residual_units=4)
    callback = BestPreset(directory, monitor, **arguments)
    callback.set_model(model)
    callback.on_train_begin()
    model.stop_training = False
    for epoch in range(start, len(losses)):
        model.trainable_variables[0].assign(
            keras.ops.full(model.trainable_variables[0].shape, epoch + 1.0)
        )
        callback.on_epoch_begin(epoch)
        callback.on_epoch_end(epoch, {monitor: losses[epoch]})
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


def test_what_is_not_finite_is_never_the_best(tmp_path):
    assert run(tmp_path, [float("nan"), float("inf")]) == 2
    assert list(tmp_path.iterdir()) == []
    assert run(tmp_path, [float("nan"), 2.0, float("-inf")]) == 3
    assert best(tmp_path) == (2, 2.0)


def test_a_run_that_had_ended_is_over(tmp_path):
    losses = [3.0, 2.0, 2.5, 2.1, 2.2, 1.0]
    assert run(tmp_path, losses, patience=2) == 4
    for patience, over in ((None, False), (2, True), (3, False)):
        assert BestPreset(tmp_path, patience=patience).is_over(4) == over
    assert not BestPreset(tmp_path / "new", patience=2).is_over(0)


def test_a_kill_between_two_renames_does_not_lose_the_preset(tmp_path):
    run(tmp_path, [3.0])
    staging = tmp_path / ".preset-x.unfinished"
    staging.mkdir()
    (tmp_path / "preset").rename(staging / "old")
    run(tmp_path, [3.0, 4.0], start=1)
    assert best(tmp_path) == (1, 1.0)
    assert not staging.exists()


def test_a_resumed_run_goes_on_counting(tmp_path):
    losses = [3.0, 2.0, 2.5, 2.1, 2.2, 1.0]
    run(tmp_path, losses[:3], patience=3)
    assert run(tmp_path, losses, start=3, patience=3) == 5
    # The best epoch was kept, but not checkpointed, before a kill: it comes once more.
    assert run(tmp_path, losses, start=1, patience=3) == 5
    assert best(tmp_path) == (2, 2.0)


def test_what_is_watched_must_be_there(tmp_path):
    callback = BestPreset(tmp_path, "val_psnr")
    callback.set_model(VQVAE2((16, 16, 3), hidden_units=8, residual_units=4))
    callback.on_train_begin()
    with pytest.raises(ValueError, match=r"Expected 'val_psnr' to watch. Received: \['val_loss'\]"):
        callback.on_epoch_end(0, {"val_loss": 1.0})


def test_what_is_better_depends_on_the_metric(tmp_path):
    run(tmp_path, [20.0, 22.0, 21.0], monitor="val_psnr")
    assert best(tmp_path) == (2, 2.0)
    run(tmp_path / "min", [20.0, 22.0, 21.0], monitor="val_psnr", mode="min")
    assert best(tmp_path / "min") == (1, 1.0)
    run(tmp_path / "max", [3.0, 4.0, 2.0], mode="max")
    assert best(tmp_path / "max") == (2, 2.0)
    with pytest.raises(ValueError, match="mode='most'"):
        BestPreset(tmp_path, mode="most")


def test_what_another_run_left_does_not_count(tmp_path):
    run(tmp_path, [1.0, 0.5])
    run(tmp_path, [3.0, 2.0, 4.0])
    assert best(tmp_path) == (2, 2.0)
    assert json.loads((tmp_path / "best.json").read_text()) == {"epoch": 2, "val_loss": 2.0}


def test_keras_callbacks_know_what_is_better(rng):
    images = rng.uniform(size=(4, 16, 16, 3))
    model = VQVAE2((16, 16, 3), hidden_units=8, residual_units=4)
    model.compile(optimizer="adam")
    stoppers = [
        keras.callbacks.EarlyStopping(monitor=f"val_{name}", patience=9)
        for name in ("psnr", "usage_top", "commitment_top", "loss", "reconstruction_error")
    ]
    model.fit(images, validation_data=images, callbacks=stoppers, verbose=0)
    ups = [stopper.monitor_op is keras.ops.greater for stopper in stoppers]
    assert ups == [True, True, False, False, False]


def test_epochs_without_validation_are_none_to_judge(rng, tmp_path):
    images = rng.uniform(size=(2, 16, 16, 3))
    model = VQVAE2((16, 16, 3), hidden_units=8, residual_units=4)
    model.compile("adam")
    arguments = {"validation_data": images, "validation_freq": 2, "verbose": 0}
    model.fit(images, epochs=3, callbacks=[BestPreset(tmp_path)], **arguments)
    assert best(tmp_path)[0] == 2
    with pytest.raises(ValueError, match="Expected 'val_loss' to watch"):
        model.fit(images, epochs=3, callbacks=[BestPreset(tmp_path)], verbose=0)
