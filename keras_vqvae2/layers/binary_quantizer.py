"""What quantizers have in common whose codes are the signs of a few numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_vqvae2.hints import Config, Tensor
from keras_vqvae2.layers.code_entropies import LOGARITHMS, MOST_BITS, bit_entropies
from keras_vqvae2.layers.gradient_estimators import straight_through
from keras_vqvae2.layers.quantizer import Quantizer
from keras_vqvae2.layers.row_means import row_weights, without_padding
from keras_vqvae2.validation import check_integer

INT32_BITS = 30  # of codes that are not negative, and of their number


class BinaryQuantizer(Quantizer):
    """A code is the signs of `bits` numbers. A subclass says where vectors lie, and its loss.

    Args:
        bits: Positive integer, the width of a vector.
        length: Positive float, of a coordinate of a quantized vector.
        logit_scale: Positive float: the log odds of a bit are that times the coordinate.
        group_size: Integer that divides `bits`, those of a group of the codebook's entropy.
        logarithm: One of `LOGARITHMS`.
        first_channel: `"most_significant"` or `"least_significant"` bit of the code.
        factorized_bits: None, or integers whose sum is `bits`.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(
        self,
        bits: int,
        length: float,
        logit_scale: float,
        group_size: int,
        logarithm: str,
        first_channel: str,
        factorized_bits: Sequence[int] | None,
        **kwargs: Any,
    ) -> None:
        check_integer("group_size", group_size, 1)
        if bits % group_size or group_size > MOST_BITS:
            raise ValueError(
                f"Expected a divisor of bits={bits}, at most {MOST_BITS}. Received: {group_size=}"
            )
        if logarithm not in LOGARITHMS:
            raise ValueError(f"Expected one of {LOGARITHMS}. Received: {logarithm=}")
        orders = ("most_significant", "least_significant")
        if first_channel not in orders:
            raise ValueError(f"Expected one of {orders}. Received: {first_channel=}")
        tokens = None if factorized_bits is None else list(factorized_bits)
        for i, number in enumerate(tokens or ()):
            check_integer(f"factorized_bits[{i}]", number, 1)
        if tokens is not None and sum(tokens) != bits:
            raise ValueError(f"Expected {bits} bits together. Received: {factorized_bits=}")
        largest = bits if tokens is None else max(tokens)
        if largest > INT32_BITS:
            raise ValueError(
                f"Expected at most {INT32_BITS} bits, those of an int32 code, or factorized_bits, "
                f"which make several codes of a vector. Received: {bits=}, {factorized_bits=}"
            )
        super().__init__(2**largest, bits, **kwargs)
        self.bits = int(bits)
        self.logarithm = logarithm
        self.first_channel = first_channel
        self.factorized_bits = tokens
        self.code_axes = () if tokens is None else (len(tokens),)
        self._length = np.float32(length)
        self._logit_scale = np.float32(logit_scale)
        self._entropy_bits = int(group_size)
        self._tokens = [self.bits] if tokens is None else tokens
        places = [
            range(n)[:: -1 if first_channel == "most_significant" else 1] for n in self._tokens
        ]
        # (D,), what each channel counts in its token; products and quotients, since not every
        # runtime that codes are exported to can shift bits.
        self._counts = 2 ** np.concatenate(places).astype("int32")
        ends = np.cumsum(self._tokens).tolist()
        self._parts = [slice(end - n, end) for n, end in zip(self._tokens, ends)]

    @property
    def code_sizes(self) -> tuple[int, ...]:
        return tuple(2**n for n in self._tokens)

    def on_surface(self, vectors: Tensor) -> Tensor:
        """Where vectors lie before their signs are taken."""
        return vectors

    def before_signs(self, vectors: Tensor) -> Tensor:
        """What of `on_surface` the gradient of the quantized vectors is copied to."""
        return vectors

    def loss_of(self, rows: Tensor, quantized: Tensor, weights: Tensor) -> Tensor:
        """The loss.

        Args:
            rows: float32 of shape `(N, D)`, zeros where there is padding.
            quantized: Of the same shape, without a gradient.
            weights: What each row counts, as of `row_weights`, float32 of shape `(N,)`.

        Returns:
            float32 of shape `()`.
        """
        raise TypeError(f"{type(self).__name__} does not say what its loss is.")

    def quantize_vectors(
        self, vectors: Tensor, training: bool = False, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        z = self.on_surface(vectors)  # (..., D)
        positive = z > 0
        length = ops.where(ops.isnan(z), z, self._length)  # what is not a number stays none
        quantized = ops.stop_gradient(ops.where(positive, length, -length))
        rows, weights = self._rows(z, mask)
        signs = ops.where(rows > 0, self._length, -self._length)  # (N, D), of padding too
        loss = self.loss_of(rows, ops.stop_gradient(signs), weights)
        return straight_through(self.before_signs(z), quantized), self._codes(positive), loss

    def _rows(self, z, mask):
        real = None if mask is None else ops.reshape(mask, (-1,))  # (N,)
        rows = ops.reshape(z, (-1, self.bits))  # (N, D)
        return without_padding(rows, real), row_weights(rows, real)

    def _codes(self, positive):
        places = ops.multiply(ops.cast(positive, "int32"), self._counts)  # (..., D)
        codes = [ops.cast(ops.sum(places[..., part], -1), "int32") for part in self._parts]
        return codes[0] if self.factorized_bits is None else ops.stack(codes, axis=-1)

    def lookup(self, codes: Tensor) -> Tensor:
        codes = ops.cast(codes, "int32")
        if self.factorized_bits is None:
            return self._signs(ops.expand_dims(codes, -1), self._counts)
        # Token by token: PyTorch's exporter to ONNX has no gather along the last axis.
        signs = [
            self._signs(codes[..., i : i + 1], self._counts[part])
            for i, part in enumerate(self._parts)
        ]
        return ops.concatenate(signs, axis=-1)

    def _signs(self, codes, counts):
        """The channels of one token, `(..., 1)`, that count so much in it: `(..., channels)`."""
        bits = ops.mod(ops.floor_divide(codes, counts), 2)
        signs = ops.where(bits == 1, self._length, -self._length)
        return ops.where(codes < 0, ops.zeros_like(signs), signs)

    @property
    def codebook(self) -> Tensor:
        """The vectors of all `2^bits` codes, as one integer, float32 of shape `(2^bits, bits)`."""
        codes = ops.arange(2**self.bits, dtype="int32")
        return self.lookup(codes if self.factorized_bits is None else self.factorize(codes))

    def factorize(self, codes: Tensor) -> Tensor:
        """Integers of all bits as the codes of `factorized_bits`.

        Args:
            codes: Integers in `[-1, 2^bits)`, shape `(...)`.

        Returns:
            int32 of shape `(..., len(factorized_bits))`, the first that of the first channels.
        """
        codes = ops.expand_dims(ops.cast(codes, "int32"), -1)
        sizes = np.array(self._tokens, "int32")
        if self.first_channel == "most_significant":
            below = self.bits - np.cumsum(sizes)  # bits below each token
        else:
            below = np.cumsum(sizes) - sizes
        tokens = ops.floor_divide(codes, (2**below).astype("int32"))
        tokens = ops.mod(tokens, (2**sizes).astype("int32"))
        return ops.where(codes < 0, -1, tokens)

    def entropies(self, vectors: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The two entropies of the loss, in nats, of vectors.

        Args:
            vectors: Shape `(..., bits)`.
            mask: None, or booleans of shape `(...)`, false where there is padding.

        Returns:
            A tuple of the mean entropy of a vector's choice and that of the codebook, of all
            vectors together; float32 of shape `()`.
        """
        vectors = ops.convert_to_tensor(vectors, dtype="float32")
        return self._entropies(*self._rows(self.on_surface(vectors), mask))

    def _entropies(self, rows, weights):
        logits = ops.multiply(rows, self._logit_scale)
        return bit_entropies(logits, weights, self._entropy_bits, self.logarithm)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "bits": self.bits,
            "first_channel": self.first_channel,
            "factorized_bits": self.factorized_bits,
        }
