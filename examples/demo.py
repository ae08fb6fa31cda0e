"""Reconstructs eight bundled photographs with the bundled preset, into one picture.

python examples/demo.py --output=demo_reconstructions.png
"""

import time

import keras
from absl import app, flags

import keras_vqvae2
from keras_vqvae2.callbacks.reconstruction_grid import reconstruction_rows
from keras_vqvae2.plots import save_image_rows

FLAGS = flags.FLAGS
flags.DEFINE_string("preset", "vqvae2_imagenette_128", "Name or directory of a VQVAE2 preset.")
flags.DEFINE_string("output", "demo_reconstructions.png", "The picture to write.")


def main(_):
    started = time.time()
    vqvae = keras_vqvae2.VQVAE2.from_preset(FLAGS.preset)
    height, width, _ = vqvae.image_shape
    images = keras_vqvae2.data.sample_photographs((height, width)) / 255.0
    rows = reconstruction_rows(vqvae, images)
    psnr = keras_vqvae2.metrics.PeakSignalNoiseRatio()
    print(f"{FLAGS.preset} on {keras.backend.backend()}, {vqvae.count_params():,} parameters")
    for name, versions in rows.items():
        if name != "original":
            psnr.reset_state()
            psnr.update_state(images, versions)
            print(f"{name:>24}: {float(psnr.result()):5.2f} dB PSNR")
    save_image_rows(rows, FLAGS.output, FLAGS.preset)
    print(f"Wrote {FLAGS.output} in {time.time() - started:.1f} s.")


if __name__ == "__main__":
    app.run(main)
