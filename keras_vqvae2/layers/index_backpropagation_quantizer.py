from typing import Any

import keras
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Config, Shape, Tensor
from keras_vqvae2.layers.code_entropies import softmax_entropies
from keras_vqvae2.layers.nearest_code import nearest_code
from keras_vqvae2.layers.quantizer import CodebookQuantizer
from keras_vqvae2.layers.row_chunks import rows_at_once, scan_rows
from keras_vqvae2.layers.row_means import mean_square, row_weights, without_padding
from keras_vqvae2.validation import check_non_negative


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class IndexBackpropagationQuantizer(CodebookQuantizer):
    """Chooses codes by a softmax through which gradients reach all codes, chosen or not.

    For a vector `z` and codes `e_1 … e_K` in the rows of `E`:

    ```
    p     = softmax_j(z . e_j)
    k     = argmax_j z . e_j                                            (first of equals)
    onehot = onehot(k), with d onehot := dp
    q     = onehot E                                                    (gradients reach E and z)
    loss  = mean((q - z)^2) + mean((sg(e_k) - z)^2) + commitment_cost * mean((e_k - sg(z))^2)
          + entropy_weight * (mean H(r) - H(mean r)),  r = softmax_j(z . e_j / entropy_temperature)
    ```

    with entropies in nats and means over the vectors of all replicas. Neither scores nor
    probabilities of vectors by codes are ever held as a whole, nor in the backward pass.

    Args:
        num_embeddings: Positive integer, the number of codes `K`.
        embedding_dim: Positive integer, the width `D` of a code.
        commitment_cost: Non-negative float, the original's beta. Defaults to 0.25.
        entropy_weight: Non-negative float. Defaults to 0.05.
        entropy_temperature: Positive float. Defaults to 0.01.
        logarithm: What stands for `log p` in the codebook's entropy: `"exact"`, or the original's
            `"shifted"`, `log(p + 1e-5)`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        embeddings: `E`, float32 of shape `(K, D)`, trainable; starts uniform in `[-1/K, 1/K]`.

    Call arguments and what comes back: those of `Quantizer`.

    Raises:
        ValueError: If the last dimension of the inputs is not `embedding_dim`, or an argument is
            out of range.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    quantizer = keras_vqvae2.layers.IndexBackpropagationQuantizer(64, 4)
    vectors = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    quantized, codes = quantizer(vectors)
    print(quantized.shape, codes.shape)  # (2, 8, 8, 4) (2, 8, 8)
    ```

    Reference:
        - Shi et al. 2024, "Scalable Image Tokenization with Index Backpropagation Quantization",
          arXiv 2412.02692, section 3.2.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        commitment_cost: float = 0.25,
        entropy_weight: float = 0.05,
        entropy_temperature: float = 0.01,
        logarithm: str = "shifted",
        **kwargs: Any,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, **kwargs)
        check_non_negative(commitment_cost=commitment_cost, entropy_weight=entropy_weight)
        if not entropy_temperature > 0:
            raise ValueError(f"Expected a positive number. Received: {entropy_temperature=}")
        if logarithm not in ("exact", "shifted"):
            raise ValueError(f"Expected 'exact' or 'shifted'. Received: {logarithm=}")
        self.commitment_cost = commitment_cost
        self.entropy_weight = entropy_weight
        self.entropy_temperature = entropy_temperature
        self.logarithm = logarithm

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        bound = 1.0 / self.num_embeddings
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.num_embeddings, self.embedding_dim),
            initializer=keras.initializers.RandomUniform(-bound, bound),
            dtype="float32",
            autocast=False,
        )

    @property
    def codebook(self) -> Tensor:
        """The codes, float32 of shape `(num_embeddings, embedding_dim)`."""
        return ops.convert_to_tensor(self.embeddings)

    def quantize_vectors(
        self, vectors: Tensor, training: bool = False, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        shape = ops.shape(vectors)
        z = ops.reshape(vectors, (-1, self.embedding_dim))  # (N, D)
        codebook = self.codebook
        codes = nearest_code(z, codebook, similarity="dot")  # (N,)
        hard = ops.take(codebook, codes, axis=0)  # (N, D)
        quantized = index_backpropagation(z, codebook, ops.stop_gradient(hard), codes)
        real = None if mask is None else ops.reshape(mask, (-1,))
        loss = self._loss(z, quantized, hard, codebook, real)
        return ops.reshape(quantized, shape), ops.reshape(codes, shape[:-1]), loss

    def _loss(self, z, quantized, hard, codebook, real):
        weights = row_weights(z, real)
        z, quantized, hard = (without_padding(x, real) for x in (z, quantized, hard))
        loss = mean_square(quantized, z, weights) + mean_square(ops.stop_gradient(hard), z, weights)
        loss = loss + self.commitment_cost * mean_square(hard, ops.stop_gradient(z), weights)
        if not self.entropy_weight:
            return loss
        return loss + self.entropy_weight * self._entropies(z, codebook, weights)[2]

    def entropies(self, vectors: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The two entropies of the loss, in nats, of vectors.

        Args:
            vectors: Shape `(..., embedding_dim)`.
            mask: None, or booleans of shape `(...)`, false where there is padding.

        Returns:
            A tuple of the mean entropy of a vector's choice and that of the codebook, of all
            vectors together; float32 of shape `()`.
        """
        vectors = ops.convert_to_tensor(vectors, dtype="float32")
        z = ops.reshape(vectors, (-1, self.embedding_dim))  # (N, D)
        real = None if mask is None else ops.reshape(mask, (-1,))
        return self._entropies(without_padding(z, real), self.codebook, row_weights(z, real))[:2]

    def _entropies(self, z, codebook, weights):
        temperature = self.entropy_temperature
        return softmax_entropies(z, codebook, weights, temperature, self.logarithm)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "commitment_cost": self.commitment_cost,
            "entropy_weight": self.entropy_weight,
            "entropy_temperature": self.entropy_temperature,
            "logarithm": self.logarithm,
        }


@ops.custom_gradient
def index_backpropagation(vectors, codebook, chosen, codes):
    """Returns `chosen`; its gradient goes through the choice, `softmax(vectors . codebook)`.

    Args:
        vectors: Shape `(N, D)`.
        codebook: Shape `(K, D)`.
        chosen: The rows of `codebook` that were chosen, shape `(N, D)`; receives no gradient.
        codes: Their numbers, int32 of shape `(N,)`.
    """

    def back(total, rows, codes, upstream):
        logits = backend.matmul_float32(rows, ops.transpose(codebook))  # (n, K)
        p = ops.softmax(logits, axis=-1)
        at_p = ops.matmul(upstream, ops.transpose(codebook))  # (n, K)
        at_logits = p * (at_p - ops.sum(p * at_p, axis=-1, keepdims=True))
        total = total + ops.matmul(ops.transpose(at_logits), rows)  # (K, D)
        return total, ops.matmul(at_logits, codebook)  # (n, D)

    def gradient(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        size = rows_at_once(codebook.shape[0])
        of_choice, at_vectors = scan_rows(
            back, ops.zeros_like(codebook), (vectors, codes, upstream), size
        )
        of_codes = backend.segment_sum(upstream, codes, codebook.shape[0])  # (K, D)
        return at_vectors, of_choice + of_codes, ops.zeros_like(upstream), None

    return chosen, gradient
