"""A VQVAE2 as a codec beside JPEG and WebP: bytes, bits a pixel, PSNR, LPIPS.

    pip install -e '.[perceptual]'
    python benchmarks/codec.py
    python benchmarks/codec.py --preset=imagenette_128 --data=folder/of/photographs

Without --data the bundled photographs are coded. Each codec codes each image by itself; the numbers
are means over images. JPEG (optimised tables) and WebP (method 6) are Pillow's at the quality, from
1 to 100, whose mean size is nearest to that of the coded codes, and at the lowest quality there is.
Bytes are those of a file of each image, headers included.
"""

import io

import measure
import numpy as np
from absl import app, flags
from PIL import Image, features

FLAGS = flags.FLAGS
flags.DEFINE_string("preset", "clothing_64", "Preset of a HierarchicalImageGenerator.")
flags.DEFINE_string("data", None, "Folder of images; the bundled photographs by default.")
flags.DEFINE_integer(
    "images", 100, "At most this many, spread over the folder.", lower_bound=1, upper_bound=127
)
flags.DEFINE_bool("lpips", True, "Whether to compute LPIPS, which takes its weights.")


def images_of(size):
    import keras_vqvae2

    if FLAGS.data is None:
        return keras_vqvae2.data.sample_photographs(size)
    paths = keras_vqvae2.data.list_images(FLAGS.data)
    places = np.linspace(0, len(paths) - 1, min(FLAGS.images, len(paths))).astype(int)
    return np.stack([keras_vqvae2.data.read_image(paths[place], size) for place in places])


def pillow(images, format, **options):
    """Bytes of each image, and the images that come back."""
    sizes, back = [], []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, format, **options)
        sizes.append(file.tell())
        back.append(np.asarray(Image.open(file).convert("RGB")))
    return sizes, np.stack(back) / np.float32(255)


def nearest_quality(images, format, size, **options):
    """The quality whose mean size is nearest to `size`."""
    found = {}
    for quality in range(1, 101):
        found[quality] = np.mean(pillow(images, format, quality=quality, **options)[0])
        if found[quality] > 2 * size and quality > 1:
            break
    return min(found, key=lambda quality: abs(found[quality] - size))


def row(name, images, sizes, back, lpips):
    errors = np.square(images / 255 - back).mean(axis=(1, 2, 3))
    cells = [f"{np.mean(sizes):,.0f}", f"{8 * np.mean(sizes) / np.prod(images.shape[1:3]):.3f}"]
    cells.append(f"{np.mean(-10 * np.log10(errors)):.2f}")
    if lpips is not None:
        distances = lpips(images / np.float32(255), back.astype("float32"))
        cells.append(f"{float(np.mean(distances)):.3f}")
    return [name, *cells]


def main(arguments):
    import keras

    import keras_vqvae2
    from keras_vqvae2.compression import compress, decompress

    generator = keras_vqvae2.HierarchicalImageGenerator.from_preset(FLAGS.preset)
    images = images_of(generator.vqvae.image_shape[0])
    distance = None
    if FLAGS.lpips:
        lpips = keras_vqvae2.losses.LPIPSDistance("alexnet")

        def distance(a, b):
            parts = [lpips(a[i : i + 16], b[i : i + 16]) for i in range(0, len(a), 16)]
            return np.concatenate([keras.ops.convert_to_numpy(part) for part in parts])

    rows, sizes = [], {}
    for name, model, header in (
        ("packed", generator.vqvae, 21),
        ("by priors", generator, 30),
    ):
        # One file for all, which is faster; each by itself has a header of its own.
        data = compress(model, images)
        sizes[name] = (len(data) - header) / len(images) + header
        back = decompress(model, data)
        rows.append(row(f"VQVAE2, codes {name}", images, sizes[name], back, distance))
    for format, options in (("JPEG", {"optimize": True}), ("WEBP", {"method": 6})):
        if format == "WEBP" and not features.check("webp"):
            continue
        qualities = {1: "lowest"}
        for name, size in sizes.items():
            qualities[nearest_quality(images, format, size, **options)] = f"nearest to {name}"
        for quality in sorted(qualities):
            lengths, back = pillow(images, format, quality=quality, **options)
            rows.append(row(f"{format} of quality {quality}", images, lengths, back, distance))
    columns = ["codec", "bytes", "bits a pixel", "PSNR", *(["LPIPS"] if distance else [])]
    print(measure.markdown_table(columns, rows))
    shape = "x".join(map(str, images.shape[1:3]))
    print(f"\n{len(images)} images of {shape}, preset {FLAGS.preset}. {measure.environment()}")


if __name__ == "__main__":
    app.run(main)
