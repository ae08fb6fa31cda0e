from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.decoding.sampling import Sampling
from keras_vqvae2.hints import Tensor, TensorTree


class ParallelDecoder:
    """Draws all unknown codes at once, keeps the surest, and again: MaskGIT's passes.

    ```
    code ~ softmax(logits)             at unknown positions
    confidence = log p(code) + temperature * Gumbel noise,    infinite at known ones
    the `count` least sure codes are unknown again
    ```

    With `ranks` confidence is not asked: codes are kept in their order.

    Args:
        logits_of: Function of codes `(batch, rows, columns)`, -1 where unknown, and of further
            inputs, to logits `(batch, rows, columns, num_embeddings)`.
        variables: The variables it reads.
        ranks: None, or integers of shape `(rows, columns)`: which position is kept first.

    Reference:
        - Chang et al. 2022, "MaskGIT", arXiv 2202.04200, section 3.2.
    """

    def __init__(
        self,
        logits_of: Callable[..., Tensor],
        variables: Sequence[keras.Variable],
        ranks: np.ndarray | None = None,
    ) -> None:
        self.logits_of = logits_of
        self.variables = variables
        self.ranks = ranks
        self._compiled: dict[tuple[bool, ...], Any] = {}

    def passes(
        self,
        sampling: Sampling,
        given: Tensor,
        uniforms: tuple[Tensor, Tensor],
        counts: np.ndarray,
        temperatures: np.ndarray,
        inputs: TensorTree = (),
    ) -> Iterator[Tensor]:
        """Yields the codes after each pass.

        Args:
            sampling: `Sampling`. If it is guided, each example has two rows in `inputs`, as in
                `Sampling.guide`.
            given: int32 of shape `(batch, rows, columns)`: -1 for codes to draw.
            uniforms: Those of the codes and those of the noise, float32 in `[0, 1)` of shape
                `(batch, passes, rows, columns)` each.
            counts: int32 of shape `(passes, batch)`, what `masked_counts` returned.
            temperatures: float32 of shape `(passes,)`, of the noise on the confidence.
            inputs: What `logits_of` takes beside the codes; the leading axis is the batch.

        Yields:
            int32 of shape `(batch, rows, columns)`; negative where logits are not finite.
        """
        if sampling.kind not in self._compiled:
            self._compiled[sampling.kind] = backend.compile_function(
                lambda *args: self._draw(sampling, *args), self.variables
            )
        draw = self._compiled[sampling.kind]
        convert = ops.convert_to_tensor
        numbers = keras.tree.map_structure(convert, sampling.numbers())
        scales = sampling.guidance_scales(len(counts))
        inputs = backend.split_batch(keras.tree.map_structure(convert, inputs))
        unknown = backend.split_batch(convert(given))
        for i, count in enumerate(counts):
            parts = [convert(part) for part in (uniforms[0][:, i], uniforms[1][:, i], count)]
            parts = backend.split_batch(parts)
            own = convert(np.float32(temperatures[i])), convert(scales[i])
            codes, unknown = draw(unknown, *parts, *own, numbers, inputs)
            yield codes

    def _draw(self, sampling, given, uniforms, noise, count, temperature, scale, numbers, inputs):
        batch, rows, columns = given.shape
        length = rows * columns
        # A guided example's two rows see the same codes.
        seen = ops.repeat(given, 2, axis=0) if sampling.guided else given
        logits = ops.cast(self.logits_of(seen, inputs), "float32")
        logits = sampling.guide(logits, scale)  # (B, H, W, K)
        logits = ops.reshape(logits, (batch * length, -1))  # (B * N, K)
        uniforms = ops.reshape(uniforms, (batch * length, *uniforms.shape[3:]))
        drawn = sampling.draw(logits, uniforms, numbers)
        given = ops.reshape(given, (batch, length))
        codes = ops.where(given >= 0, given, ops.reshape(drawn, (batch, length)))  # (B, N)
        if self.ranks is None:
            confidence = ops.reshape(self._confidence(logits, drawn), (batch, length))
            confidence += temperature * gumbel(ops.reshape(noise, (batch, length)))
        else:
            confidence = -ops.cast(np.ravel(self.ranks), "float32")
        confidence = ops.where(given >= 0, np.inf, confidence)  # (B, N)
        place = ops.minimum(count, length - 1)[:, None]
        threshold = ops.take_along_axis(ops.sort(confidence, axis=-1), place, axis=-1)  # (B, 1)
        unknown = ops.where(confidence < threshold, -1, codes)
        shape = (batch, rows, columns)
        return ops.reshape(codes, shape), ops.reshape(unknown, shape)

    def _confidence(self, logits: Tensor, codes: Tensor) -> Tensor:
        """Log-probabilities of codes `(M,)` under logits `(M, K)`."""
        picked = ops.take_along_axis(logits, ops.maximum(codes, 0)[:, None], axis=-1)[:, 0]
        return picked - ops.logsumexp(logits, axis=-1)


def gumbel(uniforms: Tensor) -> Tensor:
    """Gumbel noise of uniforms in `[0, 1)`; finite."""
    least = float(np.finfo("float32").tiny)
    return -ops.log(-ops.log(ops.clip(uniforms, least, 1 - 2.0**-24)))
