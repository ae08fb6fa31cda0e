import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from keras_vqvae2.data import grain_pipeline
from keras_vqvae2.data.optional_imports import import_tensorflow
from keras_vqvae2.data.pipeline import (
    Options,
    check_engine,
    finish,
    full_batches_and_rest,
    positions,
)
from keras_vqvae2.hints import Dataset, FilePath, Size

LOCK = threading.Lock()  # not a reader's own: readers travel to Grain's worker processes
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def images_from_folder(
    directory: FilePath,
    image_size: Size,
    batch_size: int = 32,
    *,
    engine: str = "tf.data",
    **options: Any,
) -> Dataset:
    """Reads a folder of images, flat or nested, of any size, mode and orientation.

    Files are those with the suffixes of common formats, hidden ones left out, in the order of
    their names. Images are turned upright by their EXIF tag, made RGB (transparency is laid on
    white), scaled with antialiasing (Lanczos) and cropped. Images that have the wanted size
    already come through bit for bit.

    A file that does not decode is left out; one warning a run, after the first pass over the data,
    counts them and names them (the first five). A folder of which no file decodes is an error.
    With several processes, which must get as many batches each, and with Grain, the next file that
    decodes takes its place.

    Args:
        directory: The folder.
        image_size: Integer or `(height, width)` of the images that come out.
        batch_size: Positive integer.
        engine: `"tf.data"`, or `"grain"`, which reads with threads and does without TensorFlow.
            Both give the same images in the same order, but shuffle and draw crops and flips each
            in its own way.
        **options: Keywords of `keras_vqvae2.data.Options`: `labels` (the class is the folder
            directly below `directory`, numbered in the order of `class_names`), `shuffle`,
            `seed`, `repeat`, `start_step`, `resize`, `crop`, `flip`, `augment`,
            `drop_remainder`, `num_processes`, `process_index`. With `start_step=k` a run goes on
            exactly where one that stopped after `k` batches was; where files are left out, their
            positions are skipped too.

    Returns:
        `tf.data.Dataset` or `grain.IterDataset` of float32 images in `[0, 1]`, shape
        `(batch, height, width, 3)`, or of pairs `(images, labels)` with int32 labels of shape
        `(batch,)`.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no image, or labels are wanted and it has no class folders, or
            the engine is unknown.

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
    check_engine(engine)
    options = Options(image_size, batch_size, **options)
    files = list_images(directory)
    classes = class_names(directory) if options.labels else []
    labels = [
        classes.index(Path(file).relative_to(directory).parts[0]) for file in files if classes
    ]
    labels = np.array(labels or [0] * len(files), "int32")
    reader = _Reader(files, options, replace=engine == "grain" or options.num_processes > 1)
    reader.require_one_good_file()
    if engine == "grain":

        def image_and_label(place):
            _, place, image = reader.read(place)
            return image, labels[place]

        return grain_pipeline.image_batches(len(files), options, image_and_label)
    tf = import_tensorflow()
    kinds = (tf.bool, tf.int64, tf.uint8)

    def read(position, place):
        good, place, image = tf.numpy_function(reader.read, [place], kinds, stateful=False)
        label = tf.gather(labels, tf.ensure_shape(place, ()))
        return good, position, tf.ensure_shape(image, (None, None, 3)), label

    examples = positions(len(files), options).map(read, num_parallel_calls=tf.data.AUTOTUNE)
    if not reader.replace:
        examples = examples.filter(lambda good, *_: good)
    return finish(examples.map(lambda _, *example: example), options)


def class_names(directory: FilePath) -> list[str]:
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


def list_images(directory: FilePath) -> list[str]:
    """Paths of the image files at any depth of a folder: those that `images_from_folder` reads.

    Args:
        directory: The folder.

    Returns:
        List of strings, sorted.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no image.
    """
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
    """Decodes files, and remembers those that do not decode until the first pass is over.

    Args:
        files: Their paths.
        options: `Options`.
        replace: Whether the next file that decodes takes the place of one that does not.
    """

    def __init__(self, files, options, replace):
        self.files = files
        self.options = options
        self.replace = replace
        self.pass_size = -(-len(files) // options.num_processes)
        if not options.repeat:
            full, rest = full_batches_and_rest(len(files), options)
            steps = full - options.start_step
            self.pass_size = steps * options.process_batch_size + rest
        self.seen = set()
        self.bad = {}

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

    def read(self, place):
        """Whether there is an image, the index of its file, and its pixels."""
        wanted, pixels = place, self._pixels(place)
        while pixels is None and self.replace:
            place = (place + 1) % len(self.files)
            pixels = self._pixels(place)
        with LOCK:
            if len(self.seen) < self.pass_size:
                self.seen.add(int(wanted))
                if len(self.seen) == self.pass_size and self.bad:
                    self._warn()
        if pixels is None:
            return False, place, np.zeros((1, 1, 3), np.uint8)
        return True, place, pixels

    def _pixels(self, place):
        file = self.files[place]
        try:
            return decode(file, self.options)
        # Pillow raises many kinds for files that are truncated or not images at all.
        except Exception as error:
            self.bad[file] = f"{type(error).__name__}: {error}"
            return None

    def _warn(self):
        first = list(self.bad.items())[:5]
        names = "; ".join(f"{file} ({reason})" for file, reason in first)
        more = f"; and {len(self.bad) - 5} more" if len(self.bad) > 5 else ""
        done = "replaced by the next" if self.replace else "left out"
        warnings.warn(
            f"{len(self.bad)} of {len(self.files)} files do not decode and are {done}: "
            f"{names}{more}",
            stacklevel=2,
        )


def decode(file: FilePath, options: Options) -> np.ndarray:
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
