"""The pipeline of `pipeline.py` on Grain: NumPy batches, without TensorFlow."""

import functools
import os

import keras
import numpy as np

from keras_vqvae2.data.optional_imports import import_grain
from keras_vqvae2.data.pipeline import full_batches_and_rest, warn_of_examples_left_out


def batches(count, options, read):
    """This process's batches of a stream of `count` items, each read by a thread of its own.

    Args:
        count: Number of items.
        options: `Options`.
        read: Function of the positions in the endless stream and the indices of the items that
            stand there, two int64 arrays of shape `(batch,)`. Returns the batch.

    Returns:
        `grain.IterDataset`.
    """
    grain = import_grain()
    warn_of_examples_left_out(count, options)
    full, rest = full_batches_and_rest(count, options)
    steps = max(0, full + (rest > 0) - options.start_step)
    threads = min(os.cpu_count() or 1, 16)  # each holds a batch in memory

    def epoch(number):
        def batch(step):
            rows = options.process_batch_size if step < full else rest
            first = number * count + step * options.batch_size + options.process_index * rows
            positions = np.arange(first, first + rows)
            return read(positions, _places(count, positions, options))

        dataset = grain.MapDataset.range(options.start_step, options.start_step + steps).map(batch)
        return dataset.to_iter_dataset(grain.ReadOptions(threads, prefetch_buffer_size=threads))

    return epoch(0) if options.repeat or not options.reshuffle else _passes()(epoch)


@functools.cache
def _passes():
    """The class of data sets of which each pass is another; made once Grain is imported."""
    grain = import_grain()

    class PassIterator(grain.DatasetIterator):
        """Opens its pass at the first batch, so that an iterator that is not read counts for none.

        The state holds the number of the pass, which another data set's iterator then goes on with.
        """

        def __init__(self, dataset):
            super().__init__()
            self.dataset, self.number, self.batches = dataset, None, None

        def open(self, number):
            self.number, self.batches = number, iter(self.dataset.epoch(number))
            self.dataset.next_pass = number + 1

        def __next__(self):
            if self.batches is None:
                self.open(self.dataset.next_pass)
            return next(self.batches)

        def get_state(self):
            if self.batches is None:
                self.open(self.dataset.next_pass)
            return {"pass": self.number, "batches": self.batches.get_state()}

        def set_state(self, state):
            self.open(state["pass"])
            self.batches.set_state(state["batches"])

        def close(self):
            if self.batches is not None:
                self.batches.close()
            super().close()

    class Passes(grain.IterDataset):
        def __init__(self, epoch):
            super().__init__()
            self.epoch, self.next_pass = epoch, 0

        def __iter__(self):
            return PassIterator(self)

        def mp_prefetch(self, *args, **kwargs):
            # Counted here: worker processes would each count the passes of a copy.
            return Passes(lambda number: self.epoch(number).mp_prefetch(*args, **kwargs))

    return Passes


def image_batches(count, options, read):
    """Batches as `pipeline.finish` makes them.

    Args:
        count: Number of images.
        options: `Options`.
        read: Function of the index of an image. Returns the image, uint8 of shape `(H, W, 3)` and
            scaled so that it covers `options.image_size`, and its label.

    Returns:
        `grain.IterDataset`.
    """

    def read_batch(positions, places):
        images = np.empty((len(positions), *options.image_size, 3), "float32")
        labels = np.empty(len(positions), "int32")
        for i, (position, place) in enumerate(zip(positions, places)):
            pixels, labels[i] = read(place)
            np.divide(_cut(pixels, position, options), np.float32(255), out=images[i])
        for layer in options.augment:
            images = layer(images)
        if options.augment:
            images = np.clip(keras.ops.convert_to_numpy(images).astype("float32"), 0, 1)
        return (images, labels) if options.labels else images

    return batches(count, options, read_batch)


def _places(count, positions, options):
    epochs, places = np.divmod(positions, count)
    if options.shuffle:
        orders = [_order(count, options.seed, epoch) for epoch in epochs.tolist()]
        places = np.array([order[place] for order, place in zip(orders, places)])
    return places


@functools.lru_cache(maxsize=2)
def _order(count, seed, epoch):
    """The permutation of an epoch."""
    return _generator(seed, epoch, 0).permutation(count)


def _cut(pixels, position, options):
    """The part of an image that its position in the stream gets, mirrored or not."""
    rows, columns = options.image_size
    down, right, side = _generator(options.seed, position, 1).random(3)
    if options.crop == "center":
        down = right = 0.5
    top = round(down * (pixels.shape[0] - rows))
    left = round(right * (pixels.shape[1] - columns))
    part = pixels[top : top + rows, left : left + columns]
    return part[:, ::-1] if options.flip and side < 0.5 else part


def _generator(seed, number, purpose):
    key = np.array([seed % 2**64, number], "uint64")
    return np.random.Generator(np.random.Philox(key=key, counter=purpose * 2**64))
