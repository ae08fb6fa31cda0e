import contextlib
import functools
import math
import mimetypes
import os
import threading
import warnings
from collections import Counter
from collections.abc import Sequence
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
LARGE = 2**24  # pixels; pictures of more are decoded one at a time, up to 4 bytes a pixel and copy
ONE_LARGE = threading.Lock()
# What Pillow names but needs other programs for, or cannot decode.
NOT_READ = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}


def images_from_folder(
    directory: FilePath,
    image_size: Size,
    batch_size: int = 32,
    *,
    engine: str = "tf.data",
    class_names: Sequence[str] | None = None,
    **options: Any,
) -> Dataset:
    """Reads a folder of images, flat or nested, of any size, mode and orientation.

    Files are those with the suffixes of formats that Pillow reads, hidden ones left out, in the
    order of their names; a warning counts files that may be images and are none of these. Links to
    folders are followed, but not round in circles. Images are turned upright by their EXIF tag,
    made RGB (transparency is laid on white), scaled with antialiasing (Lanczos) and cropped.
    Images that have the wanted size already come through bit for bit.

    Pixels of 16 bits keep their upper 8. Floats and integers of 32 bits do not tell their scale: it
    is the smallest of 1, 255, 65,535 and (of integers) the largest one that holds the brightest
    pixel, and files whose brightest pixel is below an eighth of that do not decode. Nor do those of
    more than `PIL.Image.MAX_IMAGE_PIXELS` (JPEG: after scaling while it is read). Of pictures so
    long and thin that they would become more than 16 times as long as `image_size`, the middle is
    taken.

    A file that does not decode is left out; one warning a run, after the first pass over the data,
    counts them and names them (the first five); another follows if there are more after a later
    pass. A folder of which no file decodes, or none any more, is an error. With `repeat`, with
    several processes, which must get as many batches each, and with Grain, the next file that
    decodes takes its place.

    Args:
        directory: The folder.
        image_size: Integer or `(height, width)` of the images that come out.
        batch_size: Positive integer.
        engine: `"tf.data"`, or `"grain"`, which reads with threads and does without TensorFlow.
            Both give the same images in the same order, but shuffle and draw crops and flips each
            in its own way.
        class_names: None, or the names of the class folders in the order of their labels, for
            `labels=True`. A folder without images or one that is not there keeps its label.
        **options: Keywords of `keras_vqvae2.data.Options`: `labels` (the class is the folder
            directly below `directory`, numbered in the order of `class_names`), `shuffle`,
            `seed`, `repeat`, `reshuffle`, `start_step`, `resize`, `crop`, `flip`, `augment`,
            `drop_remainder`, `num_processes`, `process_index`. With `start_step=k` a run goes on
            exactly where one that stopped after `k` batches was, with `repeat` over files that do
            not decode too.

    Returns:
        `tf.data.Dataset` or `grain.IterDataset` of float32 images in `[0, 1]`, shape
        `(batch, height, width, 3)`, or of pairs `(images, labels)` with int32 labels of shape
        `(batch,)`.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no image, or labels are wanted and it has no class folders or others
            than `class_names`, or the engine is unknown.

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
    files, left_out = _scan(directory)
    if left_out:
        kinds = Counter(os.path.splitext(name)[1] or name for name in left_out).most_common(5)
        warnings.warn(
            f"{len(left_out)} files in {directory} are left out: they cannot be opened, or have no "
            f"suffix of a format that Pillow reads: {', '.join(f'{k} ({n})' for k, n in kinds)}",
            stacklevel=2,
        )
    if class_names is not None and not options.labels:
        raise ValueError(f"Expected labels=True beside class_names. Received: {class_names=}")
    labels = _labels(directory, files, class_names) if options.labels else [0] * len(files)
    labels = np.array(labels, "int32")
    # Batches are where they would be, for who counts them: processes, and runs that go on.
    replace = engine == "grain" or options.num_processes > 1 or options.repeat
    reader = _Reader(files, options, replace)
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

    A folder without images keeps its label, with a warning.

    Args:
        directory: The folder.

    Returns:
        List of strings.

    Raises:
        ValueError: If images lie directly in `directory`, where they have no class.
    """
    with_images = set(_classes_of(directory, list_images(directory)))
    folders = [entry.name for entry in os.scandir(directory) if os.path.isdir(entry.path)]
    names = sorted(name for name in folders if not name.startswith("."))
    empty = [name for name in names if name not in with_images]
    if empty:
        warnings.warn(
            f"{len(empty)} class folders of {directory} hold no images and keep their labels: "
            f"{', '.join(empty[:5])}. class_names tells which folders are classes.",
            stacklevel=2,
        )
    return names


