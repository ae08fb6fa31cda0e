import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "examples" / "demo.py"


def test_demo_writes_the_picture_and_prints_psnr(tmp_path):
    picture = tmp_path / "demo.png"
    process = subprocess.run(
        [sys.executable, SCRIPT, f"--output={picture}"],
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    line = next(line for line in process.stdout.splitlines() if "reconstruction:" in line)
    assert float(line.split()[1]) > 24
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert pixels.shape[1] > 8 * 128 and pixels.shape[0] > 3 * 128
