import subprocess
import sys
from pathlib import Path

import keras
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "input_pipeline.py"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
pytest.importorskip("grain")
pytest.importorskip("psutil")


def rows(*arguments):
    command = [sys.executable, SCRIPT, f"--backend={keras.backend.backend()}", *arguments]
    command += ["--images=40", "--batch=8", "--size=32", "--cores=1", "--training=50"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines], done.stderr


def check(table, messages, *engines):
    assert [row[:2] for row in table] == [[engine, "1"] for engine in engines], messages
    for row in table:
        images_a_second, milliseconds, a_core, cores = map(float, row[2:])
        assert images_a_second > 0
        assert a_core == pytest.approx(1000 / milliseconds, rel=0.2)
        assert cores == pytest.approx(50 / a_core, abs=0.02)


@pytest.mark.slow
def test_threads():
    check(*rows("--engines=grain"), "grain")


@pytest.mark.slow
def test_every_engine_with_augmentation():
    pytest.importorskip("keras_cv")
    check(*rows("--augment"), "tf.data", "grain", "grain processes")
