import math
from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Config, Shape, Tensor, TensorTree
from keras_vqvae2.validation import check_positive


def rows_of(codebook: Tensor, codes: Tensor) -> Tensor:
    """The rows `(..., D)` of a codebook `(K, D)` at codes `(...)`; at -1 their mean."""
    vectors = ops.take(codebook, ops.maximum(codes, 0), axis=0)
    return ops.where(ops.expand_dims(codes >= 0, -1), vectors, ops.mean(codebook, axis=0))


class Quantizer(keras.layers.Layer):
    """Replaces vectors by codes, and codes by vectors: the base of all quantizers.

    A subclass says how in `quantize_vectors` and `lookup`; `VQVAE2` takes it at any level:

    ```python
    import keras
    from keras import ops
    import keras_vqvae2

    @keras.saving.register_keras_serializable(package="my_package")
    class SignQuantizer(keras_vqvae2.layers.Quantizer):
        \"\"\"Codes are the signs of `embedding_dim` numbers, read as bits.\"\"\"

        def __init__(self, embedding_dim, **kwargs):
            super().__init__(2**embedding_dim, embedding_dim, **kwargs)
            self.powers = [2**i for i in range(embedding_dim)]

        def quantize_vectors(self, vectors, training=False, mask=None):
            signs = ops.where(vectors >= 0, 1.0, -1.0)
            codes = ops.sum(ops.cast(signs > 0, "int32") * ops.array(self.powers), axis=-1)
            straight_through = vectors + ops.stop_gradient(signs - vectors)
            return straight_through, codes, ops.mean(ops.square(vectors - signs))

        def lookup(self, codes):
            bits = codes[..., None] // ops.array(self.powers) % 2
            return ops.where(codes[..., None] < 0, 0.0, 2.0 * ops.cast(bits, "float32") - 1.0)

        def get_config(self):
            config = super().get_config()
            return {**config, "embedding_dim": self.embedding_dim}

    vqvae = keras_vqvae2.VQVAE2((16, 16, 3), hidden_units=8, quantizer=SignQuantizer(6))
    print(vqvae.num_embeddings)  # {'top': 64, 'bottom': 64}
    ```

    Args:
        num_embeddings: Positive integer, the number of codes `K`.
        embedding_dim: Positive integer, the width `D` of a vector.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        code_axes: Shape of the codes of one vector: `()` for one integer, `(depth,)` for several,
            each in `[0, K)`. All that is said of codes of shape `(...)` is then said of
            `(..., depth)`.
        codebook: float32 of shape `(K, D)`, the vectors of all codes.

    Call arguments:
        inputs: Vectors of shape `(..., D)`; with `reverse=True` integer codes of shape `(...)`.
        training: Boolean, whether state moves.
        mask: None, or booleans of shape `(...)`: what is padding, false, teaches nothing. Keras
            hands on the mask that its layers attach.
        reverse: Boolean, looks codes up instead. The code -1 stands for "unknown" and gives the
            mean code.
        return_loss: Boolean, hands the loss out in place of adding it. Where the layer runs on
            several replicas of `tf.distribute`, one replica would find the others' losses among
            those added: their traces take turns whenever statistics are summed.

    Returns:
        A tuple `(quantized, codes)`: shape `(..., D)` in the compute dtype, and int32 of shape
        `(...)`. With `return_loss=True` also the loss, float32 of shape `()`. With `reverse=True`
        only the vectors, of shape `(..., D)`.
    """

    loads_from_presets = True
    code_axes: tuple[int, ...] = ()

    def __init__(self, num_embeddings: int, embedding_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_positive(num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        self.num_embeddings = int(num_embeddings)
        self.embedding_dim = int(embedding_dim)
        self.supports_masking = True

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """How many codes there are of each that a vector has: `(K,)`, or a number for each."""
        return (self.num_embeddings,) * math.prod(self.code_axes)

    @property
    def codebook_sizes(self) -> int | tuple[int, ...]:
        """What codebook metrics count: `K`, or `code_sizes` where each code has a codebook."""
        return self.code_sizes if self.code_axes else self.num_embeddings

    def quantize_vectors(
        self, vectors: Tensor, training: bool = False, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Quantizes.

        Args:
            vectors: float32 of shape `(..., D)`.
            training: Whether state may move.
            mask: None, or booleans of shape `(...)`, false where there is padding.

        Returns:
            A tuple `(quantized, codes, loss)`: float32 of shape `(..., D)`, through which gradients
            reach `vectors`; int32 of shape `(...)`; float32 of shape `()`.
        """
        raise TypeError(f"{type(self).__name__} does not say how it quantizes.")

    def lookup(self, codes: Tensor) -> Tensor:
        """The vectors of codes, the same that `quantize_vectors` gives for them.

        Args:
            codes: Integers in `[-1, K)`, shape `(...)`; -1 gives the mean code.

        Returns:
            float32 of shape `(..., D)`.
        """
        raise TypeError(f"{type(self).__name__} does not say how it looks codes up.")

    @property
    def codebook(self) -> Tensor:
        """The vectors of all codes, float32 of shape `(num_embeddings, embedding_dim)`."""
        return self.lookup(ops.arange(self.num_embeddings))

    def build(self, input_shape: Shape) -> None:
        if input_shape[-1] != self.embedding_dim:
            raise ValueError(
                f"{type(self).__name__} expected vectors of width embedding_dim="
                f"{self.embedding_dim}. Received: input_shape={tuple(input_shape)}"
            )

    def call(
        self,
        inputs: Tensor,
        training: bool | None = None,
        mask: Tensor | None = None,
        reverse: bool = False,
        return_loss: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        if reverse:
            return ops.cast(self.lookup(inputs), self.compute_dtype)
        learning = bool(training) and self.trainable
        if 0 in inputs.shape[:-1]:  # nothing to learn from, and no mean
            codes = ops.zeros((*inputs.shape[:-1], *self.code_axes), "int32")
            quantized, loss = inputs, ops.zeros((), "float32")
        else:
            vectors = ops.cast(inputs, "float32")
            if mask is not None:  # padding may hold anything
                vectors = ops.where(ops.expand_dims(mask, -1), vectors, 0.0)
            quantized, codes, loss = self.quantize_vectors(vectors, learning, mask)
            if mask is not None:  # what is made of padding teaches no code
                padding = ops.stop_gradient(quantized)
                quantized = ops.where(ops.expand_dims(mask, -1), quantized, padding)
        quantized = ops.cast(quantized, self.compute_dtype)
        if return_loss:
            return quantized, codes, loss
        self.add_loss(loss)
        return quantized, codes

    def compute_output_spec(
        self,
        inputs: Tensor,
        training: bool | None = None,
        mask: Tensor | None = None,
        reverse: bool = False,
        return_loss: bool = False,
    ) -> TensorTree:
        if reverse:
            places = inputs.shape[: len(inputs.shape) - len(self.code_axes)]
            return keras.KerasTensor((*places, self.embedding_dim), self.compute_dtype)
        outputs = (
            keras.KerasTensor(inputs.shape, self.compute_dtype),
            keras.KerasTensor((*inputs.shape[:-1], *self.code_axes), "int32"),
        )
        return (*outputs, keras.KerasTensor((), "float32")) if return_loss else outputs

    def compute_mask(self, inputs: Tensor, previous_mask: Tensor | None) -> TensorTree:
        return previous_mask, previous_mask


class CodebookQuantizer(Quantizer):
    """A quantizer of `(num_embeddings, embedding_dim)` that looks rows of its `codebook` up."""

    def lookup(self, codes: Tensor) -> Tensor:
        return rows_of(self.codebook, codes)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_embeddings": self.num_embeddings,
            "embedding_dim": self.embedding_dim,
        }