def _labels(directory, files, names):
    names = class_names(directory) if names is None else list(names)
    classes = _classes_of(directory, files)
    unknown = sorted(set(classes) - set(names))
    if unknown or len(set(names)) < len(names):
        raise ValueError(
            f"Expected different class_names, and images in folders of these names only. Received: "
            f"class_names={names} and {len(unknown)} other folders {unknown[:5]} in {directory}"
        )
    numbers = {name: number for number, name in enumerate(names)}
    return [numbers[name] for name in classes]


def _classes_of(directory, files):
    """The class of each file: the name of its folder directly below `directory`."""
    parts = [Path(file).relative_to(directory).parts for file in files]
    loose = [names[0] for names in parts if len(names) == 1]
    if loose:
        raise ValueError(
            f"Expected every image in a class folder, as in {directory}/<class>/image.jpg. "
            f"Received: {len(loose)} images without one, the first {loose[0]!r}"
        )
    return [names[0] for names in parts]


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
    return _scan(directory)[0]


@functools.cache
def _suffixes():
    from PIL import Image

    formats = Image.registered_extensions()
    return {end for end, kind in formats.items() if kind in Image.OPEN and kind not in NOT_READ}


def _scan(directory):
    """Paths of the images below a folder, as strings, and of other files that may be images."""
    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"Expected a folder of images. Received: directory={directory}")
    files, left_out = [], []
    folders = [("", {os.path.realpath(directory)})]
    while folders:
        folder, seen = folders.pop()
        try:
            # Folders before links to them, so that what both lead to is found in its own place.
            entries = sorted(os.scandir(directory / folder), key=lambda e: (e.is_symlink(), e.name))
        except PermissionError:
            left_out.append(folder + "/")
            continue
        for entry in entries:
            name = f"{folder}/{entry.name}".lstrip("/")
            if entry.name.startswith("."):
                continue
            if os.path.isdir(entry.path):
                where = os.path.realpath(entry.path)
                if where not in seen:
                    # Classes may share a folder by links, but none is read twice in a class.
                    known = seen if folder else {*seen}
                    known.add(where)
                    folders.append((name, known))
            elif os.path.splitext(name)[1].lower() in _suffixes():
                # No pipes; a link to nothing is for the reader to report.
                if os.path.isfile(entry.path) or not os.path.exists(entry.path):
                    files.append(name)
            elif _may_be_image(name):
                left_out.append(name)
    if not files:
        raise ValueError(
            f"Expected images (.jpg, .png, …) in {directory} or the folders below it. Received: a "
            f"folder without any, but {len(left_out)} other files"
        )
    return [str(directory / name) for name in sorted(files)], left_out


