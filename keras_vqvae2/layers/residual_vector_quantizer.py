from collections.abc import Callable
from typing import Any, Self

import keras
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Config, Shape, Tensor
from keras_vqvae2.layers.quantizer import Quantizer
from keras_vqvae2.layers.vector_quantizer import VectorQuantizer
from keras_vqvae2.validation import check_integer, check_share


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class ResidualVectorQuantizer(Quantizer):
    """Several quantizers in a row, each of what those before it left over.

    For a vector `z`, with `r_1 = z`:

    ```
    q_i     = Quantize_i(r_i)
    r_(i+1) = r_i - sg(q_i)
    q       = q_1 + q_2 + …                     loss = the sum of the quantizers' losses
    ```

    Gradients reach `z` through each `q_i`. A vector has a code of each quantizer, coarse to fine:
    codes are of shape `(..., depth)`, here and in `VQVAE2.encode`, data sets and priors.

    **One codebook for all.** With `shared_codebook` all quantizers are one. A `VectorQuantizer`
    then chooses all codes before it learns, from the vectors of each depth in turn.

    **Groups.** With `groups=G` a vector is cut into `G` parts, each with quantizers of its own (one
    codebook a group if it is shared). The codes of a group stand together, a group's after those
    of the one before, and the losses of groups are summed.

    **Dropout.** With `quantizer_dropout` each example of a training batch, with that probability,
    keeps only its first 1, 2, … quantizers, a number drawn evenly: the first ones then hold as much
    as they can, and reconstructions of fewer codes are of use. Codes that are left out are -1, add
    nothing, and teach their quantizers nothing.

    In `lookup` a code of -1 adds nothing, but for the first of a group, where it gives the mean
    code: the first codes alone give a coarse vector, and -1 everywhere the mean.

    Args:
        quantizer: `Quantizer` that gives one code a vector, from whose config all are made. Its
            `embedding_dim` times `groups` is the width of a vector.
        num_quantizers: Positive integer, quantizers in a row.
        shared_codebook: Boolean. Defaults to False; RQ-VAE has True.
        groups: Positive integer. Defaults to 1.
        quantizer_dropout: Float in `[0, 1)`. Defaults to 0.0.
        seed: None or an integer, of the dropout.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        code_axes: `(groups * num_quantizers,)`.
        codebook: float32 of shape `(groups, num_quantizers, K, embedding_dim / groups)`.
        quantizers: List of groups, each a list of its quantizers, in order.

    Call arguments and what comes back: those of `Quantizer`.

    Raises:
        ValueError: If the last dimension of the inputs is not `embedding_dim`, or an argument is
            out of range.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2
    from keras_vqvae2.layers import ResidualVectorQuantizer, VectorQuantizerEMA

    quantizer = ResidualVectorQuantizer(VectorQuantizerEMA(16, 4), num_quantizers=3)
    vectors = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    quantized, codes = quantizer(vectors, training=True)
    print(quantized.shape, codes.shape)  # (2, 8, 8, 4) (2, 8, 8, 3)
    vqvae = keras_vqvae2.VQVAE2((16, 16, 3), hidden_units=8, quantizer=quantizer)
    print(vqvae.encode(np.zeros((2, 16, 16, 3), "uint8"))["bottom"].shape)  # (2, 4, 4, 3)
    ```

    Reference:
        - Zeghidour et al. 2021, "SoundStream", arXiv 2107.03312, section III.C.
        - Lee et al. 2022, "Autoregressive Image Generation using Residual Quantization",
          arXiv 2203.01941, section 3.1, for the shared codebook.
        - Yang et al. 2023, "HiFi-Codec", arXiv 2305.02765, for groups.
    """

    def __init__(
        self,
        quantizer: Quantizer,
        num_quantizers: int,
        shared_codebook: bool = False,
        groups: int = 1,
        quantizer_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(quantizer, Quantizer) or quantizer.code_axes:
            raise ValueError(
                "Expected a keras_vqvae2.layers.Quantizer that gives one code a vector. "
                f"Received: quantizer={quantizer}"
            )
        check_integer("num_quantizers", num_quantizers, 1)
        check_integer("groups", groups, 1)
        check_share("quantizer_dropout", quantizer_dropout)
        super().__init__(quantizer.num_embeddings, groups * quantizer.embedding_dim, **kwargs)
        self.quantizer = quantizer
        self.num_quantizers = int(num_quantizers)
        self.shared_codebook = bool(shared_codebook)
        self.groups = int(groups)
        self.quantizer_dropout = quantizer_dropout
        self.seed = seed
        self.code_axes = (self.groups * self.num_quantizers,)
        if quantizer_dropout:
            self.seed_generator = keras.random.SeedGenerator(seed)
        # One list, not one a group: Keras saves no lists of lists.
        in_group = 1 if shared_codebook else self.num_quantizers
        self._members = [
            self._make(group, i) for group in range(self.groups) for i in range(in_group)
        ]

    def _make(self, group, i):
        config = {**self.quantizer.get_config(), "name": f"quantizer_{group}_{i}"}
        if config.get("seed") is not None:  # or all would draw the same
            config["seed"] += group * self.num_quantizers + i
        member = type(self.quantizer).from_config({**config, "dtype": self.dtype_policy})
        if isinstance(member, VectorQuantizer):
            # Of the vectors that the codes before start on, nothing is left over.
            member.shift_candidates(i)
        return member

    @property
    def quantizers(self) -> list[list[Quantizer]]:
        """The quantizers of each group, in order."""
        if self.shared_codebook:
            return [[member] * self.num_quantizers for member in self._members]
        starts = range(0, len(self._members), self.num_quantizers)
        return [self._members[start : start + self.num_quantizers] for start in starts]

    @property
    def codebook_sizes(self) -> int | tuple[int, ...]:
        one_for_all = self.shared_codebook and self.groups == 1
        return self.num_embeddings if one_for_all else super().codebook_sizes

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        shape = (*input_shape[:-1], self.quantizer.embedding_dim)
        for quantizer in self._members:
            quantizer.build(shape)

    @property
    def codebook(self) -> Tensor:
        """The vectors of all codes, float32 of shape `(groups, num_quantizers, K, D / groups)`."""
        return ops.stack([ops.stack([q.codebook for q in group]) for group in self.quantizers])

    def quantize_vectors(
        self, vectors: Tensor, training: bool = False, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        places = ops.shape(vectors)[:-1]
        depths = self._depths(vectors) if training and self.quantizer_dropout else None
        outputs, codes, loss = [], [], ops.zeros(())
        for group, part in zip(self.quantizers, ops.split(vectors, self.groups, axis=-1)):
            residual, total = part, None
            to_learn: list[Callable[[], None]] = []
            for depth, quantizer in enumerate(group):
                taught = self._taught(places, mask, depths, depth)
                step = self._quantize_and_learn_later if self._learns_later else _quantize
                quantized, chosen, new_loss = step(quantizer, residual, training, taught, to_learn)
                if depths is not None and depth:
                    kept = taught if mask is None else self._taught(places, None, depths, depth)
                    quantized = ops.where(ops.expand_dims(kept, -1), quantized, 0.0)
                    chosen = ops.where(kept, chosen, -1)
                total = quantized if total is None else total + quantized
                residual = residual - ops.stop_gradient(quantized)
                codes.append(chosen)
                loss = loss + new_loss
            for learn in to_learn:
                learn()
            outputs.append(total)
        return ops.concatenate(outputs, axis=-1), ops.stack(codes, axis=-1), loss

    @property
    def _learns_later(self):
        return self.shared_codebook and isinstance(self.quantizer, VectorQuantizer)

    def _quantize_and_learn_later(self, quantizer, vectors, training, mask, to_learn):
        z, real = quantizer.to_rows(vectors, mask)
        fixed = ops.stop_gradient(z)
        training = training and quantizer.trainable
        if training and not to_learn:
            quantizer.start(fixed, real)
        rows, quantized = quantizer.choose(fixed, training)
        loss = quantizer.loss_of(z, quantized, real)
        if training:
            # Codes that die are to move onto vectors of the depth that they are told of.
            to_learn.append(
                lambda: quantizer.learn(fixed, rows, real, quantizer.candidates(fixed, real))
            )
        quantized = quantizer.estimate(z, quantized, training)
        shape = ops.shape(vectors)
        return ops.reshape(quantized, shape), quantizer.to_codes(rows, shape[:-1]), loss

    def _depths(self, vectors):
        """How many quantizers each example keeps, int32 of shape `(batch,)`."""
        # Drawn for the whole batch, of which a replica takes its part: replicas change nothing.
        shape = (2, backend.replica_count(), ops.shape(vectors)[0])
        uniforms = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        uniforms = ops.take(uniforms, backend.replica_index(), axis=1)  # (2, batch)
        whether, which = uniforms[0], uniforms[1]
        fewer = 1 + ops.cast(which * self.num_quantizers, "int32")
        fewer = ops.minimum(fewer, self.num_quantizers)
        return ops.where(whether < self.quantizer_dropout, fewer, self.num_quantizers)

    def _taught(self, places, mask, depths, depth):
        """Which vectors the quantizer of a depth sees: None for all, or booleans `(...)`."""
        if depths is None:
            return mask
        kept = ops.reshape(depths > depth, (-1, *[1] * (len(places) - 1)))
        kept = ops.broadcast_to(kept, places)
        return kept if mask is None else ops.logical_and(kept, mask)

    def lookup(self, codes: Tensor) -> Tensor:
        outputs, i = [], 0
        for group in self.quantizers:
            total = None
            for quantizer in group:
                own = codes[..., i]
                vectors = quantizer.lookup(own)
                if total is None:
                    total = vectors
                else:
                    total = total + ops.where(ops.expand_dims(own >= 0, -1), vectors, 0.0)
                i += 1
            outputs.append(total)
        return ops.concatenate(outputs, axis=-1)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "quantizer": keras.saving.serialize_keras_object(self.quantizer),
            "num_quantizers": self.num_quantizers,
            "shared_codebook": self.shared_codebook,
            "groups": self.groups,
            "quantizer_dropout": self.quantizer_dropout,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        quantizer = config["quantizer"]
        if isinstance(quantizer, dict):
            quantizer = keras.saving.deserialize_keras_object(quantizer)
        return cls(**{**config, "quantizer": quantizer})


def _quantize(quantizer, vectors, training, mask, to_learn):
    return quantizer.quantize_vectors(vectors, training and quantizer.trainable, mask)
