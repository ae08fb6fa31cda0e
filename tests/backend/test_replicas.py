import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

SCRIPT = Path(__file__).parent / "train_on_replicas.py"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def train(path, replicas, **environment):
    ranks = [0]
    extra = []
    if replicas > 1 and keras.backend.backend() == "torch":
        ranks = range(replicas)
        extra = [str(free_port())]
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend(), **environment}
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, path, str(replicas), *([str(rank), *extra] if extra else [])],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ranks
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:]
    return np.load(path)


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replicas")
    return train(folder / "one.npz", 1), train(folder / "two.npz", 2)


@pytest.mark.parametrize("level", ["top", "bottom"])
def test_two_replicas_end_with_the_codebook_of_one(one_and_two, level):
    one, two = (result[f"codebook_{level}"] for result in one_and_two)
    assert np.abs(one).max() > 0.01
    np.testing.assert_allclose(two, one, atol=1e-4)


def test_two_replicas_end_with_the_weights_of_one(one_and_two):
    one, two = one_and_two
    names = [name for name in one if name.startswith("weight_")]
    assert len(names) > 20
    for name in names:
        np.testing.assert_allclose(two[name], one[name], atol=1e-3)
    np.testing.assert_allclose(two["norm"], one["norm"], rtol=1e-2)


def test_a_nan_on_one_replica_skips_the_step_on_both(tmp_path):
    # Image 45 is in the second half of the sixth batch: replica 1 alone sees it.
    one = train(tmp_path / "one.npz", 1, NAN_AT="45")
    two = train(tmp_path / "two.npz", 2, NAN_AT="45")
    assert one["skipped"].tolist() == [1.0]
    # TensorFlow sums the metric over its replicas.
    assert two["skipped"].tolist() in ([1.0], [2.0])
    np.testing.assert_allclose(two["codebook_bottom"], one["codebook_bottom"], atol=1e-4)
