from typing import Any

import keras
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Config
from keras_vqvae2.layers.vector_quantizer import VectorQuantizer, mean_squared_error
from keras_vqvae2.validation import check_non_negative


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class VectorQuantizerEMA(VectorQuantizer):
    """A `VectorQuantizer` whose codes are moving averages of the vectors that choose them.

    The state is, for each code, a running count and a running sum; the codebook is derived:

    ```
    N_k <- decay * N_k + (1 - decay) * n_k             n_k: vectors of the batch that choose k
    m_k <- decay * m_k + (1 - decay) * sum of those vectors
    e_k  = m_k / N_k
    loss = commitment_cost * mean((z - sg(q))^2)
    ```

    `n_k` and the sums run over the global batch, so any number of replicas ends with the codebook
    of one. A code starts as `N_k = 1, m_k = e_k`.

    Nearest codes, start from data, restart of dead codes, gradient, similarity, heads and call
    arguments are those of `VectorQuantizer`. With `similarity="cosine"` the averages are those of
    vectors on the unit sphere, onto which `m_k / N_k` is put back.

    Args:
        num_embeddings: Positive integer, the number of codes `K`.
        embedding_dim: Positive integer, the width `D` of a code.
        commitment_cost: Non-negative float, the paper's beta. Defaults to 0.25 (paper).
        decay: Float in `[0, 1)`. Defaults to 0.99 (paper).
        zero_debias: Boolean, whether the averages start at zero and are divided by
            `1 - decay^t` after `t` updates, as Sonnet and Haiku do. The initial codes are then
            forgotten at the first update, and a code that is not chosen by then moves to the
            origin: with `epsilon=1e-5`, `data_initialization=False` and `restart_threshold=0` this
            is their update, step by step.
        epsilon: Non-negative float. Laplace smoothing of the counts: with `n = sum(N)`,
            `N_k` becomes `(N_k + epsilon) / (n + K * epsilon) * n`.
        **kwargs: Arguments of `VectorQuantizer` and `keras.layers.Layer`.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    quantizer = keras_vqvae2.layers.VectorQuantizerEMA(num_embeddings=16, embedding_dim=4)
    vectors = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    quantized, indices = quantizer(vectors, training=True)
    again = quantizer.lookup(indices)  # the codes' new places
    print(quantizer.codebook.shape)  # (16, 4)
    ```

    Reference:
        - van den Oord et al. 2017, arXiv 1711.00937, appendix A.1.
        - Razavi et al. 2019, arXiv 1906.00446, section 2.1, equation 3.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        commitment_cost: float = 0.25,
        decay: float = 0.99,
        zero_debias: bool = False,
        epsilon: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, commitment_cost, decay, **kwargs)
        if self.gradient == "diveq":
            raise ValueError(
                "Expected a gradient that does not train codes, which here are averages; "
                "VectorQuantizer takes 'diveq'. Received: gradient='diveq'"
            )
        if self.orthogonal_weight:
            raise ValueError(
                "Expected orthogonal_weight=0 of codes that are averages, which no loss trains; "
                f"VectorQuantizer takes one. Received: orthogonal_weight={self.orthogonal_weight}"
            )
        check_non_negative(epsilon=epsilon)
        if zero_debias and not epsilon:
            raise ValueError(
                "zero_debias=True leaves codes that nothing has chosen with a count of 0 and needs "
                f"epsilon > 0. Received: epsilon={epsilon}"
            )
        self.zero_debias = zero_debias
        self.epsilon = epsilon

    def _build_codes(self, shape):
        self.ema_sums = self._add_state("ema_sums", shape, "uniform")

    @property
    def _free_rows(self):
        counts, sums = self.ema_counts.value, self.ema_sums.value
        if self.zero_debias:
            updates = ops.cast(self.updates, "float32")
            seen = 1.0 - ops.power(self.decay, updates)
            seen = ops.where(updates > 0, seen, 1.0)
            counts, sums = counts / seen, sums / seen
        if self.epsilon:
            total = ops.sum(counts)
            smoothed = counts + self.epsilon
            counts = smoothed / (total + self._codes * self.epsilon) * total
        return sums / counts[:, None]  # (H*K, D/H)

    def _loss(self, z, quantized):
        return self.commitment_cost * mean_squared_error(z, ops.stop_gradient(quantized))

    def _keep(self, counts):
        keep = super()._keep(counts)
        return ops.where(self.updates > 0, keep, 0.0) if self.zero_debias else keep

    def _learn_codes(self, vectors, indices, keep):
        sums = backend.replica_sum(self._sum_by_code(vectors, indices))  # (K, D)
        self.ema_sums.assign(self._decayed(self.ema_sums, sums, keep[:, None]))

    def _place_codes(self, mask, codes, count):
        sums = codes * ops.reshape(count, (-1, 1))  # one count, or one a code
        self.ema_sums.assign(ops.where(mask[:, None], sums, self.ema_sums.value))
        self.ema_counts.assign(ops.where(mask, count, self.ema_counts.value))

    def get_config(self) -> Config:
        return {**super().get_config(), "zero_debias": self.zero_debias, "epsilon": self.epsilon}
