"""Reconstructs eight bundled photographs and invents images of ten classes, into two pictures.

python examples/demo.py --reconstructions=demo_reconstructions.png --samples=demo_samples.png
"""

import time

import keras
from absl import app, flags

import keras_vqvae2
from keras_vqvae2.callbacks.reconstruction_grid import reconstruction_rows
from keras_vqvae2.plots import save_image_rows

FLAGS = flags.FLAGS
flags.DEFINE_string("preset", "clothing_64", "HierarchicalImageGenerator preset.")
flags.DEFINE_string("reconstructions", "demo_reconstructions.png", "The first picture to write.")
flags.DEFINE_string("samples", "demo_samples.png", "The second.")
flags.DEFINE_integer("images_per_class", 6, "Invented images a class.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of the invented images.", lower_bound=0)


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
    save_image_rows(rows, FLAGS.reconstructions, FLAGS.preset)
    print(f"Wrote {FLAGS.reconstructions}.")


def sample(generator):
    started = time.time()
    names = generator.label_names
    each = FLAGS.images_per_class
    labels = [name for name in names for _ in range(each)]
    images = generator.generate(len(labels), labels, seed=FLAGS.seed, batch_size=len(labels))
    rows = images.reshape(len(names), each, *images.shape[1:])
    title = f"{FLAGS.preset}: not reconstructed, invented"
    save_image_rows(dict(zip(names, rows)), FLAGS.samples, title)
    print(f"Wrote {FLAGS.samples}: {len(images)} images in {time.time() - started:.1f} s.")


def main(_):
    generator = keras_vqvae2.HierarchicalImageGenerator.from_preset(FLAGS.preset)
    models = [generator.vqvae, *generator.priors.values()]
    parameters = sum(model.count_params() for model in models)
    print(f"{FLAGS.preset} on {keras.backend.backend()}, {parameters:,} parameters")
    reconstruct(generator.vqvae)
    sample(generator)


if __name__ == "__main__":
    app.run(main)
