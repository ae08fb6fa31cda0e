import csv
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_vqvae2 import VQVAE2
from keras_vqvae2.files import only_process

SCRIPT = Path(__file__).parents[2] / "examples" / "train_vqvae2.py"
MEASURE = Path(__file__).parents[2] / "benchmarks" / "measure.py"
spec = importlib.util.spec_from_file_location("compare_runs", MEASURE.with_name("compare_runs.py"))
compare_runs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compare_runs)
RECIPE = """
import keras

def recipe(laptop=False):
    return {
        "model": {
            "image_shape": (16, 16, 3),
            "hidden_units": 8,
            "residual_units": 4,
            "num_embeddings": 16,
            "embedding_dim": 4,
        },
        "data": {"crop": "random", "flip": True},
        "batch_size": 4,
        "steps": 8,
        "steps_per_epoch": 2,
        "optimizer": keras.optimizers.Adam(1e-3),
    }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A recipe and a few images to train on."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "recipe.py").write_text(RECIPE)
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(10):
        image = Image.fromarray(rng.integers(256, size=(20, 24, 3), dtype="uint8"))
        image.save(folder / "images" / f"{i}.png")
    return folder


def flags_of(folder, output):
    return [f"--recipe={folder}/recipe.py", f"--data={folder}/images", f"--output={output}"]


def start(folder, output, *flags, **variables):
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend(), **variables}
    return subprocess.Popen(
        [sys.executable, SCRIPT, *flags_of(folder, output), *flags],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def run(call, folder):
    """`run(output, *flags)`: what the script prints when it ends well, in this process."""

    def run(output, *flags):
        done = call("train_vqvae2", *flags_of(folder, output), *flags)
        assert done.code == 0, done.err[-3000:]
        return done.out

    return run


def finish(process):
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed[-3000:]
    return printed


def read_log(run):
    with open(run / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_log_has_columns_of_their_own_for_what_comes_later(load, tmp_path):
    log = load("run_folder").EpochLog(tmp_path / "log.csv", 0)
    log.on_epoch_end(0, {"loss": 2.0, "psnr": 20.0})
    (tmp_path / "log.csv").write_text((tmp_path / "log.csv").read_text() + "1,1.5,3.0,4.0\n2,1")
    log = load("run_folder").EpochLog(tmp_path / "log.csv", 2)
    log.on_epoch_end(1, {"loss": 1.0, "val_loss": 1.5, "psnr": 21.0})
    log.on_epoch_end(2, {"loss": 0.5, "psnr": 22.0})
    assert read_log(tmp_path) == [
        {"epoch": "0", "loss": "2.0", "psnr": "20.0", "val_loss": "NA"},
        {"epoch": "1", "loss": "1.0", "psnr": "21.0", "val_loss": "1.5"},
        {"epoch": "2", "loss": "0.5", "psnr": "22.0", "val_loss": "NA"},
    ]
    log = load("run_folder").EpochLog(tmp_path / "log.csv", 1)  # the checkpoint is older
    assert [row["epoch"] for row in log.rows] == ["0"]


def test_a_run_leaves_all_it_promises_and_a_killed_one_ends_the_same(folder, run, call):
    whole, killed = folder / "whole", folder / "killed"
    printed = run(whole, f"--validation={folder}/images")
    plan = [
        line for line in printed.splitlines() if re.match(r"(model|data|work|on|output): ", line)
    ]
    assert "parameters" in plan[0] and "10 files; validation: " in plan[1]
    assert plan[2].startswith("work:   8 steps of 4") and plan[4].endswith("whole, a new run")
    rows = read_log(whole)
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert all(np.isfinite(float(row["val_psnr"])) for row in rows)
    pictures = sorted(path.name for path in (whole / "pictures").iterdir())
    assert pictures == [f"epoch-{i}.png" for i in (1, 2, 3, 4)]
    metrics = json.loads((whole / "metrics.json").read_text())
    assert metrics["steps"] == 8 and np.isfinite(metrics["validation"]["psnr"])
    assert [path.name for path in whole.glob("*.keras")] == ["checkpoint-4.keras"]

    process = start(folder, killed, f"--validation={folder}/images")
    deadline = time.time() + 240
    while not any(killed.glob("checkpoint-[23].keras")):
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    printed = run(killed, f"--validation={folder}/images", "--resume")
    assert re.search(r"output: .*killed, goes on from checkpoint-\d\.keras", printed)
    rows = read_log(killed)
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    a, b = (VQVAE2.from_preset(run / "preset").get_weights() for run in (whole, killed))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)

    # A finished run is not written over.
    done = call("train_vqvae2", f"--data={folder}/images", f"--output={whole}", "--devices=1")
    assert done.code == 1 and "add --resume" in done.err.splitlines()[-1]


def test_a_run_goes_on_as_its_plan_says(folder, run, call):
    output = folder / "planned"
    run(output, "--steps=4")
    plan = json.loads((output / "plan.json").read_text())
    assert plan["batch_size"] == 4 and plan["learning_rate"] == 0.001 and plan["data"]["flip"]
    assert plan["model"]["hidden_units"] == 8 and plan["precision"] == "float32"
    before = compare_runs.content(output)

    def refused(*flags, data=folder / "images"):
        arguments = [f"--recipe={folder}/recipe.py", f"--data={data}", f"--output={output}"]
        done = call("train_vqvae2", *arguments, "--steps=4", "--resume", *flags)
        assert done.code == 1 and "Traceback" not in done.err
        assert compare_runs.differences(output, before) == []
        return done.err.splitlines()[-1]

    expected = f"Expected batch_size=4, with which {output} was begun. Received: batch_size=2"
    assert refused("--batch_size=2") == f"train_vqvae2: {expected}"
    assert "learning_rate=0.001, with" in refused("--learning_rate=0.1")
    for flag in ("accumulate_steps=2", "seed=1", "steps_per_epoch=4", "engine=grain"):
        assert f"Received: {flag.replace('grain', repr('grain'))}" in refused(f"--{flag}")
    assert "model.image_shape=[16, 16, 3], with" in refused("--image_size=24")
    assert "Received: --precision=mixed_float16" in refused("--precision=mixed_float16")
    assert "Expected at least the 4 steps" in refused("--steps=2")
    # Other images are other data; the same elsewhere are not.
    shutil.copytree(folder / "images", folder / "moved")
    (folder / "moved" / "9.png").rename(folder / "moved" / "new.png")
    assert "data.digest_of_names=" in refused(data=folder / "moved")
    (folder / "moved" / "new.png").rename(folder / "moved" / "9.png")
    printed = run(output, "--resume", f"--data={folder}/moved", "--picture_every=9")
    changes = re.findall(r"^change: goes on with (\w+)=", printed, re.MULTILINE)
    assert sorted(changes) == ["data_path", "picture_every", "steps"]
    assert len(read_log(output)) == 4
    # A run from before there were plans.
    (output / "plan.json").unlink()
    run(output, "--resume", "--steps=10")
    assert (output / "plan.json").exists() and len(read_log(output)) == 5


def test_two_processes_do_not_work_in_one_folder(folder, call):
    output = folder / "in_use"
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with only_process(output / ".lock"):
            os.write(write, b"x")
            signal.pause()
    os.read(read, 1)
    try:
        done = call("train_vqvae2", *flags_of(folder, output))
        assert done.code == 1
        assert f"{output}, in use by process {pid} on " in done.err.splitlines()[-1]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert [path.name for path in output.iterdir()] == [".lock"]


def test_a_run_that_diverges_fails_and_keeps_what_was_good(folder, run, call):
    output = folder / "diverged"
    run(output, "--steps=2")
    before = compare_runs.content(output)
    recipe = folder / "diverges.py"
    recipe.write_text(RECIPE.replace("Adam(1e-3)", "SGD(1e30)"))
    flags = [f"--recipe={recipe}", f"--data={folder}/images", "--resume"]
    done = call("train_vqvae2", *flags, f"--output={folder / 'anew'}")
    assert done.code == 1 and "Traceback" not in done.err
    assert "Expected a step with a finite loss" in done.err.splitlines()[-1]
    assert not (folder / "anew" / "preset").exists()
    # The plan would refuse that recipe; without it the checkpoint's optimizer goes on.
    assert call("train_vqvae2", *flags, f"--output={output}").code == 1
    assert compare_runs.differences(output, before) == []


@pytest.mark.slow
def test_two_processes_stop_at_sigterm_and_one_goes_on_to_the_same_end(folder):
    data = f"--validation={folder}/images"
    spec = importlib.util.spec_from_file_location("measure", MEASURE)
    measure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(measure)
    one, two = folder / "one_process", folder / "two_processes"
    long = ["--steps=60", "--steps_per_epoch=20"]
    finish(start(folder, one, data, *long))
    backend = keras.backend.backend()
    processes = [
        start(folder, two, data, *long, **variables)
        for variables in measure.environments(backend, 2)
    ]
    deadline = time.time() + 240
    while not any(two.glob("checkpoint-1*.keras")):
        assert all(p.poll() is None for p in processes), processes[0].communicate()
        assert time.time() < deadline
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)  # one is told, both stop
    assert "SIGTERM" in "".join(finish(process) for process in processes)
    (checkpoint,) = two.glob("checkpoint-*.keras")
    assert checkpoint.name != "checkpoint-3.keras"
    finish(start(folder, two, data, *long, "--resume"))
    assert [row["epoch"] for row in read_log(two)] == ["0", "1", "2"]
    a, b = (VQVAE2.from_preset(run / "preset").get_weights() for run in (one, two))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-3)


def test_grain_goes_on_to_the_same_end_and_ctrl_c_says_how(folder, run):
    grain = ["--engine=grain", "--steps_per_epoch=3"]
    whole, stopped = folder / "grain", folder / "grain_stopped"
    # A child of tests that run in the background of a shell would inherit that SIGINT is ignored.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = start(folder, stopped, *grain, "--steps=1000000")  # until it is interrupted
    signal.signal(signal.SIGINT, handler)
    deadline = time.time() + 240
    while not any(stopped.glob("checkpoint-1.keras")):
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 130, printed
    message = "train_vqvae2: interrupted. --resume goes on from the last checkpoint in --output."
    assert message in printed.splitlines()  # behind it TensorFlow may tell of its data set's end
    assert "Traceback" not in printed
    assert not (stopped / "preset").exists()
    (checkpoint,) = stopped.glob("checkpoint-*.keras")
    steps = 3 * (int(checkpoint.stem.removeprefix("checkpoint-")) + 1)
    run(stopped, *grain, f"--steps={steps}", "--resume")
    run(whole, *grain, f"--steps={steps}")
    a, b = (VQVAE2.from_preset(run / "preset").get_weights() for run in (whole, stopped))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