def _may_be_image(name):
    kind = mimetypes.guess_type(name)[0]
    return kind in (None, "application/postscript") or kind.startswith("image/")


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
        self.told = 0
        self.missing = set()  # files that did not decode since one last did

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
            self.seen.add(int(wanted))
            if len(self.seen) == self.pass_size:
                self.seen.clear()
                if len(self.bad) > self.told:
                    self.told = len(self.bad)
                    self._warn()
        if pixels is None:
            return False, place, np.zeros((1, 1, 3), np.uint8)
        return True, place, pixels

    def _pixels(self, place):
        file = self.files[place]
        try:
            pixels = decode(file, self.options)
            self.missing.clear()
            return pixels
        # Pillow raises many kinds for files that are truncated or not images at all.
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        with LOCK:
            self.bad[file] = reason
            self.missing.add(file)
            if len(self.missing) == len(self.files):  # the folder is gone: no search without end
                raise ValueError(
                    "Expected the images that were there at the start. Received: "
                    f"{len(self.files)} files of which none decodes now, the last {file} ({reason})"
                )
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

    with Image.open(file) as image, _one_at_a_time(image):
        _draft(image, options)
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            raise ValueError(f"Expected at most {limit} pixels. Received: {image.size}")
        image.load()
        # What a cropped copy no longer says.
        tags, format = dict(getattr(image, "tag_v2", {})), image.format
        ImageOps.exif_transpose(image, in_place=True)
        height, width = image.height, image.width
        size = options.scaled_size(height, width)
        kept = options.kept_size(height, width)
        if kept != (height, width):
            top, left = (height - kept[0]) // 2, (width - kept[1]) // 2
            image = image.crop((left, top, left + kept[1], top + kept[0]))
        if image.mode.startswith("I;16"):
            bits = tags.get(258, (16,))[0]  # of TIFF: 12 or 16
            image = Image.fromarray((np.asarray(image) >> (bits - 8)).astype("uint8"))
        elif image.mode in ("I", "F"):
            image = Image.fromarray(_eight_bits(image, tags, format))
        transparent = "A" in image.getbands() or "transparency" in image.info
        mode = "RGBA" if transparent else "RGB"
        if image.mode in ("1", "P", "PA") or "transparency" in image.info:
            image = image.convert(mode)
        factor = int(kept[0] / size[0] / 2)
        if kept[0] * kept[1] > LARGE and factor > 1:  # before it is copied
            image = image.reduce(factor)
        if image.mode != mode:
            image = image.convert(mode)
        if transparent:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            image = image.convert("RGB")
    if size != (image.height, image.width):
        image = image.resize(size[::-1], Image.Resampling.LANCZOS)
    return np.asarray(image)


def _one_at_a_time(image):
    return ONE_LARGE if image.width * image.height > LARGE else contextlib.nullcontext()


def _draft(image, options):
    """Has a large JPEG scaled while it is decoded, to no less than twice the wanted size."""
    height, width = image.height, image.width
    if height * width > LARGE:
        # The EXIF tag may turn it later.
        scales = (
            options.scaled_size(*size)[0] / size[0] for size in ((height, width), (width, height))
        )
        scale = 2 * max(scales)
        image.draft(None, (math.ceil(width * scale), math.ceil(height * scale)))


def _eight_bits(image, tags, format):
    """uint8 pixels of an image of floats or 32-bit integers, whose scale the file does not tell."""
    pixels = np.asarray(image)
    bits, signed = tags.get(258, (32,))[0], tags.get(339, (1,))[0] == 2
    if image.mode == "I" and tags and not signed:
        pixels = pixels.view("uint32")  # Pillow knows signed ones only
    scales = [1, 255, 65535]
    if image.mode == "I":
        largest = 2 ** (bits - signed) - 1
        scales = [scale for scale in scales if scale < largest] + [largest]
    if image.mode == "I" and format == "PPM":  # Pillow scales these itself
        scales = [65535]
    low, high = float(pixels.min()), float(pixels.max())
    # A twentieth allows for resizing with overshoot.
    scale = next((scale for scale in scales if high <= 1.05 * scale), math.nan)
    if not (low >= -0.05 * scale and (high >= scale / 8 or scale == scales[0])):
        raise ValueError(
            f"Expected a brightest pixel from an eighth of {' or '.join(map(str, scales))} to all "
            f"of it, and none below 0. Received: pixels from {low} to {high}"
        )
    pixels = np.multiply(pixels, 255 / scale, dtype="float32")
    pixels += 0.5
    return np.clip(pixels, 0, 255, out=pixels).astype("uint8")
