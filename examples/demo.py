"""Reconstructs eight bundled photographs and invents images of ten classes, into two pictures.

python examples/demo.py --reconstructions=demo_reconstructions.png --samples=demo_samples.png
"""

import time
from pathlib import Path

import command_line
import reports
from absl import flags

import keras_vqvae2
from keras_vqvae2.plots import reconstruction_rows, save_image_rows

FLAGS = flags.FLAGS
command_line.define("images_per_class", "seed", "register", preset="cartoonset_128")
flags.DEFINE_string("vqvae", "vqvae2_clothing_64", "VQVAE2 preset that reconstructs photographs.")
flags.DEFINE_string("reconstructions", "demo_reconstructions.png", "The first picture to write.")
flags.DEFINE_string("samples", "demo_samples.png", "The second.")


def reconstruct(vqvae):
    height, width, _ = vqvae.image_shape
    images = keras_vqvae2.data.sample_photographs((height, width)) / 255.0
    rows = reconstruction_rows(vqvae, images)
    psnr = keras_vqvae2.metrics.PeakSignalNoiseRatio()
    for name, versions in rows.items():
        if name != "original":
            psnr.reset_state()
            psnr.update_state(images, versions)
            print(f"{name:>24}: {float(psnr.result()):5.2f} dB PSNR")
    save_image_rows(rows, FLAGS.reconstructions, FLAGS.vqvae)
    print(f"Wrote {FLAGS.reconstructions}.")


def sample(generator, labels, names):
    started = time.time()
    count = len(names) * FLAGS.images_per_class
    images = generator.generate(count, labels, seed=FLAGS.seed, batch_size=count)
    title = f"{FLAGS.preset}: not reconstructed, invented"
    reports.save_grid(images, names, FLAGS.samples, title)
    print(f"Wrote {FLAGS.samples}: {len(images)} images in {time.time() - started:.1f} s.")


def demonstrate():
    for flag in ("reconstructions", "samples"):
        command_line.folder_to_write(flag, Path(FLAGS[flag].value).parent)
    generator = keras_vqvae2.HierarchicalImageGenerator.from_preset(FLAGS.preset)
    vqvae = keras_vqvae2.VQVAE2.from_preset(FLAGS.vqvae)
    labels, names = reports.labels_of_rows(generator, FLAGS.images_per_class)
    command_line.announce(
        f"generator {FLAGS.preset}, and {FLAGS.vqvae}",
        [*command_line.parts(generator), vqvae],
        "eight bundled photographs",
        f"reconstruct them, and invent {FLAGS.images_per_class} images of each of {len(names)} "
        "classes",
        f"{FLAGS.reconstructions}, {FLAGS.samples}",
    )
    reconstruct(vqvae)
    sample(generator, labels, names)


if __name__ == "__main__":
    command_line.run("demo", demonstrate)
