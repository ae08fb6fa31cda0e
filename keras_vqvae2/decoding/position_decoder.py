from collections.abc import Generator, Sequence

import keras
import numpy as np
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.decoding.steps import Steps
from keras_vqvae2.hints import Tensor


class PositionDecoder:
    """Logits of one position after the other, for who chooses the codes himself.

    Whoever asks twice with the same codes and the same batch runs the same programs on the same
    numbers, and gets the same bits: what an entropy coder needs, which sees the codes when it
    writes and not yet when it reads. `RowDecoder`, whose loop over a row is one program, is faster
    where codes are drawn.

    Args:
        steps: `Steps`, the network cut into steps.
        variables: The variables they read.
    """

    def __init__(self, steps: Steps, variables: Sequence[keras.Variable]) -> None:
        self.steps = steps

        def program(function):
            return backend.compile_function(function, variables)

        def step(weights, fixed, left, column, columns):
            return steps.step(weights, fixed, left, column, _at(columns, column))

        def remember(weights, left, column, columns, features, codes):
            return steps.remember(weights, left, column, _at(columns, column), features, codes)

        def finish(weights, state, left, to_cache, row, codes):
            to_cache = keras.tree.map_structure(lambda *x: ops.stack(x, axis=1), *to_cache)
            return steps.finish_row(weights, state, left, to_cache, row, ops.stack(codes, axis=1))

        self._weights = program(steps.weights)
        self._start, self._step = program(steps.start_row), program(step)
        self._remember, self._finish = program(remember), program(finish)

    def positions(
        self,
        batch: int,
        shape: Sequence[int],
        condition: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Generator[np.ndarray, np.ndarray, None]:
        """A generator: yields logits, and is sent the codes of that position.

        Args:
            batch: Positive integer.
            shape: `(rows, columns)` of the map.
            condition: None, or features of shape `(batch, rows, columns, units)`.
            labels: None, or int32 of shape `(batch,)`.

        Yields:
            float32 of shape `(batch, num_embeddings)`, in raster order; each is answered by `send`
            with int32 codes of shape `(batch,)`.
        """
        height, width = shape
        weights = self._weights()
        state = self.steps.cache(batch)
        labels = None if labels is None else ops.convert_to_tensor(labels)
        for row in range(height):
            above = None if condition is None else condition[:, row]
            row_number = ops.convert_to_tensor(np.int32(row))
            fixed, columns, left = self._start(weights, state, row_number, above, labels)
            chosen, to_cache = [], []
            for index in range(width):
                column = ops.convert_to_tensor(np.int32(index))
                logits, left, features = self._step(weights, fixed, left, column, columns)
                codes = yield ops.convert_to_numpy(logits)
                chosen.append(ops.convert_to_tensor(codes.astype("int32")))
                left, cached = self._remember(weights, left, column, columns, features, chosen[-1])
                to_cache.append(cached)
            state = self._finish(weights, state, left, to_cache, row_number, chosen)


def _at(columns, column):
    return keras.tree.map_structure(lambda x: ops.take(x, column, axis=1), columns)
