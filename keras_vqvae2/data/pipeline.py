"""What every source of images goes through: order, crop, flip, batch, augment."""

import itertools
import math
import warnings
from collections.abc import Callable, Sequence

from keras_vqvae2.data.optional_imports import import_tensorflow
from keras_vqvae2.hints import Dataset, Size, Tensor
from keras_vqvae2.validation import check_positive, height_and_width

LONGEST = 16  # times the longer side of the crop


class Options:
    """The keywords that all sources share, checked.

    Args:
        image_size: Integer or `(height, width)` of the images that come out.
        batch_size: Positive integer: that of the global batch, which the processes share.
        labels: Whether batches are pairs of images and labels.
        shuffle: Whether each epoch comes in an order of its own, that of `seed` and the epoch.
        seed: Integer; decides order, random crops and flips.
        repeat: Whether epochs follow each other without end, in batches that are all full. Each
            pass over the data set then starts at the first of them.
        reshuffle: Whether, without `repeat`, pass `e` over the data set is epoch `e`, with its
            order, crops and flips, as `fit(epochs=...)` expects of training data; the start of an
            iteration begins a pass, a look at the first batch too (`fit` takes one or two). With
            False each pass is epoch 0: for `validation_data` with `shuffle=True`, of which
            `validation_steps` take a part that is to stay the same, and for sources of
            `encode_dataset`. Without `shuffle`, random crops and flips all passes are the same.
        start_step: Number of batches to leave out at the start (without `repeat`, of each pass).
        resize: None scales each image (antialiased) so that it just covers `image_size`; an
            integer scales the shorter side to it; False leaves the scale as it is, but for
            images that would not cover `image_size`.
        crop: `"center"` or `"random"`: the part of `image_size` that is cut out.
        flip: Whether half of the images are mirrored left to right.
        augment: None, or one or more callables on a batch of float images, such as keras-cv layers
            with `value_range=(0, 1)`.
        drop_remainder: Whether a last batch that is not full is dropped.
        num_processes: Number of processes that train together, a divisor of `batch_size`.
        process_index: Which of them this one is, from 0. Process `i` of `P` gets the rows from
            `i * batch_size / P` to `(i + 1) * batch_size / P` of each global batch, and decodes no
            other image: all shares in a row are the batches of one process. A last batch that is
            not full is shared evenly; the up to `P - 1` examples that do not divide are left out,
            with a warning, so that all processes get as many batches.
    """

    def __init__(
        self,
        image_size: Size,
        batch_size: int = 32,
        labels: bool = False,
        shuffle: bool = False,
        seed: int = 0,
        repeat: bool = False,
        reshuffle: bool = True,
        start_step: int = 0,
        resize: int | bool | None = None,
        crop: str = "center",
        flip: bool = False,
        augment: Callable[[Tensor], Tensor] | Sequence[Callable[[Tensor], Tensor]] | None = None,
        drop_remainder: bool = False,
        num_processes: int = 1,
        process_index: int = 0,
    ) -> None:
        size = height_and_width(image_size)
        check_positive(batch_size=batch_size)
        if int(start_step) != start_step or start_step < 0:
            raise ValueError(f"Expected a non-negative integer. Received: start_step={start_step}")
        if crop not in ("center", "random"):
            raise ValueError(f"Expected 'center' or 'random'. Received: crop={crop!r}")
        if resize is not None and resize is not False and (resize is True or resize < 1):
            raise ValueError(
                f"Expected None, False or a positive integer. Received: resize={resize}"
            )
        if int(num_processes) != num_processes or num_processes < 1 or batch_size % num_processes:
            raise ValueError(
                f"Expected num_processes to be a positive divisor of batch_size={batch_size}. "
                f"Received: num_processes={num_processes}"
            )
        if process_index not in range(num_processes):
            raise ValueError(
                f"Expected an integer from 0 to {num_processes - 1}. "
                f"Received: process_index={process_index}"
            )
        self.image_size = size
        self.batch_size = batch_size
        self.labels = labels
        self.shuffle = shuffle
        self.seed = seed
        self.repeat = repeat
        self.reshuffle = reshuffle
        self.start_step = start_step
        self.resize = resize
        self.crop = crop
        self.flip = flip
        self.augment = [augment] if callable(augment) else list(augment or [])
        self.drop_remainder = drop_remainder
        self.num_processes = num_processes
        self.process_index = process_index
        self.process_batch_size = batch_size // num_processes

    def scaled_size(self, height: int, width: int) -> tuple[int, int]:
        """`(height, width)` to which what is kept of an image is scaled before the crop."""
        rows, columns = self.image_size
        scale = self._scale(height, width)
        height, width = self.kept_size(height, width)
        return max(rows, round(height * scale)), max(columns, round(width * scale))

    def _scale(self, height, width):
        cover = max(self.image_size[0] / height, self.image_size[1] / width)
        if self.resize is None:
            return cover
        return max(1.0 if self.resize is False else self.resize / min(height, width), cover)

    def kept_size(self, height: int, width: int) -> tuple[int, int]:
        """`(height, width)` of the middle of an image that is scaled and cropped.

        That is all of it, unless scaling would enlarge it to more than 16 times the longer side of
        `image_size`: a line of 4000x1 pixels would fill a gigabyte.
        """
        scale = self._scale(height, width)
        if scale <= 1:
            return height, width
        most = math.ceil(LONGEST * max(self.image_size) / scale)
        return min(height, most), min(width, most)


