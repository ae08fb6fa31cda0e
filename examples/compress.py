"""Images to .vqc files of a few hundred bytes, and .vqc files back to images.

    python examples/compress.py --preset=clothing_64 --files=photographs --output=runs/compressed
    python examples/compress.py --preset=clothing_64 --files=runs/compressed --output=runs/back

--files lists images, .vqc files and folders of one of both: an image NAME.jpg becomes NAME.vqc in
--output, a NAME.vqc becomes NAME.png. --output lies outside these folders, and a .png there is
replaced only if this script wrote it, which a text in the file says. --coding=priors takes the
preset of a generator, whose size images are brought to; --coding=packed the preset of a VQVAE2, and
images keep their size but for what its downsampling does not divide. Files hold the fingerprint of
the model and are refused by others; those of priors are read on the backend and the kind of machine
that wrote them.
"""

from pathlib import Path

import command_line
import numpy as np
from absl import flags
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from reports import markdown_table

import keras_vqvae2
from keras_vqvae2.compression import compress, decompress
from keras_vqvae2.files import replacing

SOFTWARE = "keras_vqvae2 examples/compress.py"  # in each .png that is written here

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


def listed_files(output):
    """The images and the .vqc files of --files, none of which `output` endangers."""
    images, compressed = [], []
    for path in map(Path, FLAGS.files):
        if path.is_dir():
            if path.resolve() in (output.resolve(), *output.resolve().parents):
                raise ValueError(
                    "Expected an --output outside the folders of --files. "
                    f"Received: --output={output}, --files with {path}"
                )
            of_images, of_codes = files_of_folder(path)
            images += of_images
            compressed += of_codes
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
    pictures = [output / f"{path.stem}.png" for path in compressed]
    others = [path for path in pictures if path.exists() and not written_here(path)]
    if others:
        raise ValueError(
            "Expected an --output where only images that this script wrote are replaced. Received: "
            f"{others[0]}, the first of {len(others)} from elsewhere. Choose another --output"
        )
    return images, compressed


def files_of_folder(folder):
    """The images and the .vqc files of a folder, which holds one of both."""
    compressed = sorted(folder.glob("*.vqc"))
    try:
        images = [Path(name) for name in keras_vqvae2.data.list_images(folder)]
    except ValueError:
        if not compressed:
            raise
        images = []
    if images and compressed:
        raise ValueError(
            f"Expected images or .vqc files in a folder of --files, not both. Received: {folder} "
            f"with {len(images)} images, the first {images[0]}, and {len(compressed)} .vqc files"
        )
    return images, compressed


def written_here(picture):
    with Image.open(picture) as image:
        return image.info.get("Software") == SOFTWARE


def size_of(path, vqvae):
    """What an image is brought to."""
    if FLAGS.coding == "priors":
        return vqvae.image_shape[:2]
    with Image.open(path) as image:
        ImageOps.exif_transpose(image, in_place=True)
        width, height = image.size
    unit = vqvae.downsampling
    return max(unit, height // unit * unit), max(unit, width // unit * unit)


def main():
    output = command_line.folder_to_write("output").expanduser()
    images, compressed = listed_files(output)
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
    software = PngInfo()
    software.add_text("Software", SOFTWARE)
    for path in compressed:
        (image,) = decompress(model, path.read_bytes())
        with replacing(output / f"{path.stem}.png") as temporary:
            pixels = np.rint(255 * image).astype("uint8").squeeze()
            Image.fromarray(pixels).save(temporary, pnginfo=software)
    if rows:
        print(markdown_table(["image", "size", "bytes", "bits a pixel"], rows))
    print(f"{len(images)} .vqc files and {len(compressed)} images in {output}")


if __name__ == "__main__":
    command_line.run("compress", main)
