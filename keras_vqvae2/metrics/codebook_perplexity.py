from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Tensor
from keras_vqvae2.metrics.code_histogram import CodeHistogram


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class CodebookPerplexity(CodeHistogram):
    """Perplexity of the distribution of the chosen codes, in `[1, num_embeddings]`.

    `exp(-sum_k p_k log p_k)`, with `p_k` the share of code `k` among all codes since the last
    reset: the number of codes that, chosen equally often, would carry as much information.

    Args:
        num_embeddings: Positive integer, the number of codes; or a number for each code of a
            vector, where each is of a codebook of its own. The result is then the mean over them.
        name: Name of the metric.

    Example:

    ```python
    import keras_vqvae2

    perplexity = keras_vqvae2.metrics.CodebookPerplexity(num_embeddings=8)
    perplexity.update_state([0, 1, 2, 3])
    print(round(float(perplexity.result()), 4))  # 4.0
    ```
    """

    def __init__(
        self, num_embeddings: int | Sequence[int], name: str = "codebook_perplexity", **kwargs: Any
    ) -> None:
        super().__init__(num_embeddings, name=name, **kwargs)

    def result(self) -> Tensor:
        counts = self.counts_by_codebook
        p = counts / ops.maximum(ops.sum(counts, axis=-1, keepdims=True), 1.0)
        return ops.mean(ops.exp(-ops.sum(p * ops.log(ops.maximum(p, 1e-30)), axis=-1)))
