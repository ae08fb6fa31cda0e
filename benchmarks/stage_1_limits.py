"""What a trained VQVAE2 loses to its codes, and what to its networks.

    python benchmarks/stage_1_limits.py --preset=vqvae2_imagenette_128 --data=imagenette/validation

PSNR of images decoded from their codes, and from the vectors before quantization at one level or at
all of them, with the same decoder. What is still lost then, no larger codebook would win back
without other weights.
"""

import keras
import measure
import numpy as np
from absl import app, flags

import keras_vqvae2
from keras_vqvae2.models.vqvae2.vqvae2 import join, to_pixels

FLAGS = flags.FLAGS
flags.DEFINE_string("preset", "vqvae2_imagenette_128", "VQVAE2 preset.")
flags.DEFINE_string("data", None, "Folder of images.")
flags.DEFINE_integer("images", 512, "How many of them, at random.", lower_bound=1)
flags.DEFINE_integer("batch_size", 32, "Images at a time.", lower_bound=1)
flags.mark_flags_as_required(["data"])


def decoders(model):
    """Dict from what is left unquantized to a model from images to pixels."""
    tensors = model._graph_tensors
    found = {}
    for free in ((), *((level,) for level in model.levels), model.levels):
        known = None
        for level in model.levels:
            source = "vectors" if level in free else "quantized"
            upsampler = None if known is None else model.get_layer(f"upsampler_{level}")
            known = join(known, tensors[source][level], upsampler)
        pixels = to_pixels(model.get_layer("pixel_decoder")(known))
        found[" and ".join(free) or "nothing"] = keras.Model(model.input, pixels)
    return found


def main(_):
    model = keras_vqvae2.VQVAE2.from_preset(FLAGS.preset)
    networks = decoders(model)
    psnr = {name: keras_vqvae2.metrics.PeakSignalNoiseRatio() for name in networks}
    images = keras_vqvae2.data.images_from_folder(
        FLAGS.data, model.image_shape[:2], FLAGS.batch_size, shuffle=True, seed=1
    )
    count = 0
    for batch in images.take(-(-FLAGS.images // FLAGS.batch_size)).as_numpy_iterator():
        for name, network in networks.items():
            decoded = network.predict_on_batch(batch)
            psnr[name].update_state(batch, np.clip(decoded, 0.0, 1.0))
        count += len(batch)
    rows = [[name, f"{float(metric.result()):.2f}"] for name, metric in psnr.items()]
    print(f"{FLAGS.preset}, {count} images\n")
    print(measure.markdown_table(["unquantized", "PSNR, dB"], rows), end="\n\n")
    print(measure.environment())


if __name__ == "__main__":
    app.run(main)
