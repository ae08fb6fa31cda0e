from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Config, Tensor


class CodeHistogram(keras.metrics.Metric):
    """Counts how often each code was chosen since the last reset; base of the codebook metrics."""

    def __init__(
        self, num_embeddings: int | Sequence[int], name: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        self._direction = "up"  # for EarlyStopping and the like
        several = isinstance(num_embeddings, Sequence)
        sizes = np.array(num_embeddings, "int64", ndmin=1)
        if not sizes.size or sizes.min() < 1:
            raise ValueError(
                "Expected a positive integer, or one for each code of a vector. "
                f"Received: num_embeddings={num_embeddings}"
            )
        self.num_embeddings = sizes.tolist() if several else int(sizes[0])
        self.sizes = sizes  # (H,)
        self.counts = self.add_variable(
            shape=(len(sizes) * int(sizes.max()),),
            initializer="zeros",
            name="counts",
            dtype="float32",
        )

    @property
    def counts_by_codebook(self) -> Tensor:
        """float32 of shape `(H, largest size)`, with one codebook for a single number."""
        return ops.reshape(self.counts, (len(self.sizes), -1))

    def update_state(self, indices: Tensor, sample_weight: Tensor = 1.0) -> None:
        """Adds a batch of codes.

        Args:
            indices: Integers below `num_embeddings`, of any shape, or `(..., H)` where
                `num_embeddings` are `H` numbers; negative ones do not count.
            sample_weight: Scalar that multiplies the batch's counts; 0 leaves the batch out.
        """
        count, largest = len(self.sizes), int(self.sizes.max())
        indices = ops.reshape(ops.cast(indices, "int32"), (-1, count))
        weights = ops.cast(indices >= 0, "float32") * sample_weight
        rows = ops.add(ops.maximum(indices, 0), largest * np.arange(count, dtype="int32"))
        weights, rows = ops.reshape(weights, (-1,)), ops.reshape(rows, (-1,))
        self.counts.assign_add(backend.segment_sum(weights, rows, count * largest))

    def get_config(self) -> Config:
        return {**super().get_config(), "num_embeddings": self.num_embeddings}
