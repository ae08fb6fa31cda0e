from typing import Any

import keras
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Config, Tensor
from keras_vqvae2.validation import check_positive


class CodeHistogram(keras.metrics.Metric):
    """Counts how often each code was chosen since the last reset; base of the codebook metrics."""

    def __init__(self, num_embeddings: int, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self._direction = "up"  # for EarlyStopping and the like
        check_positive(num_embeddings=num_embeddings)
        self.num_embeddings = int(num_embeddings)
        self.counts = self.add_variable(
            shape=(self.num_embeddings,), initializer="zeros", name="counts", dtype="float32"
        )

    def update_state(self, indices: Tensor, sample_weight: Tensor = 1.0) -> None:
        """Adds a batch of codes.

        Args:
            indices: Integers below `num_embeddings`, of any shape; negative ones do not count.
            sample_weight: Scalar that multiplies the batch's counts; 0 leaves the batch out.
        """
        indices = ops.reshape(ops.cast(indices, "int32"), (-1,))
        weights = ops.cast(indices >= 0, "float32") * sample_weight
        indices = ops.maximum(indices, 0)
        self.counts.assign_add(backend.segment_sum(weights, indices, self.num_embeddings))

    def get_config(self) -> Config:
        return {**super().get_config(), "num_embeddings": self.num_embeddings}