def check_engine(engine: str) -> None:
    if engine not in ("tf.data", "grain"):
        raise ValueError(f"Expected 'tf.data' or 'grain'. Received: engine={engine!r}")


def full_batches_and_rest(count: int, options: Options) -> tuple[int, int]:
    """How many full batches `count` items make, and this process's rows of the last, partial one.

    `start_step` is not taken off.
    """
    if options.repeat:
        return 2**62 // options.batch_size, 0
    full, rest = divmod(count, options.batch_size)
    return full, 0 if options.drop_remainder else rest // options.num_processes


def warn_of_examples_left_out(count: int, options: Options) -> None:
    rest = count % options.batch_size
    left_out = rest % options.num_processes
    if left_out and not (options.repeat or options.drop_remainder):
        warnings.warn(
            f"{left_out} of the {rest} examples of the last batch are left out: they do not divide "
            f"among {options.num_processes} processes.",
            stacklevel=4,
        )


def epochs(options: Options) -> Dataset:
    """Data set of the one epoch with which a pass begins: the number of the pass, or always 0."""
    tf = import_tensorflow()
    if options.repeat or not options.reshuffle:
        return tf.data.Dataset.range(1)
    passes = itertools.count()  # shared by all that is derived from the data set

    def number(_):
        return tf.ensure_shape(tf.numpy_function(lambda: next(passes), [], tf.int64), ())

    return tf.data.Dataset.range(1).map(number)


def positions(count: int, options: Options) -> Dataset:
    """Data set of pairs: position in the endless stream, index of the item that stands there.

    Only the positions of this process's rows. The order of epoch `e` is a permutation that depends
    on `(seed, e)` alone, so a stream that starts at any position goes on as the whole one would.
    """
    tf = import_tensorflow()
    warn_of_examples_left_out(count, options)
    full, rest = full_batches_and_rest(count, options)
    rows = options.process_batch_size
    start, stop = options.start_step * rows, full * rows + rest

    def item(first, number):
        step, row = number // rows, number % rows
        rows_of_step = tf.where(step < full, tf.constant(rows, tf.int64), rest)
        position = first + step * options.batch_size + options.process_index * rows_of_step + row
        epoch, place = position // count, position % count
        if options.shuffle and count > 1:
            seed = tf.stack([tf.cast(options.seed, tf.int64), epoch])
            place = tf.random.experimental.index_shuffle(place, seed, tf.cast(count - 1, tf.int64))
        return position, place

    def items(epoch):
        numbers = tf.data.Dataset.range(start, stop)
        return numbers.map(lambda number: item(epoch * count, number))

    size = tf.data.INFINITE_CARDINALITY if options.repeat else max(0, stop - start)
    items_of_all = epochs(options).flat_map(items)
    return items_of_all.apply(tf.data.experimental.assert_cardinality(size))


def finish(examples: Dataset, options: Options) -> Dataset:
    """Crops, flips, batches and augments.

    Args:
        examples: Data set of `(position, image, label)`: uint8 or float32 in `[0, 1]` of shape
            `(H, W, 3)`, scaled already so that it covers `options.image_size`.
        options: `Options`.

    Returns:
        Data set of float32 images in `[0, 1]`, with int32 labels if `options.labels`.
    """
    tf = import_tensorflow()
    rows, columns = options.image_size

    def cut(position, image, label):
        shape = tf.shape(image)
        room = tf.cast(shape[:2] - (rows, columns), tf.float32)  # (2,)
        # Three uniforms for this position of the stream, whatever was drawn before.
        seed = tf.stack([tf.cast(options.seed, tf.int64), position])
        down, right, side = tf.unstack(tf.random.stateless_uniform((3,), seed))
        if options.crop == "center":
            down = right = 0.5
        top = tf.cast(tf.round(down * room[0]), tf.int32)
        left = tf.cast(tf.round(right * room[1]), tf.int32)
        image = image[top : top + rows, left : left + columns]
        if options.flip:
            image = tf.cond(side < 0.5, lambda: image[:, ::-1], lambda: image)
        image = tf.ensure_shape(image, (rows, columns, image.shape[-1]))
        if image.dtype == tf.uint8:
            image = tf.cast(image, tf.float32) / 255.0
        return (image, label) if options.labels else image

    def augment(images):
        for layer in options.augment:
            images = layer(images)
        return tf.clip_by_value(tf.cast(images, tf.float32), 0.0, 1.0)

    images = examples.map(cut, num_parallel_calls=tf.data.AUTOTUNE)
    images = images.batch(options.process_batch_size, drop_remainder=options.drop_remainder)
    if options.augment:
        pairs = (lambda x, y: (augment(x), y)) if options.labels else augment
        images = images.map(pairs, num_parallel_calls=tf.data.AUTOTUNE)
    return images.prefetch(tf.data.AUTOTUNE)
