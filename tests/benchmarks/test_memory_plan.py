import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "memory_plan.py"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def run(monkeypatch, *arguments):
    """Rows of the table, as lists of cells. The script runs on JAX, whatever runs the tests."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_plan(monkeypatch):
    pytest.importorskip("jax")
    name = "pixelsnail_clothing_64_top"
    arguments = [f"--presets={name}", "--batch_size=64"]
    rows = run(monkeypatch, *arguments, "--device_gib=0.5")
    assert [row[:2] + row[3:5] for row in rows] == [
        [name, "4464152", dtype, checkpointing]
        for dtype in ("float32", "mixed_bfloat16")
        for checkpointing in ("False", "True")
    ]
    state, fixed, example, batch, total = ([float(row[i]) for row in rows] for i in (2, 5, 6, 7, 8))
    assert state == pytest.approx([20 * 4_464_152 / 2**30] * 4, rel=0.01)
    for i in range(4):
        expected = state[i] + fixed[i] + example[i] * batch[i]
        assert total[i] == pytest.approx(expected, rel=0.02)
    assert example[1] < example[0] and example[3] < example[2] < 0.7 * example[0]
    devices = [int(row[9].split()[0]) for row in rows]
    assert 1 < devices[0] >= max(devices)


@pytest.mark.slow
def test_check(monkeypatch):
    pytest.importorskip("jax")
    name = "pixelsnail_clothing_64_top"
    rows = run(monkeypatch, "--check", f"--presets={name}", "--batch_size=8")
    assert [row[:3] for row in rows] == [[name, "8", flag] for flag in ("False", "True")]
    for row in rows:
        predicted, planned, measured = map(float, row[3:])
        assert 0.5 < predicted / planned < 2 and 0.4 < predicted / measured < 2.5
