from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Tensor
from keras_vqvae2.metrics.code_histogram import CodeHistogram


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class CodebookUsage(CodeHistogram):
    """Share of the codes that were chosen at least once, in `[0, 1]`.

    Args:
        num_embeddings: Positive integer, the number of codes; or a number for each code of a
            vector, where each is of a codebook of its own. The result is then the mean over them.
        name: Name of the metric.

    Example:

    ```python
    import keras_vqvae2

    usage = keras_vqvae2.metrics.CodebookUsage(num_embeddings=8)
    usage.update_state([[0, 1], [1, 3]])
    print(float(usage.result()))  # 0.375
    ```
    """

    def __init__(
        self, num_embeddings: int | Sequence[int], name: str = "codebook_usage", **kwargs: Any
    ) -> None:
        super().__init__(num_embeddings, name=name, **kwargs)

    def result(self) -> Tensor:
        used = ops.cast(self.counts_by_codebook > 0, "float32")
        return ops.mean(ops.divide(ops.sum(used, axis=-1), self.sizes.astype("float32")))
