"""What `Replicas` promises: any number of devices and processes ends like one device."""

import importlib.util
import subprocess
import time
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_vqvae2

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "train_replicas.py"
BACKEND = keras.backend.backend()
# PyTorch runs one process a device.
TWO = ["--processes=2"] if BACKEND == "torch" else ["--devices=2"]


def launcher():
    spec = importlib.util.spec_from_file_location("measure", SCRIPT.with_name("measure.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.launch


def train(path, *flags):
    (process,) = launcher()([SCRIPT, f"--output={path}", *flags], BACKEND, 1)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return np.load(path)


def assert_same(result, expected):
    names = [name for name in expected if name not in ("losses", "seconds")]
    if BACKEND != "torch":
        names.append("losses")  # those of single steps are a process' own on PyTorch
    assert len(names) > 20
    for name in names:
        tolerance = 1e-2 if "perplexity" in name else 1e-4
        np.testing.assert_allclose(
            result[name], expected[name], atol=tolerance, rtol=tolerance, err_msg=name
        )


# Image 45 is in the second half of the sixth batch: replica 1 alone sees that it is not finite.
WITH_A_NAN = ["--stage=1", "--dropout=0.2", "--nan_at=45"]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return train(tmp_path_factory.mktemp("one") / "one.npz", *WITH_A_NAN)


def test_two_replicas_end_like_one_and_skip_the_step_that_is_not_finite_on_one(one, tmp_path):
    assert np.abs(one["codebook_top"]).max() > 0.01
    assert one["losses"][-1] < 0.8 * one["losses"][0]
    two = train(tmp_path / "two.npz", *WITH_A_NAN, *TWO)
    assert one["skipped_steps"] == two["skipped_steps"] == 1.0
    assert_same(two, one)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "torch", reason="has one device a process")
def test_a_last_batch_that_does_not_divide_loses_its_rest(tmp_path):
    flags = ["--stage=1", "--steps=4"]
    one = train(tmp_path / "one.npz", *flags, "--rest=2")
    two = train(tmp_path / "two.npz", *flags, "--rest=3", *TWO)
    assert len(two["losses"]) == 5
    assert_same(two, one)


@pytest.mark.slow
@pytest.mark.parametrize("quantizer", ["entropies", "residual", "kmeans", "gradients", "shared"])
def test_two_replicas_of_other_quantizers_end_like_one(tmp_path, quantizer):
    flags = ["--stage=1", f"--quantizer={quantizer}", "--steps=8"]
    one = train(tmp_path / "one.npz", *flags)
    assert_same(train(tmp_path / "two.npz", *flags, *TWO), one)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_end_like_one(one, tmp_path, processes):
    several = train(tmp_path / "several.npz", *WITH_A_NAN, f"--processes={processes}")
    assert_same(several, one)


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["pixelsnail", "transformer", "masked_transformer"])
def test_a_prior_on_two_and_four_replicas_ends_like_on_one(tmp_path, prior):
    stage = ["--stage=2", f"--prior={prior}"]
    one = train(tmp_path / "one.npz", *stage)
    for flag in {"--processes=2", "--processes=4", *TWO}:
        assert_same(train(tmp_path / "several.npz", *stage, flag), one)


@pytest.mark.slow
def test_half_precision_on_two_replicas_is_finite(tmp_path):
    for stage in ("1", "2"):
        flags = [f"--stage={stage}", "--precision=mixed_bfloat16", *TWO]
        result = train(tmp_path / "two.npz", *flags)
        assert np.isfinite(result["losses"]).all() and result["skipped_steps"] == 0
        assert result["losses"][-1] < result["losses"][0]


@pytest.mark.slow
def test_a_job_ends_when_a_process_is_killed(tmp_path):
    flags = ["--stage=1", "--steps=400", "--die_at=5", f"--output={tmp_path}/lost.npz"]
    first, last = launcher()([SCRIPT, *flags], BACKEND, 2)
    last.communicate(timeout=300)
    assert last.returncode == -9
    died = time.time()
    try:
        _, errors = first.communicate(timeout=200)
    except subprocess.TimeoutExpired:
        first.kill()
        pytest.fail(f"hung for {time.time() - died:.0f} s")
    assert first.returncode != 0
    assert errors.strip()


@pytest.mark.slow
def test_each_process_encodes_decodes_and_draws_for_itself(tmp_path):
    results = []
    for processes in (1, 2):
        folder = tmp_path / f"{processes}"
        folder.mkdir()
        started = launcher()([Path(__file__).parent / "work_alone.py", folder], BACKEND, processes)
        for process in started:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors[-3000:]
        results += [np.load(folder / f"{i}.npz") for i in range(processes)]
    one, *two = results
    assert one["processes"] == 1 and [r["processes"] for r in two] == [2, 2]
    for result in two:
        for name in ("top", "bottom", "drawn"):
            np.testing.assert_array_equal(result[name], one[name])
        np.testing.assert_allclose(result["decoded"], one["decoded"], atol=1e-5)


def test_more_devices_than_there_are():
    with pytest.raises(ValueError, match="Received: devices=64"):
        keras_vqvae2.Replicas(devices=64)
    with pytest.raises(ValueError, match="Received: devices=0"):
        keras_vqvae2.Replicas(devices=0)


def test_weights_are_split_on_jax_over_devices_that_are_there():
    def never(mesh):
        raise AssertionError

    parallel = keras_vqvae2.Replicas(devices=1)
    on_jax = keras.backend.backend() == "jax"
    message = "a divisor of the 1 devices" if on_jax else "the JAX backend and one process"
    with pytest.raises(ValueError, match=f"{message}.* model_parallel=2"):
        parallel.split_weights(2, never)
    assert (parallel.num_replicas, parallel.model_parallel) == (1, 1)


def test_one_device_needs_nothing():
    parallel = keras_vqvae2.Replicas()
    assert (parallel.num_replicas, parallel.num_processes) == (1, 1)
    assert parallel.process == {"num_processes": 1, "process_index": 0}
    batches = [np.zeros((2, 4))]
    assert parallel.distribute(batches) is batches
    parallel.wait()
