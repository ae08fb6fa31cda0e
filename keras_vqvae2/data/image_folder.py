import threading
import warnings
from pathlib import Path

import numpy as np

from keras_vqvae2.data.optional_imports import import_tensorflow
from keras_vqvae2.data.pipeline import Options, finish, positions

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def images_from_folder(directory, image_size, batch_size=32, **options):
    """Reads a folder of images, flat or nested, of any size, mode and orientation.

    Files are those with the suffixes of common formats, hidden ones left out, in the order of
    their names. Images are turned upright by their EXIF tag, made RGB (transparency is laid on
    white), scaled with antialiasing (Lanczos) and cropped. Images that have the wanted size
    already come through bit for bit.

    A file that does not decode is left out; one warning a run, after the first pass over the data,
    counts them and names them (the first five). A folder of which no file decodes is an error.

    Args:
        directory: The folder.
        image_size: Integer or `(height, width)` of the images that come out.
        batch_size: Positive integer.
        **options: Keywords of `keras_vqvae2.data.Options`: `labels` (the class is the folder
            directly below `directory`, numbered in the order of `class_names`), `shuffle`,
            `seed`, `repeat`, `start_step`, `resize`, `crop`, `flip`, `augment`,
            `drop_remainder`. With `start_step=k` a run goes on exactly where one that stopped after
            `k` batches was; where files do not decode, the positions of those are skipped too.

    Returns:
        `tf.data.Dataset` of float32 images in `[0, 1]`, shape `(batch, height, width, 3)`, or of
        pairs `(images, labels)` with int32 labels of shape `(batch,)`.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no image, or labels are wanted and it has no class folders.

    Example:

    ```python
    import numpy as np
    from PIL import Image
    import keras_vqvae2

    pixels = np.random.default_rng(0).integers(256, size=(40, 50, 3), dtype="uint8")
    Image.fromarray(pixels).save("photograph.png")
    images = keras_vqvae2.data.images_from_folder(".", image_size=32, crop="random", flip=True)
    print(next(iter(images)).shape)  # (1, 32, 32, 3)
    ```
    """
    options = Options(image_size, batch_size, **options)
    files = list_images(directory)
    tf = import_tensorflow()
    classes = class_names(directory) if options.labels else []
    labels = [
        classes.index(Path(file).relative_to(directory).parts[0]) for file in files if classes
    ]
    reader = _Reader(files, options)
    reader.require_one_good_file()
    names, labels = tf.constant(files), tf.constant(labels or [0] * len(files), tf.int32)

    def read(position, place):
        good, image = tf.numpy_function(
            reader.read, [names[place]], (tf.bool, tf.uint8), stateful=False
        )
        return good, position, tf.ensure_shape(image, (None, None, 3)), labels[place]

    examples = positions(len(files), options).map(read, num_parallel_calls=tf.data.AUTOTUNE)
    if not options.repeat:
        # An element that comes after all the others, and is no image.
        end = tf.data.Dataset.from_tensors(0).map(
            lambda _: (
                tf.numpy_function(reader.report, [], tf.bool),
                tf.constant(0, tf.int64),
                tf.zeros((1, 1, 3), tf.uint8),
                tf.constant(0),
            )
        )
        examples = examples.concatenate(end)
    examples = examples.filter(lambda good, *_: good).map(lambda _, *example: example)
    return finish(examples, options)


def class_names(directory):
    """Names of the class folders of an image folder, sorted: label `i` is the `i`-th of them.

    Args:
        directory: The folder.

    Returns:
        List of strings.

    Raises:
        ValueError: If images lie directly in `directory`, where they have no class.
    """
    directory = Path(directory)
    parts = [Path(file).relative_to(directory).parts for file in list_images(directory)]
    loose = [names[0] for names in parts if len(names) == 1]
    if loose:
        raise ValueError(
            f"Expected every image in a class folder, as in {directory}/<class>/image.jpg. "
            f"Received: {len(loose)} images without one, the first {loose[0]!r}"
        )
    return sorted({names[0] for names in parts})


def list_images(directory):
    """Paths of the image files at any depth of a folder, sorted, as strings."""
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"Expected a folder of images. Received: directory={directory}")
    files = [
        path
        for path in directory.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    ]
    if not files:
        raise ValueError(
            f"Expected images ({', '.join(SUFFIXES)}) in {directory} or the folders below it. "
            "Received: a folder without any"
        )
    return [str(path) for path in sorted(files, key=lambda p: p.relative_to(directory).as_posix())]


class _Reader:
    """Decodes files, and remembers those that do not decode until the pass is over."""

    def __init__(self, files, options):
        self.files = files
        self.options = options
        self.read_files = set()
        self.bad = {}
        self.reported = False
        self.lock = threading.Lock()

    def require_one_good_file(self):
        # One file in a sound folder; a folder without any would be searched for ever later.
        for file in self.files:
            try:
                decode(file, self.options)
                return
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"Expected images. Received: {len(self.files)} files of which none decodes, the last "
            f"{file} ({reason})"
        )

    def read(self, name):
        file = name.decode()
        try:
            pixels = decode(file, self.options)
        # Pillow raises many kinds for files that are truncated or not images at all.
        except Exception as error:
            pixels = None
            reason = f"{type(error).__name__}: {error}"
        with self.lock:
            self.read_files.add(file)
            if pixels is None:
                self.bad[file] = reason
            if self.options.repeat and len(self.read_files) == len(self.files):
                self._report()
        if pixels is None:
            return False, np.zeros((1, 1, 3), np.uint8)
        return True, pixels

    def report(self):
        with self.lock:
            self._report()
        return np.array(False)

    def _report(self):
        if self.reported or not self.bad:
            return
        self.reported = True
        first = list(self.bad.items())[:5]
        names = "; ".join(f"{file} ({reason})" for file, reason in first)
        more = f"; and {len(self.bad) - 5} more" if len(self.bad) > 5 else ""
        warnings.warn(
            f"{len(self.bad)} of {len(self.files)} files do not decode and are left out: "
            f"{names}{more}",
            stacklevel=2,
        )


def decode(file, options):
    """uint8 pixels `(H, W, 3)` of an image file, scaled so that they cover the wanted size."""
    from PIL import Image, ImageOps

    with Image.open(file) as image:
        image.load()
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype("uint8"))
        if "A" in image.getbands() or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
    height, width = options.scaled_size(image.height, image.width)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(image)
