"""What is computed of many vectors a few at a time, so that memory does not grow with them."""

from collections.abc import Callable
from typing import Any

from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Tensor, TensorTree

# Numbers held at a time: 2**21 float32 are 8 MiB, which stay in a CPU's cache.
MAX_SCORES = 2**21


def rows_at_once(numbers_a_row: int, max_scores: int = MAX_SCORES) -> int:
    """How many rows may be looked at at a time, of each of which so many numbers are held."""
    return max(1, max_scores // numbers_a_row)


def map_rows(function: Callable[..., Tensor], rows: tuple[Tensor, ...], size: int) -> Tensor:
    """A function of rows, of at most `size` at a time.

    Args:
        function: From tensors of shape `(n, ...)` to one of shape `(n, ...)`.
        rows: Tensors of shape `(N, ...)`.
        size: Positive integer.

    Returns:
        Its results in order, of shape `(N, ...)`.
    """
    split = _Split(rows, size)
    if split.fits:
        return function(*rows)
    results = backend.map_range(lambda i: function(*split.chunk(i)), split.chunks)
    results = _joined(results)  # (whole, ...)
    return results if split.is_even else ops.concatenate([results, function(*split.rest())])


def scan_rows(
    function: Callable[..., tuple[TensorTree, Tensor]],
    carry: TensorTree,
    rows: tuple[Tensor, ...],
    size: int,
) -> tuple[TensorTree, Tensor]:
    """`map_rows` of a function that also hands something, such as a sum, from rows to rows.

    Args:
        function: From `carry` and tensors of shape `(n, ...)` to the new `carry` and a tensor of
            shape `(n, ...)`.
        carry: Tensors.
        rows: Tensors of shape `(N, ...)`.
        size: Positive integer.

    Returns:
        A tuple of the last `carry` and the results, of shape `(N, ...)`.
    """
    split = _Split(rows, size)
    if split.fits:
        return function(carry, *rows)
    numbers = ops.arange(split.chunks, dtype="int32")
    carry, results = backend.scan(
        lambda carry, i: function(carry, *split.chunk(i)), carry, numbers, split.chunks
    )
    results = _joined(results)
    if split.is_even:
        return carry, results
    carry, last = function(carry, *split.rest())
    return carry, ops.concatenate([results, last])


class _Split:
    """Rows in chunks of equal size, and what is left of them.

    Chunk i holds every `chunks`-th row: where devices split the batch, each keeps its share.
    """

    def __init__(self, rows: tuple[Tensor, ...], size: int) -> None:
        count: Any = ops.shape(rows[0])[0]
        self.fits = isinstance(count, int) and count <= size
        if self.fits:
            return
        self.chunks = (count + size - 1) // size
        self.whole = count // self.chunks * self.chunks
        self.is_even = isinstance(count, int) and self.whole == count
        self.rows = rows
        # (rows a chunk, chunks, ...)
        self.parts = [
            ops.reshape(x[: self.whole], (count // self.chunks, self.chunks, *x.shape[1:]))
            for x in rows
        ]

    def chunk(self, i: Tensor) -> list[Tensor]:
        return [ops.take(x, i, axis=1) for x in self.parts]

    def rest(self) -> list[Tensor]:
        return [x[self.whole :] for x in self.rows]


def _joined(results):
    """`(chunks, rows a chunk, ...)` in the order of the rows: `(whole, ...)`."""
    axes = (1, 0, *range(2, len(results.shape)))
    return ops.reshape(ops.transpose(results, axes), (-1, *results.shape[2:]))
