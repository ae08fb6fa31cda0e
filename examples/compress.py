"""Images to .vqc files of a few hundred bytes, and .vqc files back to images.

    python examples/compress.py --preset=clothing_64 --files=photographs --output=runs/compressed
    python examples/compress.py --preset=clothing_64 --files=runs/compressed --output=runs/back

--files lists images, .vqc files and folders of them: an image NAME.jpg becomes NAME.vqc in
--output, a NAME.vqc becomes NAME.png. --coding=priors takes the preset of a generator, whose size
images are brought to; --coding=packed the preset of a VQVAE2, and images keep their size but for
what its downsampling does not divide. Files hold the fingerprint of the model and are refused by
others; those of priors are read on the backend and the kind of machine that wrote them.
"""

from pathlib import Path

import command_line
import numpy as np
from absl import flags
from PIL import Image
from reports import markdown_table

import keras_vqvae2
from keras_vqvae2.compression import compress, decompress
from keras_vqvae2.files import replacing

FLAGS = flags.FLAGS
command_line.define("preset", "output", "register")
flags.DEFINE_list("files", None, "Images, .vqc files, and folders of them.")
flags.DEFINE_enum(
    "coding",
    "priors",
    ["priors", "packed"],
    "priors: fewer bytes, a step of a prior for each code. packed: ceil(log2 K) bits a code.",
)
flags.mark_flags_as_required(["preset", "files", "output"])


def listed_files():
    """The images and the .vqc files of --files."""
    images, compressed = [], []
    for path in map(Path, FLAGS.files):
        if path.is_dir():
            compressed += sorted(path.glob("*.vqc"))
            if not list(path.glob("*.vqc")):
                images += [path / name for name in keras_vqvae2.data.list_images(path)]
        elif path.is_file():
            (compressed if path.suffix == ".vqc" else images).append(path)
        else:
            raise ValueError(f"Expected a file or a folder. Received: --files with {path}")
    if not images and not compressed:
        raise ValueError(
            f"Expected images or .vqc files. Received: --files={','.join(FLAGS.files)}"
        )
    names = [path.stem for path in (*images, *compressed)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            "Expected files of different names, which those in --output are called by. "
            f"Received: several called {', '.join(twice[:5])}"
        )
    return images, compressed


def size_of(path, vqvae):
    """What an image is brought to."""
    if FLAGS.coding == "priors":
        return vqvae.image_shape[:2]
    with Image.open(path) as image:
        width, height = image.size
    unit = vqvae.downsampling
    return max(unit, height // unit * unit), max(unit, width // unit * unit)


def main():
    images, compressed = listed_files()
    output = command_line.folder_to_write("output")
    if FLAGS.coding == "priors":
        model = keras_vqvae2.HierarchicalImageGenerator.from_preset(FLAGS.preset)
        vqvae, models = model.vqvae, command_line.parts(model)
    else:
        model = vqvae = keras_vqvae2.VQVAE2.from_preset(FLAGS.preset)
        models = [vqvae]
    command_line.announce(
        f"{FLAGS.preset}, codes {FLAGS.coding}",
        models,
        f"{len(images)} images, {len(compressed)} .vqc files",
        "to .vqc files, and back",
        str(output),
    )
    rows = []
    for path in images:
        pixels = keras_vqvae2.data.read_image(path, size_of(path, vqvae))
        data = compress(model, pixels[None])
        with replacing(output / f"{path.stem}.vqc") as temporary:
            temporary.write_bytes(data)
        height, width = pixels.shape[:2]
        bits = 8 * len(data) / (height * width)
        rows.append([path.name, f"{height}x{width}", f"{len(data):,}", f"{bits:.3f}"])
    for path in compressed:
        (image,) = decompress(model, path.read_bytes())
        with replacing(output / f"{path.stem}.png") as temporary:
            Image.fromarray(np.round(255 * image).astype("uint8").squeeze()).save(temporary)
    if rows:
        print(markdown_table(["image", "size", "bytes", "bits a pixel"], rows))
    print(f"{len(images)} .vqc files and {len(compressed)} images in {output}")


if __name__ == "__main__":
    command_line.run("compress", main)
