import math
from typing import Any

import keras
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Config, Shape, Tensor
from keras_vqvae2.layers.quantizer import CodebookQuantizer
from keras_vqvae2.layers.row_means import row_weights, without_padding
from keras_vqvae2.validation import check_integer, check_non_negative


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class GumbelVectorQuantizer(CodebookQuantizer):
    """Draws codes from a softmax while training, through Gumbel noise that gradients pass.

    For a vector `z`, `K` codes `e_1 … e_K` in the rows of `E`, and uniform noise `u`:

    ```
    l     = z W + b                                                     (a logit for each code)
    y     = softmax((l - log(-log u)) / temperature)                    (no noise at inference)
    k     = argmax y                                                    (first of equals)
    q     = y E                                                         (a mixture of codes)
    loss  = kl_weight * mean(KL(softmax(l) || uniform))                 (in nats)
    ```

    At inference, and with `straight_through=True` in training too, `q = e_k` with the gradient of
    `y E`. A high temperature mixes codes, a low one nearly takes one: `annealing_steps` lowers it
    along half a cosine, from `temperature` to `final_temperature`, as training goes. The
    published VQGANs of this kind draw at inference too; here the codes of an image are always the
    most probable ones.

    `K` probabilities are held for each vector, and for the noise those of all replicas' vectors.

    Args:
        num_embeddings: Positive integer, the number of codes `K`.
        embedding_dim: Positive integer, the width `D` of a vector and of a code.
        temperature: Positive float. Defaults to 1.0.
        final_temperature: Positive float that is reached after `annealing_steps`. Defaults to
            0.0625 (DALL-E's).
        annealing_steps: Non-negative integer, training steps from one temperature to the other; 0
            keeps the first. Defaults to 0; DALL-E's is 150,000.
        kl_weight: Non-negative float. Defaults to 5e-4 (VQGAN's).
        straight_through: Boolean, whether one code stands for the mixture while training.
        seed: None or an integer, of the noise.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        kernel: `W`, float32 of shape `(D, K)`.
        bias: `b`, float32 of shape `(K,)`.
        embeddings: `E`, float32 of shape `(K, D)`, trainable; starts normal.
        steps: int32 of shape `()`, the training steps so far, where there are `annealing_steps`.

    Call arguments and what comes back: those of `Quantizer`. While training, without
    `straight_through`, the vectors are mixtures and not those of the codes.

    Raises:
        ValueError: If the last dimension of the inputs is not `embedding_dim`, or an argument is
            out of range.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    quantizer = keras_vqvae2.layers.GumbelVectorQuantizer(64, 4, annealing_steps=1000)
    vectors = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    quantized, codes = quantizer(vectors, training=True)
    print(quantized.shape, codes.shape)  # (2, 8, 8, 4) (2, 8, 8)
    ```

    Reference:
        - Jang, Gu, Poole 2016, "Categorical Reparameterization with Gumbel-Softmax", arXiv
          1611.01144, sections 2.1 and 2.2; Maddison, Mnih, Teh 2016, arXiv 1611.00712.
        - Ramesh et al. 2021, "Zero-Shot Text-to-Image Generation", arXiv 2102.12092, section 2.1
          and appendix A.2; github.com/CompVis/taming-transformers, `GumbelQuantize`.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        temperature: float = 1.0,
        final_temperature: float = 0.0625,
        annealing_steps: int = 0,
        kl_weight: float = 5e-4,
        straight_through: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, **kwargs)
        check_non_negative(kl_weight=kl_weight)
        for value in (temperature, final_temperature):
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(
                    "Expected temperatures that are positive numbers. "
                    f"Received: {temperature=}, {final_temperature=}"
                )
        check_integer("annealing_steps", annealing_steps, 0)
        self.temperature = temperature
        self.final_temperature = final_temperature
        self.annealing_steps = int(annealing_steps)
        self.kl_weight = kl_weight
        self.straight_through = bool(straight_through)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        count, width = self.num_embeddings, self.embedding_dim
        options = {"dtype": "float32", "autocast": False}
        self.kernel = self.add_weight(name="kernel", shape=(width, count), **options)
        self.bias = self.add_weight(name="bias", shape=(count,), initializer="zeros", **options)
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(count, width),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            **options,
        )
        if self.annealing_steps:
            self.steps = self.add_weight(
                name="steps", shape=(), initializer="zeros", dtype="int32", trainable=False
            )

    @property
    def codebook(self) -> Tensor:
        """The codes, float32 of shape `(num_embeddings, embedding_dim)`."""
        return ops.convert_to_tensor(self.embeddings)

    def current_temperature(self) -> Tensor | float:
        """The temperature of the next training step."""
        if not self.annealing_steps:
            return self.temperature
        share = ops.cast(self.steps, "float32") / self.annealing_steps
        left = 0.5 + 0.5 * ops.cos(math.pi * ops.minimum(share, 1.0))
        return self.final_temperature + (self.temperature - self.final_temperature) * left

    def quantize_vectors(
        self, vectors: Tensor, training: bool = False, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        shape = ops.shape(vectors)
        z = ops.reshape(vectors, (-1, self.embedding_dim))  # (N, D)
        real = None if mask is None else ops.reshape(mask, (-1,))
        weights = row_weights(z, real)
        z = without_padding(z, real)
        logits = backend.matmul_float32(z, ops.convert_to_tensor(self.kernel)) + self.bias
        temperature = self.current_temperature()
        noisy = logits + self._noise(ops.shape(logits)) if training else logits
        codes = backend.argmax(noisy)  # (N,)
        shares = ops.softmax(noisy / temperature, axis=-1)  # (N, K)
        if training and not self.straight_through:
            quantized = backend.matmul_float32(shares, self.codebook)  # (N, D)
        else:
            # The choice teaches its code, the mixture the vectors.
            mixture = backend.matmul_float32(shares, ops.stop_gradient(self.codebook))
            chosen = ops.take(self.codebook, codes, axis=0)
            quantized = chosen + (mixture - ops.stop_gradient(mixture))
        if training and self.annealing_steps:
            self.steps.assign_add(1)
        loss = self.kl_weight * ops.sum(weights * self._divergence(logits))
        return ops.reshape(quantized, shape), ops.reshape(codes, shape[:-1]), loss

    def _noise(self, shape):
        # Drawn for the whole batch, of which a replica takes its part.
        shape = (backend.replica_count(), *shape)
        u = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        u = ops.take(u, backend.replica_index(), axis=0)
        return -ops.log(-ops.log(u))

    def _divergence(self, logits):
        """Nats between a vector's softmax and the uniform distribution, `(N,)`."""
        log_p = ops.log_softmax(logits, axis=-1)
        return ops.sum(ops.exp(log_p) * log_p, axis=-1) + math.log(self.num_embeddings)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "final_temperature": self.final_temperature,
            "annealing_steps": self.annealing_steps,
            "kl_weight": self.kl_weight,
            "straight_through": self.straight_through,
            "seed": self.seed,
        }
