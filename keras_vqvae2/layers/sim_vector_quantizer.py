from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Config, Shape, Tensor
from keras_vqvae2.layers.gradient_estimators import ESTIMATORS
from keras_vqvae2.layers.nearest_code import nearest_code
from keras_vqvae2.layers.quantizer import CodebookQuantizer
from keras_vqvae2.layers.row_means import mean_square, row_weights, without_padding
from keras_vqvae2.validation import check_non_negative


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class SimVectorQuantizer(CodebookQuantizer):
    """Takes the nearest of codes that one linear layer makes of a frozen codebook.

    For `K` codes of width `D`, with `C` drawn once from a normal distribution of variance `1 / D`:

    ```
    E     = C W + b                                                     (only W, b are trained)
    k     = argmin_j |z - e_j|^2                                        (first of equals)
    q     = e_k, with dL/dz := dL/dq                                    (straight-through)
    loss  = commitment_cost * mean((z - sg(q))^2) + codebook_cost * mean((sg(z) - q)^2)
    ```

    A gradient at one code moves them all, so that none is left behind: codebooks of 2^18 codes are
    used whole. The loss is that of vector-quantize-pytorch and, with `legacy=False`, of the
    original; the original's default, `legacy=True`, is `commitment_cost=1.0, codebook_cost=0.25`.

    Args:
        num_embeddings: Positive integer, the number of codes `K`.
        embedding_dim: Positive integer, the width `D` of a code.
        commitment_cost: Non-negative float. Defaults to 0.25.
        codebook_cost: Non-negative float. Defaults to 1.0.
        use_bias: Boolean, whether there is a `b`. Defaults to True (original).
        gradient: `"straight_through"` (original) or `"rotation"`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        frozen_codebook: `C`, float32 of shape `(K, D)`, not trainable.
        kernel: `W`, float32 of shape `(D, D)`.
        bias: `b`, float32 of shape `(D,)`, or None.

    Call arguments and what comes back: those of `Quantizer`.

    Raises:
        ValueError: If the last dimension of the inputs is not `embedding_dim`, or an argument is
            out of range.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    quantizer = keras_vqvae2.layers.SimVectorQuantizer(num_embeddings=1024, embedding_dim=8)
    vectors = np.random.default_rng(0).normal(size=(2, 8, 8, 8)).astype("float32")
    quantized, codes = quantizer(vectors)
    print(codes.shape, len(quantizer.trainable_variables))  # (2, 8, 8) 2
    ```

    Reference:
        - Zhu et al. 2024, "Addressing Representation Collapse in Vector Quantized Models with One
          Linear Layer", arXiv 2411.02038, section 4.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        commitment_cost: float = 0.25,
        codebook_cost: float = 1.0,
        use_bias: bool = True,
        gradient: str = "straight_through",
        **kwargs: Any,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, **kwargs)
        check_non_negative(commitment_cost=commitment_cost, codebook_cost=codebook_cost)
        if gradient not in ESTIMATORS:
            raise ValueError(
                f"Expected one of {sorted(ESTIMATORS)}. Received: gradient={gradient!r}"
            )
        self.commitment_cost = commitment_cost
        self.codebook_cost = codebook_cost
        self.use_bias = bool(use_bias)
        self.gradient = gradient
        self.bias = None

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        width = self.embedding_dim
        # What torch.nn.Linear, and so both published versions, start from.
        uniform = keras.initializers.VarianceScaling(1.0 / 3.0, "fan_in", "uniform")
        self.frozen_codebook = self.add_weight(
            name="frozen_codebook",
            shape=(self.num_embeddings, width),
            initializer=keras.initializers.RandomNormal(stddev=width**-0.5),
            dtype="float32",
            trainable=False,
            autocast=False,
        )
        self.kernel = self.add_weight(
            name="kernel",
            shape=(width, width),
            initializer=uniform,
            dtype="float32",
            autocast=False,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(width,), initializer="zeros", dtype="float32", autocast=False
            )

    @property
    def codebook(self) -> Tensor:
        """The codes, float32 of shape `(num_embeddings, embedding_dim)`."""
        codes = ops.matmul(self.frozen_codebook, self.kernel)  # (K, D)
        return codes if self.bias is None else codes + self.bias

    def quantize_vectors(
        self, vectors: Tensor, training: bool = False, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        shape = ops.shape(vectors)
        z = ops.reshape(vectors, (-1, self.embedding_dim))  # (N, D)
        codebook = self.codebook
        codes = nearest_code(z, codebook)  # (N,)
        quantized = ops.take(codebook, codes, axis=0)  # (N, D)
        loss = self._loss(z, quantized, None if mask is None else ops.reshape(mask, (-1,)))
        quantized = ESTIMATORS[self.gradient](z, ops.stop_gradient(quantized))
        return ops.reshape(quantized, shape), ops.reshape(codes, shape[:-1]), loss

    def _loss(self, z, quantized, real):
        weights = row_weights(z, real)
        z, quantized = without_padding(z, real), without_padding(quantized, real)
        commitment = mean_square(z, ops.stop_gradient(quantized), weights)
        codebook_loss = mean_square(ops.stop_gradient(z), quantized, weights)
        return self.commitment_cost * commitment + self.codebook_cost * codebook_loss

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "commitment_cost": self.commitment_cost,
            "codebook_cost": self.codebook_cost,
            "use_bias": self.use_bias,
            "gradient": self.gradient,
        }
