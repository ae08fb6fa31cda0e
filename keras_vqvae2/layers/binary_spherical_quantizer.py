from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Config, Tensor
from keras_vqvae2.layers.binary_quantizer import BinaryQuantizer
from keras_vqvae2.layers.unit_sphere import unit
from keras_vqvae2.validation import check_non_negative, check_positive


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class BinarySphericalQuantizer(BinaryQuantizer):
    """A code is the corner of a cube on the unit sphere that is nearest to a vector's direction.

    For a vector of `D = bits` numbers, with `k` the inverse temperature:

    ```
    u    = z / |z|
    q_i  = sign(u_i) / sqrt(D), with dsign(u)/du := 1                    (straight-through)
    p(c) = product over bits of sigmoid(4 k u_i c_i),  c_i = 1 / sqrt(D) or -1 / sqrt(D)
    loss = commitment_cost * mean over vectors of |sg(q) - u|^2
         + zeta * (gamma0 * mean H(p) - gamma * H(mean p)) / k
    ```

    with entropies in nats and means over the vectors of all replicas. `H(mean p)` is the sum over
    bits of the entropies of each one's mean (`"analytical"`), or over groups of `group_size` bits
    of the entropies of their codes' mean probabilities (`"group"`). `H(p)` is the same with both.

    Args:
        bits: Positive integer, the width `D` of a vector. There are `2^bits` codes.
        group_size: Integer of at most 18 that divides `bits`. Defaults to 1 (released models).
        per_sample_entropy: `"analytical"` or `"group"`: named as in the original, where the
            analytical one replaces the groups in both entropies.
        inv_temperature: Positive float, `k`. Defaults to 1.0 (released models).
        commitment_cost: Non-negative float, the original's beta. Defaults to 0.0 (released models).
        gamma0: Non-negative float. Defaults to 1.0.
        gamma: Non-negative float. Defaults to 1.0.
        zeta: Non-negative float. Defaults to 0.1 (released models, whose loss is weighted so).
        first_channel: Whether it is the `"most_significant"` bit of a code, as in the original, or
            the `"least_significant"`.
        factorized_bits: As of `LookupFreeQuantizer`. More than 30 bits need it.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments and what comes back: those of `Quantizer`.

    Raises:
        ValueError: If the last dimension of the inputs is not `bits`, or an argument is out of
            range.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    quantizer = keras_vqvae2.layers.BinarySphericalQuantizer(bits=18)
    vectors = np.random.default_rng(0).normal(size=(2, 8, 8, 18)).astype("float32")
    quantized, codes = quantizer(vectors)
    print(quantizer.num_embeddings, codes.shape)  # 262144 (2, 8, 8)
    ```

    Reference:
        - Zhao, Xiong, Krähenbühl 2024, "Image and Video Tokenization with Binary Spherical
          Quantization", arXiv 2406.07548, sections 4.1 and 4.2.
    """

    def __init__(
        self,
        bits: int,
        group_size: int = 1,
        per_sample_entropy: str = "analytical",
        inv_temperature: float = 1.0,
        commitment_cost: float = 0.0,
        gamma0: float = 1.0,
        gamma: float = 1.0,
        zeta: float = 0.1,
        first_channel: str = "most_significant",
        factorized_bits: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        check_positive(bits=bits, group_size=group_size)
        kinds = ("analytical", "group")
        if per_sample_entropy not in kinds:
            raise ValueError(f"Expected one of {kinds}. Received: {per_sample_entropy=}")
        if not inv_temperature > 0:
            raise ValueError(f"Expected a positive number. Received: {inv_temperature=}")
        check_non_negative(commitment_cost=commitment_cost, gamma0=gamma0, gamma=gamma, zeta=zeta)
        if bits % group_size:
            raise ValueError(f"Expected a divisor of bits={bits}. Received: {group_size=}")
        length = bits**-0.5
        super().__init__(
            bits,
            length=length,
            logit_scale=4.0 * length * inv_temperature,
            group_size=1 if per_sample_entropy == "analytical" else group_size,
            logarithm="exact",
            first_channel=first_channel,
            factorized_bits=factorized_bits,
            **kwargs,
        )
        self.group_size = group_size
        self.per_sample_entropy = per_sample_entropy
        self.inv_temperature = inv_temperature
        self.commitment_cost = commitment_cost
        self.gamma0 = gamma0
        self.gamma = gamma
        self.zeta = zeta

    def on_surface(self, vectors: Tensor) -> Tensor:
        return unit(vectors)

    def before_signs(self, vectors: Tensor) -> Tensor:
        return ops.multiply(vectors, self._length)

    def loss_of(self, rows: Tensor, quantized: Tensor, weights: Tensor) -> Tensor:
        errors = ops.sum(ops.square(rows - quantized), axis=-1)  # (N,)
        of_choice, of_codebook = self._entropies(rows, weights)
        penalty = (self.gamma0 * of_choice - self.gamma * of_codebook) / self.inv_temperature
        return self.commitment_cost * ops.sum(weights * errors) + self.zeta * penalty

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "group_size": self.group_size,
            "per_sample_entropy": self.per_sample_entropy,
            "inv_temperature": self.inv_temperature,
            "commitment_cost": self.commitment_cost,
            "gamma0": self.gamma0,
            "gamma": self.gamma,
            "zeta": self.zeta,
        }
