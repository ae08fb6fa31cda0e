import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2.hints import Config, Tensor
from keras_vqvae2.layers.gradient_estimators import straight_through
from keras_vqvae2.layers.quantizer import Quantizer
from keras_vqvae2.validation import check_integer

MOST_CODES = 2**31 - 1  # what int32 holds


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class FiniteScalarQuantizer(Quantizer):
    """Rounds each of a few numbers to one of its levels: no codebook, and none that can collapse.

    For a channel `z` with `L` levels:

    ```
    h = (L - 1) * 1.001 / 2,   o = 0.5 if L is even else 0,   s = atanh(o / h)
    t = round(h * tanh(z + s) - o)                     an integer in -floor(L/2) … ceil(L/2) - 1
    q = t / floor(L/2), with dq/dz that of the bounded number before it is rounded
    ```

    and with `symmetric`, whose levels lie evenly in `[-1, 1]`:

    ```
    t = floor((L - 1) * (tanh(z) + 1) / 2 + 0.5)       an integer in 0 … L - 1
    q = 2 * t / (L - 1) - 1
    ```

    The code of a vector is its integers read as digits, the first channel the least significant.
    There is no loss and no state, and no parameter: encoder and decoder learn to use the levels.

    The paper's levels for about as many codes as a codebook has: `[8, 6, 5]` for 2^8,
    `[8, 5, 5, 5]` for 2^10, `[7, 5, 5, 5, 5]` for 2^12, `[8, 8, 8, 6, 5]` for 2^14 and
    `[8, 8, 8, 5, 5, 5]` for 2^16.

    Args:
        levels: Sequence of integers of at least 2, the levels of each channel. The width of a
            vector, `embedding_dim`, is their number, and `num_embeddings` their product.
        symmetric: Boolean, whether the levels lie symmetrically about 0. Defaults to False (paper).
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments and what comes back: those of `Quantizer`.

    Raises:
        ValueError: If the last dimension of the inputs is not the number of levels, there are none
            or one is below 2, or there are more codes than int32 holds.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_vqvae2

    quantizer = keras_vqvae2.layers.FiniteScalarQuantizer([8, 5, 5, 5])
    vectors = np.array([[-2.0, -0.5, 0.0, 0.7], [0.3, 1.5, -1.2, 0.1]], "float32")
    quantized, codes = quantizer(vectors)
    print(keras.ops.convert_to_numpy(codes))  # [688 437]
    ```

    Reference:
        - Mentzer et al. 2023, "Finite Scalar Quantization: VQ-VAE Made Simple", arXiv 2309.15505,
          section 3; the levels are those of its table 1.
    """

    def __init__(self, levels: Sequence[int], symmetric: bool = False, **kwargs: Any) -> None:
        levels = list(levels)
        if not levels:
            raise ValueError(f"Expected the levels of at least one channel. Received: {levels=}")
        for i, number in enumerate(levels):
            check_integer(f"levels[{i}]", number, 2)
        levels = [int(number) for number in levels]
        if math.prod(levels) > MOST_CODES:
            raise ValueError(
                f"Expected at most {MOST_CODES} codes, what int32 holds. Received: {levels=}, "
                f"{math.prod(levels)} codes"
            )
        super().__init__(math.prod(levels), len(levels), **kwargs)
        self.levels = levels
        self.symmetric = bool(symmetric)
        counts = np.array(levels, "float32")
        self._highest = counts - 1.0  # (D,)
        self._lowest = np.zeros_like(counts) if symmetric else -np.floor(counts / 2.0)  # (D,)
        self._places = np.cumprod([1, *levels[:-1]]).astype("int32")  # (D,)
        # What codes are summed up in: float32, as digits are, where it holds them exactly.
        self._sum_dtype = "float32" if self.num_embeddings <= 2**24 else "int32"
        self._first = -int(self._lowest.astype("int64") @ self._places)  # the code of zeros
        # The paper's bound, 1.001 (L - 1) / 2, reaches one level too many where L is larger.
        self._overshoots = not symmetric and max(levels) > 1000

    def quantize_vectors(
        self, vectors: Tensor, training: bool = False, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        bounded = self._bounded(vectors)  # (..., D), a level is 1 wide
        nearest = ops.floor(bounded) if self.symmetric else ops.round(bounded)
        if self._overshoots:
            nearest = ops.clip(nearest, self._lowest, self._highest + self._lowest)
        places = ops.cast(self._places, self._sum_dtype)
        codes = ops.sum(ops.cast(nearest, self._sum_dtype) * places, axis=-1) + self._first
        # Of what is not a number, which is in no range.
        codes = ops.where(ops.logical_and(codes > 0, codes < self.num_embeddings), codes, 0)
        quantized = self._values(straight_through(bounded, ops.stop_gradient(nearest)))
        return quantized, ops.cast(codes, "int32"), ops.zeros((), "float32")

    def lookup(self, codes: Tensor) -> Tensor:
        codes = ops.expand_dims(ops.cast(codes, "int32"), -1)  # (..., 1)
        digits = ops.floor_divide(ops.maximum(codes, 0), self._places)
        digits = ops.mod(digits, np.array(self.levels, "int32"))  # (..., D)
        values = self._values(ops.add(ops.cast(digits, "float32"), self._lowest))
        mean = self._values(ops.add(self._highest / 2.0, self._lowest))  # (D,)
        return ops.where(codes < 0, mean, values)

    def _bounded(self, vectors):
        if self.symmetric:
            return ops.multiply(ops.tanh(vectors) + 1.0, self._highest / 2.0) + 0.5
        half = self._highest * np.float32(1.001 / 2.0)
        offset = np.where(self._highest % 2 == 1, np.float32(0.5), np.float32(0.0))
        bounded = ops.tanh(ops.add(vectors, np.arctanh(offset / half)))
        return ops.subtract(ops.multiply(bounded, half), offset)

    def _values(self, nearest):
        if self.symmetric:
            return ops.divide(2.0 * nearest, self._highest) - 1.0
        return ops.divide(nearest, -self._lowest)

    def get_config(self) -> Config:
        config = super().get_config()
        return {**config, "levels": self.levels, "symmetric": self.symmetric}
