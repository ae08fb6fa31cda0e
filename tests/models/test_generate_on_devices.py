"""Drawing is shared by the devices of one process, on JAX."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

SCRIPT = Path(__file__).parent / "generate_on_devices.py"


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "jax", reason="keras.distribution is JAX's")
def test_devices_draw_a_part_of_the_batch_each_and_the_same_images(tmp_path):
    results = []
    for devices in (1, 4):
        command = [sys.executable, SCRIPT, tmp_path / f"{devices}.npz", str(devices)]
        done = subprocess.run(command, env={**os.environ}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        results.append(np.load(tmp_path / f"{devices}.npz"))
    one, four = results
    for name in ("images", "completed"):
        np.testing.assert_allclose(four[name], one[name], atol=1e-5)
    # Samples and columns of a row, of each of 4 rows: one device has 4 samples, 4 have one each.
    assert one["shards"].tolist() == [[[4, 4]]] * 4
    assert four["shards"].tolist() == [[[1, 4]] * 4] * 4
