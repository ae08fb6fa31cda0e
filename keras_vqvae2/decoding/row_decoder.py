from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.decoding.sampling import Sampling
from keras_vqvae2.decoding.steps import Steps
from keras_vqvae2.hints import Tensor


class RowDecoder:
    """Draws maps of codes row by row; within a row one compiled loop goes over the columns.

    What a position needs of finished rows, of conditions and of labels is computed for a whole row
    at once, before the loop; a turn of the loop multiplies only by weights that look at the
    current row. The loop over rows runs in Python: it shows progress, and it can be interrupted.

    Positions may differ in kind, in a pattern that repeats: the colours of a pixel, or the rows and
    columns that a network also sees at half the size. Then there are steps for each kind.

    Args:
        steps: `Steps`, the network cut into steps; or for each kind of row a list with those for
            each kind of column. The kinds repeat: with 4 of rows, row 5 is of kind 1. All share
            weights and state; `weights`, `cache`, `start_row` and `finish_row` are those of the
            first in the row's list.
        variables: The variables they read.
    """

    def __init__(
        self, steps: Steps | Sequence[Sequence[Steps]], variables: Sequence[keras.Variable]
    ) -> None:
        self.kinds = [list(row) for row in steps] if isinstance(steps, Sequence) else [[steps]]
        self.steps = self.kinds[0][0]
        self.variables = variables
        self._weights = backend.compile_function(self.steps.weights, variables)
        self._compiled: dict[tuple[Any, ...], Any] = {}

    def rows(
        self,
        sampling: Sampling,
        given: Tensor,
        uniforms: Tensor,
        condition: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yields the rows of a batch, top to bottom.

        Args:
            sampling: `Sampling`, or what has its methods. If it is guided, each example has two
                rows in what follows `uniforms`, as in `Sampling.guide`.
            given: int32 of shape `(batch, rows, columns, ...)`: -1 for codes to draw. Further axes
                are those of a position's code.
            uniforms: float32 of shape `(batch, rows, columns, ...)`, with what `sampling.draw`
                takes for a position.
            condition: None, or features of shape `(batch, rows, columns, units)`.
            labels: None, or int32 of shape `(batch,)`.

        Yields:
            Pairs `(codes, logits)`, int32 `(batch, columns, ...)` and float32
            `(batch, columns, num_embeddings)`, as tensors, guided ones if they are. A code is -1
            where its logits are not finite.
        """
        numbers = sampling.numbers()
        weights = self._weights()
        batch, height, width = given.shape[:3]
        scales = sampling.guidance_scales(height * width).reshape(height, width)
        state = backend.split_batch(self.steps.cache(2 * batch if sampling.guided else batch))
        if labels is not None:
            labels = backend.split_batch(ops.convert_to_tensor(labels))
        if condition is not None:
            condition = backend.split_batch(condition)
        for row in range(height):
            above = None if condition is None else condition[:, row]
            inputs = (np.int32(row), scales[row], given[:, row], uniforms[:, row])
            inputs, parameters = keras.tree.map_structure(ops.convert_to_tensor, (inputs, numbers))
            row_number, row_scales, *maps = inputs
            maps = backend.split_batch(maps)
            state, codes, logits = self._program(row % len(self.kinds), sampling)(
                weights, state, row_number, row_scales, *maps, parameters, above, labels
            )
            yield codes, logits

    def _program(self, kind, sampling):
        key = (kind, sampling.kind)
        if key not in self._compiled:
            self._compiled[key] = backend.compile_function(
                lambda *args: self._draw_row(self.kinds[kind], sampling, *args), self.variables
            )
        return self._compiled[key]

    def cache_bytes(self, batch: int) -> int:
        """Memory of the state between two rows, in bytes."""
        tensors = keras.tree.flatten(self.steps.cache(batch))
        return sum(ops.convert_to_numpy(x).nbytes for x in tensors)

    def _draw_row(
        self,
        kinds,
        sampling,
        weights,
        state,
        row,
        scales,
        given,
        uniforms,
        numbers,
        condition,
        labels,
    ):
        fixed, columns, left = kinds[0].start_row(weights, state, row, condition, labels)

        def seen(codes):
            # A guided example's two rows see the same code.
            return ops.repeat(codes, 2, axis=0) if sampling.guided else codes

        def draw(steps, left, inputs):
            column, scale, columns, given, uniform = inputs
            logits, left, features = steps.step(weights, fixed, left, column, columns)
            logits = sampling.guide(logits, scale)
            drawn = sampling.draw(logits, uniform, numbers)
            codes = ops.where(given >= 0, given, drawn)  # (B, ...)
            left, to_cache = steps.remember(weights, left, column, columns, features, seen(codes))
            return left, (codes, logits, to_cache)

        width, count = given.shape[1], len(kinds)
        positions = ops.arange(width, dtype="int32")
        if count == 1:
            inputs = (positions, scales, *_swap((columns, given, uniforms)))  # (W, B, ...)
            left, outputs = backend.scan(
                lambda left, inputs: draw(kinds[0], left, inputs), left, inputs, width
            )
            codes, logits, to_cache = _swap(outputs)  # (B, W, ...)
        else:
            # A turn is a column of each kind.
            turns = width // count
            groups = keras.tree.map_structure(
                lambda x: ops.reshape(x, (x.shape[0], turns, x.shape[1] // turns, *x.shape[2:])),
                (columns, given, uniforms),
            )  # (B, turns, a turn's, ...)
            inputs = (positions[::count], ops.reshape(scales, (turns, count)), *_swap(groups))

            def turn(left, inputs):
                column, scales, columns, given, uniforms = inputs
                drawn = []
                for i, steps in enumerate(kinds):
                    at = (column + i, scales[i], columns, given[:, i], uniforms[:, i])
                    left, outputs = draw(steps, left, at)
                    drawn.append(outputs)
                codes, logits, to_cache = zip(*drawn)
                return left, (ops.stack(codes, 1), ops.stack(logits, 1), to_cache)

            left, outputs = backend.scan(turn, left, inputs, turns)
            codes, logits, to_cache = _swap(outputs)  # (B, turns, a turn's, ...)
            codes, logits = (
                ops.reshape(x, (x.shape[0], width, *x.shape[3:])) for x in (codes, logits)
            )
        state = kinds[0].finish_row(weights, state, left, to_cache, row, seen(codes))
        return state, codes, logits


def _swap(tensors):
    """Exchanges the first two axes of all tensors."""
    return keras.tree.map_structure(
        lambda x: ops.transpose(x, (1, 0, *range(2, len(x.shape)))), tensors
    )
