import os
import signal

import keras
import numpy as np
import pytest
from keras import ops

from keras_vqvae2 import VQVAE2, PixelSnailPrior
from keras_vqvae2.callbacks import BestPreset, TrainingCheckpoint
from keras_vqvae2.data import images_from_arrays


def build(**arguments):
    model = VQVAE2((16, 16, 3), hidden_units=8, residual_units=4, num_embeddings=16, **arguments)
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    return model


def fit(model, images, **kwargs):
    model.fit(images, batch_size=4, shuffle=False, verbose=0, **kwargs)


def build_prior():
    prior = PixelSnailPrior(
        (4, 4), num_embeddings=16, hidden_units=8, residual_units=8, num_blocks=1, block_layers=1,
        attention_heads=2, output_blocks=1, dropout=0.5,
    )  # fmt: skip
    prior.compile(optimizer=keras.optimizers.Adam(1e-2))
    return prior


@pytest.mark.compiled
@pytest.mark.parametrize("stage", [1, 2])
def test_a_restored_run_ends_like_one_that_never_stopped(rng, tmp_path, stage):
    """Dropout of the quantizer, or of the prior, included."""
    data = rng.uniform(size=(8, 16, 16, 3))
    if stage == 2:
        data = {"top": rng.integers(16, size=(8, 4, 4))}
    models = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        models.append(build(quantizer_dropout=0.5) if stage == 1 else build_prior())
    whole, stopped = models
    fit(whole, data, epochs=4)
    fit(stopped, data, epochs=2, callbacks=[TrainingCheckpoint(tmp_path)])
    model, epoch, step = TrainingCheckpoint.restore(tmp_path)
    assert (epoch, step) == (2, 0)
    fit(model, data, initial_epoch=epoch, epochs=4, callbacks=[TrainingCheckpoint(tmp_path)])
    assert any(variable.name == "seed_generator_state" for variable in model.variables)
    for a, b in zip(whole.variables, model.variables, strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(a), ops.convert_to_numpy(b), rtol=1e-4, atol=1e-6
        )
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4.keras"]


