from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Tensor
from keras_vqvae2.metrics.code_histogram import CodeHistogram


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class CodebookUsage(CodeHistogram):
    """Share of the codes that were chosen at least once, in `[0, 1]`.

    Args:
        num_embeddings: Positive integer, the number of codes.
        name: Name of the metric.

    Example:

    ```python
    import keras_vqvae2

    usage = keras_vqvae2.metrics.CodebookUsage(num_embeddings=8)
    usage.update_state([[0, 1], [1, 3]])
    print(float(usage.result()))  # 0.375
    ```
    """

    def __init__(self, num_embeddings: int, name: str = "codebook_usage", **kwargs: Any) -> None:
        super().__init__(num_embeddings, name=name, **kwargs)

    def result(self) -> Tensor:
        return ops.mean(ops.cast(ops.convert_to_tensor(self.counts) > 0, "float32"))
