import numpy as np
from PIL import Image


def test_demo_writes_both_pictures(tmp_path, call):
    pictures = tmp_path / "reconstructions.png", tmp_path / "samples.png"
    done = call(
        "demo",
        f"--reconstructions={pictures[0]}",
        f"--samples={pictures[1]}",
        "--images_per_class=1",
    )
    assert done.code == 0, done.err[-2000:]
    assert done.out.startswith("model:  generator cartoonset_128, and vqvae2_clothing_64,")
    line = next(line for line in done.out.splitlines() if "reconstruction:" in line)
    assert float(line.split()[1]) > 24
    assert "bottom: 100%" in done.err
    reconstructions, samples = (np.asarray(Image.open(p).convert("RGB")) for p in pictures)
    assert reconstructions.shape[1] > 8 * 128 and reconstructions.shape[0] > 3 * 128
    assert samples.shape[0] > 10 * 128 and samples.shape[1] > 128
    assert 20 < samples.std() < 110
