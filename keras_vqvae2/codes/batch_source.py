"""What `encode_dataset` reads: passes over images, each opened at the batch that is wanted."""

import itertools

import numpy as np

ARRAY_BATCH = 32


class BatchSource:
    """Passes over images, in batches whose order stays.

    Args:
        images: As in `encode_dataset`.
        num_images: None, or the number of images of a pass.
        flips: Whether all passes follow once more, mirrored.

    Attributes:
        num_images: None, or the number of images of a pass; that of an array is known.
        pixels: The first batch of images.
        labels: Its labels, or None.
    """

    def __init__(self, images, num_images, flips):
        if hasattr(images, "shape") and hasattr(images, "dtype"):
            if num_images not in (None, len(images)):
                raise ValueError(f"Expected {len(images)}. Received: num_images={num_images}")
            num_images, passes = len(images), [_slices_of(images)]
        elif callable(images):
            passes = [images]
        elif isinstance(images, (list, tuple)) and images and all(map(callable, images)):
            passes = list(images)
        else:
            passes = [_later_batches_of(images)]
        self.num_images = num_images
        self.plain_passes = len(passes)
        self.passes = passes * (2 if flips else 1)
        self.pixels, self.labels = _pair(next(iter(passes[0](start_step=0)), None))
        if self.pixels is None:
            raise ValueError("Expected at least one batch of images. Received: an empty source")

    @property
    def num_examples(self):
        """Images of all passes together, or None."""
        return None if self.num_images is None else self.num_images * len(self.passes)

    def read(self, start, stop):
        """Yields the batches that hold examples from `start` to `stop`, whole.

        Yields:
            Tuples `(position, image_id, flipped, pixels, labels)`, of the first image of the batch
            `position` among all examples and `image_id` among those that are not mirrored.
        """
        size, position, mirrored_from = len(self.pixels), 0, 0
        for number, open_pass in enumerate(self.passes):
            begin, end = position, None
            if number == self.plain_passes:
                mirrored_from = begin
            if self.num_images is not None:
                end = begin + self.num_images
                if end <= start:
                    position = end
                    continue
                position += max(0, start - begin) // size * size
            for batch in open_pass(start_step=(position - begin) // size):
                if position >= stop:
                    return
                pixels, labels = _pair(batch)
                self._check(position, len(pixels), begin, end)
                again = position == begin and open_pass is self.passes[0]
                if again and not np.array_equal(pixels, self.pixels):
                    raise ValueError(
                        "Expected images in an order that stays, such as those of a data set with "
                        "reshuffle=False. Received: other images in the first batch than before"
                    )
                if position + len(pixels) > start:
                    flipped = number >= self.plain_passes
                    yield position, position - flipped * mirrored_from, flipped, pixels, labels
                position += len(pixels)
            if end not in (None, position):
                raise ValueError(
                    f"Expected num_images={self.num_images} in a pass over the source. "
                    f"Received: {position - begin}"
                )

    def _check(self, position, count, begin, end):
        """Raises `ValueError` unless batches are where their numbers say."""
        if end is None:
            return
        if position + count > end:
            raise ValueError(
                f"Expected num_images={self.num_images} in a pass over the source. "
                f"Received: at least {position + count - begin}"
            )
        if count != len(self.pixels) and position + count != end:
            raise ValueError(
                f"Expected batches of {len(self.pixels)} images, like the first, before the last. "
                f"Received: {count} images behind image {position - begin} of {self.num_images}"
            )


def _slices_of(array):
    def open_pass(start_step):
        starts = range(start_step * ARRAY_BATCH, len(array), ARRAY_BATCH)
        return (array[i : i + ARRAY_BATCH] for i in starts)

    return open_pass


def _later_batches_of(batches):
    def open_pass(start_step):
        iterator = iter(batches)
        if iterator is batches:
            raise ValueError(
                "Expected images that can be read again from the start, such as a list of batches, "
                f"an array or a tf.data.Dataset. Received: {type(batches).__name__}"
            )
        return itertools.islice(iterator, start_step, None)

    return open_pass


def _pair(batch):
    """Images and labels of what a source gives, as arrays."""
    parts = batch if isinstance(batch, (tuple, list)) else (batch, None)
    pixels, labels = (None if part is None else np.asarray(part) for part in parts)
    if labels is not None and (labels.shape != pixels.shape[:1] or labels.dtype.kind not in "iu"):
        raise ValueError(
            f"Expected a label for each of the {len(pixels)} images of a batch, an integer. "
            f"Received: labels of shape {labels.shape} and dtype {labels.dtype}"
        )
    return pixels, labels
