"""Drawing many maps, a batch at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tqdm
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Tensor
from keras_vqvae2.image_batches import filled_batches


def draw_batches(
    draw: Callable[[dict[str, np.ndarray], np.ndarray], Iterator[tuple[Any, Tensor]]],
    request: Mapping[str, np.ndarray],
    shape: Sequence[int],
    batch_size: int,
    name: str,
    verbose: int = 1,
) -> np.ndarray:
    """Draws all that is requested, in batches of one size, with a progress bar.

    Args:
        draw: Function of a batch's inputs and the numbers of its samples from 0 on, NumPy's, which
            yields pairs `(rows, values)` in any order: a row's number or a slice of rows, and their
            values, integers of shape `(batch, columns, ...)` or `(batch, rows, columns, ...)`;
            negative where they could not be drawn.
        request: Dict of arrays with a row for each sample.
        shape: `(rows, columns, ...)` of a sample.
        batch_size: Positive integer, samples at a time.
        name: What is drawn, for progress and errors.
        verbose: 1 shows a progress bar.

    Returns:
        int32 of shape `(samples, rows, columns, ...)`.

    Raises:
        ValueError: If a value is negative.
    """
    count = len(next(iter(request.values())))
    multiple = backend.batch_multiple()
    size = -(-min(batch_size, count) // multiple) * multiple
    drawn = np.empty((count, *shape), "int32")
    total = -(-count // size) * shape[0]
    with tqdm.tqdm(total=total, desc=name, unit="row", disable=not verbose) as progress:
        for numbers, inputs in filled_batches(request, size):
            part = drawn[numbers[0] : numbers[0] + size]
            for rows, new in draw(inputs, numbers):
                part[:, rows] = ops.convert_to_numpy(new)[: len(part)]
                if (part[:, rows] < 0).any():
                    raise ValueError(
                        "Expected finite logits to draw codes from. Received: logits of "
                        f"{name!r}, rows {rows}, that are not finite"
                    )
                progress.update(1 if isinstance(rows, int) else part[:, rows].shape[1])
    return drawn
