"""A VQVAE2 as a codec beside JPEG and WebP: bytes, bits a pixel, PSNR, LPIPS.

    pip install -e '.[perceptual]'
    python benchmarks/codec.py
    python benchmarks/codec.py --preset=imagenette_128 --data=folder/of/photographs

Without --data the bundled photographs are coded. Each codec codes each image by itself; the numbers
are means over images. JPEG (optimised tables) and WebP (method 6) are Pillow's at the lowest
quality there is, and at those, from 1 to 100, whose mean size, PSNR and LPIPS are nearest to those
of the codes. Bytes are those of a file of each image, headers included.
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


def measured(images, sizes, back, distance):
    """Means over images: bytes, PSNR and, with a distance, LPIPS."""
    errors = np.square(images / 255 - back).mean(axis=(1, 2, 3))
    means = {"bytes": float(np.mean(sizes)), "PSNR": float(np.mean(-10 * np.log10(errors)))}
    if distance is not None:
        distances = distance(images / np.float32(255), back.astype("float32"))
        means["LPIPS"] = float(np.mean(distances))
    return means


def qualities_beside(images, format, options, distance, codes):
    """Dict from quality to what it measures: the lowest, and those nearest to rows of `codes`."""
    tried = {}
    for quality in range(1, 101):
        tried[quality] = measured(
            images, *pillow(images, format, quality=quality, **options), distance
        )
        larger = all(tried[quality]["bytes"] > 1.5 * row["bytes"] for row in codes)
        better = all(
            tried[quality]["PSNR"] > row["PSNR"] + 0.5
            and tried[quality].get("LPIPS", 0) <= 0.9 * row.get("LPIPS", 0)
            for row in codes
        )
        if larger and better:
            break
    nearest = {
        min(tried, key=lambda quality: abs(tried[quality][name] - row[name]))
        for row in codes
        for name in row
    }
    return {quality: tried[quality] for quality in sorted({1, *nearest})}


def cells(name, means, shape):
    bits = 8 * means["bytes"] / np.prod(shape)
    numbers = [f"{means['bytes']:,.0f}", f"{bits:.3f}", f"{means['PSNR']:.2f}"]
    return [name, *numbers, *([f"{means['LPIPS']:.3f}"] if "LPIPS" in means else [])]


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

    shape, rows, codes = images.shape[1:3], [], []
    for name, model, header in (
        ("packed", generator.vqvae, 21),
        ("by priors", generator, 30),
    ):
        # One file for all, which is faster; each by itself has a header of its own.
        data = compress(model, images)
        size = (len(data) - header) / len(images) + header
        codes.append(measured(images, size, decompress(model, data), distance))
        rows.append(cells(f"VQVAE2, codes {name}", codes[-1], shape))
    for format, options in (("JPEG", {"optimize": True}), ("WEBP", {"method": 6})):
        if format == "WEBP" and not features.check("webp"):
            continue
        beside = qualities_beside(images, format, options, distance, codes)
        rows += [cells(f"{format} of quality {q}", means, shape) for q, means in beside.items()]
    columns = ["codec", "bytes", "bits a pixel", "PSNR", *(["LPIPS"] if distance else [])]
    print(measure.markdown_table(columns, rows))
    size = "x".join(map(str, shape))
    print(f"\n{len(images)} images of {size}, preset {FLAGS.preset}. {measure.environment()}")


if __name__ == "__main__":
    app.run(main)
