import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "examples" / "demo.py"


def test_demo_writes_both_pictures(tmp_path):
    pictures = tmp_path / "reconstructions.png", tmp_path / "samples.png"
    process = subprocess.run(
        [
            sys.executable,
            SCRIPT,
            f"--reconstructions={pictures[0]}",
            f"--samples={pictures[1]}",
            "--images_per_class=1",
        ],
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    assert process.stdout.startswith("model:  generator cartoonset_128, and vqvae2_clothing_64,")
    line = next(line for line in process.stdout.splitlines() if "reconstruction:" in line)
    assert float(line.split()[1]) > 24
    assert "bottom: 100%" in process.stderr
    reconstructions, samples = (np.asarray(Image.open(p).convert("RGB")) for p in pictures)
    assert reconstructions.shape[1] > 8 * 128 and reconstructions.shape[0] > 3 * 128
    assert samples.shape[0] > 10 * 128 and samples.shape[1] > 128
    assert 20 < samples.std() < 110
