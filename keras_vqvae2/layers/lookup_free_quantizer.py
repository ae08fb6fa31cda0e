from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Config, Tensor
from keras_vqvae2.layers.binary_quantizer import BinaryQuantizer
from keras_vqvae2.layers.code_entropies import MOST_BITS
from keras_vqvae2.layers.unit_sphere import unit
from keras_vqvae2.validation import check_non_negative, check_positive


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class LookupFreeQuantizer(BinaryQuantizer):
    """A code is the signs of `bits` numbers; entropies keep all codes in use.

    ```
    q_i  = 1 if z_i > 0 else -1, with dL/dz := dL/dq                     (straight-through)
    p(c) = softmax over all codes c of 2 z.c / temperature
         = product over bits of sigmoid(4 z_i c_i / temperature)
    loss = commitment_cost * mean((z - sg(q))^2)
         + entropy_weight * (mean H(p) - diversity_gamma * H(mean p))
    ```

    with entropies in nats and means over the vectors of all replicas: each vector is to choose
    surely, and all of them evenly. With `spherical` the vectors are first put on the unit sphere,
    and a coordinate of a code is `1 / sqrt(bits)`.

    `H(p)` is computed bit by bit. `H(mean p)` takes the mean probabilities of all `2^bits` codes, a
    product of two matrices as wide as half the bits have codes: 2^18 codes take 2^9 numbers a
    vector, and those of a few vectors at a time. `group_size` makes it the sum over groups of bits
    instead, which is cheaper, and blind to what groups have in common.

    Args:
        bits: Positive integer, the width of a vector. There are `2^bits` codes.
        temperature: Positive float. Defaults to 0.01 (vector-quantize-pytorch, Open-MAGVIT2).
        spherical: Boolean, whether vectors lie on the unit sphere.
        group_size: None, or an integer of at most 18 that divides `bits`; None is all bits.
        entropy_weight: Non-negative float. Defaults to 0.1 (vector-quantize-pytorch).
        diversity_gamma: Non-negative float. Defaults to 1.0.
        commitment_cost: Non-negative float. Defaults to 0.25.
        logarithm: What stands for `log p` in entropies: `"exact"`; `"shifted"`, Open-MAGVIT2's
            `log(p + 1e-5)` of the mean; `"clipped"`, vector-quantize-pytorch's
            `log(max(p, 1e-5))`, which takes memory for all codes of a group.
        first_channel: Whether it is the `"most_significant"` bit of a code, as in
            vector-quantize-pytorch, or the `"least_significant"`, as in Open-MAGVIT2.
        factorized_bits: None, or integers whose sum is `bits`: a vector then has a code for as many
            bits each, of shape `(..., len(factorized_bits))`, and `num_embeddings` is that of the
            largest. A prior predicts them one after the other, not one of 2^18.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments and what comes back: those of `Quantizer`.

    Raises:
        ValueError: If the last dimension of the inputs is not `bits`, or an argument is out of
            range.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    vectors = np.random.default_rng(0).normal(size=(2, 8, 8, 6)).astype("float32")
    quantizer = keras_vqvae2.layers.LookupFreeQuantizer(bits=6)
    quantized, codes = quantizer(vectors)
    print(quantizer.num_embeddings, codes.shape)  # 64 (2, 8, 8)
    factorized = keras_vqvae2.layers.LookupFreeQuantizer(bits=6, factorized_bits=(2, 4))
    print(factorized.num_embeddings, factorized(vectors)[1].shape)  # 16 (2, 8, 8, 2)
    ```

    Reference:
        - Yu et al. 2023, "Language Model Beats Diffusion: Tokenizer is Key to Visual Generation",
          arXiv 2310.05737, section 3.1.
        - Luo et al. 2024, "Open-MAGVIT2", arXiv 2409.04410, for factorized codes.
    """

    def __init__(
        self,
        bits: int,
        temperature: float = 0.01,
        spherical: bool = False,
        group_size: int | None = None,
        entropy_weight: float = 0.1,
        diversity_gamma: float = 1.0,
        commitment_cost: float = 0.25,
        logarithm: str = "exact",
        first_channel: str = "most_significant",
        factorized_bits: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        check_positive(bits=bits)
        if not temperature > 0:
            raise ValueError(f"Expected a positive number. Received: {temperature=}")
        check_non_negative(
            entropy_weight=entropy_weight,
            diversity_gamma=diversity_gamma,
            commitment_cost=commitment_cost,
        )
        if group_size is None and bits > MOST_BITS:
            raise ValueError(
                f"Expected a group_size for more than {MOST_BITS} bits. Received: {bits=}"
            )
        length = bits**-0.5 if spherical else 1.0
        super().__init__(
            bits,
            length=length,
            logit_scale=4.0 * length / temperature,
            group_size=bits if group_size is None else group_size,
            logarithm=logarithm,
            first_channel=first_channel,
            factorized_bits=factorized_bits,
            **kwargs,
        )
        self.temperature = temperature
        self.spherical = bool(spherical)
        self.group_size = group_size
        self.entropy_weight = entropy_weight
        self.diversity_gamma = diversity_gamma
        self.commitment_cost = commitment_cost

    def on_surface(self, vectors: Tensor) -> Tensor:
        return unit(vectors) if self.spherical else vectors

    def loss_of(self, rows: Tensor, quantized: Tensor, weights: Tensor) -> Tensor:
        errors = ops.mean(ops.square(rows - quantized), axis=-1)  # (N,)
        loss = self.commitment_cost * ops.sum(weights * errors)
        if not self.entropy_weight:
            return loss
        of_choice, of_codebook = self._entropies(rows, weights)
        return loss + self.entropy_weight * (of_choice - self.diversity_gamma * of_codebook)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "spherical": self.spherical,
            "group_size": self.group_size,
            "entropy_weight": self.entropy_weight,
            "diversity_gamma": self.diversity_gamma,
            "commitment_cost": self.commitment_cost,
            "logarithm": self.logarithm,
        }