def test_a_failed_write_leaves_the_checkpoint_before(rng, tmp_path, monkeypatch):
    images = rng.uniform(size=(4, 16, 16, 3))
    model = build()
    fit(model, images, epochs=1, callbacks=[TrainingCheckpoint(tmp_path)])

    def disk_full(self, path, **kwargs):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(VQVAE2, "save", disk_full)
    with pytest.raises(OSError, match="No space left"):
        fit(model, images, initial_epoch=1, epochs=2, callbacks=[TrainingCheckpoint(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1.keras"]
    assert TrainingCheckpoint.restore(tmp_path)[1] == 1


def test_who_reads_leaves_a_running_process_alone(rng, tmp_path):
    images = rng.uniform(size=(4, 16, 16, 3))

    class Read(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            TrainingCheckpoint.restore(tmp_path)

    checkpoint = TrainingCheckpoint(tmp_path)
    fit(build(), images, epochs=2, callbacks=[checkpoint, Read(), checkpoint.commit])
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2.keras"]


def test_who_writes_next_clears_what_a_kill_left(rng, tmp_path):
    fit(build(), rng.uniform(size=(4, 16, 16, 3)), callbacks=[TrainingCheckpoint(tmp_path)])
    whole = (tmp_path / "checkpoint-1.keras").read_bytes()
    for name in (".pending-checkpoint-2.keras", "checkpoint-0-1.keras"):
        (tmp_path / name).write_bytes(whole)
    (tmp_path / "..pending-checkpoint-2.keras-x.unfinished").mkdir()
    (tmp_path / ".of-someone-else").mkdir()
    model, epoch, _ = TrainingCheckpoint.restore(tmp_path)
    fit(model, rng.uniform(size=(4, 16, 16, 3)), epochs=epoch, initial_epoch=epoch,
        callbacks=[TrainingCheckpoint(tmp_path)])  # fmt: skip
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".of-someone-else", "checkpoint-1.keras"]


def test_a_folder_with_checkpoints_of_another_run_is_refused(rng, tmp_path):
    def fit(**options):
        model = VQVAE2((16, 16, 3), hidden_units=8, residual_units=4)
        model.compile("adam")
        images = rng.uniform(size=(2, 16, 16, 3))
        model.fit(images, callbacks=[TrainingCheckpoint(tmp_path)], verbose=0, **options)

    fit(epochs=2)
    with pytest.raises(ValueError, match="than the 0 of this run.*Received: .*checkpoint-2.keras"):
        fit(epochs=1)
    assert [path.name for path in tmp_path.glob("*.keras")] == ["checkpoint-2.keras"]
    fit(epochs=3, initial_epoch=2)
    assert [path.name for path in tmp_path.glob("*.keras")] == ["checkpoint-3.keras"]


def test_nothing_to_restore(tmp_path):
    (tmp_path / "preset.keras").write_text("something else")
    assert TrainingCheckpoint.restore(tmp_path) == (None, 0, 0)
    assert TrainingCheckpoint.restore(tmp_path / "nowhere") == (None, 0, 0)


class Signal(keras.callbacks.Callback):
    """Sends this process SIGTERM while a step runs."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.when, self.epoch = (epoch, batch), None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.when:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("batch, name", [(1, "checkpoint-1-2.keras"), (3, "checkpoint-2.keras")])
def test_sigterm_writes_a_checkpoint_from_which_the_run_ends_the_same(rng, tmp_path, batch, name):
    pixels = rng.uniform(size=(16, 16, 16, 3))
    images = images_from_arrays(pixels, batch_size=4, repeat=True)
    whole = build()
    start = whole.get_weights()
    settings = {"epochs": 3, "steps_per_epoch": 4, "verbose": 0}
    expected = whole.fit(images, **settings).history

    stopped, handler = build(), signal.getsignal(signal.SIGTERM)
    stopped.set_weights(start)
    callbacks = [Signal(1, batch), TrainingCheckpoint(tmp_path)]
    with pytest.raises(SystemExit) as exit:
        stopped.fit(images, callbacks=callbacks, **settings)
    assert exit.value.code == 0
    assert signal.getsignal(signal.SIGTERM) == handler
    assert [path.name for path in tmp_path.iterdir()] == [name]

    model, epoch, step = TrainingCheckpoint.restore(tmp_path)
    rest = images_from_arrays(pixels, batch_size=4, repeat=True, start_step=4 * epoch + step)
    history = model.fit(
        rest,
        initial_epoch=epoch,
        callbacks=[TrainingCheckpoint(tmp_path, first_step=step)],
        **settings,
    )
    assert history.epoch == list(range(epoch, 3))
    # Those of the epoch that was cut count all of its steps.
    for metric in ("loss", "psnr", "usage_top", "perplexity_bottom"):
        found = history.history[metric]
        np.testing.assert_allclose(found, expected[metric][epoch:], rtol=1e-4, err_msg=metric)
    assert int(model.optimizer.iterations) == int(whole.optimizer.iterations) == 12
    for a, b in zip(whole.variables, model.variables):
        np.testing.assert_allclose(
            ops.convert_to_numpy(a), ops.convert_to_numpy(b), rtol=1e-4, atol=1e-6
        )
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3.keras"]


class Fails(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise RuntimeError("as users' callbacks do")


def test_a_fit_that_failed_does_not_keep_the_process_alive(rng, tmp_path):
    images, seen = rng.uniform(size=(4, 16, 16, 3)), []
    handler = signal.signal(signal.SIGTERM, lambda *args: seen.append("the user's own"))
    try:
        model = build()
        with pytest.raises(RuntimeError):
            fit(model, images, callbacks=[TrainingCheckpoint(tmp_path), Fails()])
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen == ["the user's own"]
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_what_is_behind_the_checkpoint_is_done_before_it_appears(rng, tmp_path):
    images, seen = rng.uniform(size=(4, 16, 16, 3)), []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(sorted(path.name for path in tmp_path.glob("checkpoint-*")))

    class Killed(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    checkpoint = TrainingCheckpoint(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(build(), images, epochs=3, callbacks=[checkpoint, Look(), Killed(), checkpoint.commit])
    assert seen == [[], ["checkpoint-1.keras"]]
    assert TrainingCheckpoint.restore(tmp_path)[1:] == (1, 0)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-1.keras"]


def test_sigterm_at_the_end_of_an_epoch_waits_for_what_is_behind(rng, tmp_path):
    images = rng.uniform(size=(4, 16, 16, 3))
    checkpoint, best = TrainingCheckpoint(tmp_path), BestPreset(tmp_path)
    callbacks = [Signal(0, 0), checkpoint, best, checkpoint.commit]
    with pytest.raises(SystemExit):
        fit(build(), images, validation_data=images, epochs=2, callbacks=callbacks)
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoint-1.keras",
        "preset",
        "best.json",
    }
