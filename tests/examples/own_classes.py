"""A prior, a quantizer and a loss of a user's own, which the scripts are told of by --register."""

import keras
from keras import ops

import keras_vqvae2


@keras.saving.register_keras_serializable(package="own")
class Table(keras.layers.Layer):
    """A weight for each code at each position, `(rows, columns, num_embeddings)`."""

    def __init__(self, num_embeddings, **kwargs):
        super().__init__(**kwargs)
        self.num_embeddings = num_embeddings

    def build(self, shape):
        self.logits = self.add_weight(shape=(*shape[1:], self.num_embeddings), name="logits")

    def call(self, codes):
        return ops.cast(self.logits, "float32") + 0.0 * ops.cast(codes, "float32")[..., None]


@keras.saving.register_keras_serializable(package="own")
class PositionPrior(keras_vqvae2.CodePrior):
    """Knows how frequent each code is at its position, and nothing of the codes around."""

    def __init__(
        self,
        code_shape,
        num_embeddings=512,
        level="top",
        condition_factors=None,
        num_classes=None,
        dtype=None,
        **kwargs,
    ):
        inputs = self.code_inputs(code_shape, level, condition_factors, num_classes)
        logits = Table(num_embeddings, name="table", dtype=dtype)(inputs[level])
        arguments = (code_shape, num_embeddings, level, condition_factors, num_classes)
        super().__init__(inputs, logits, *arguments, dtype=dtype, **kwargs)

    def _draw_codes(self, sampling, inputs, uniforms):
        logits = ops.reshape(self.get_layer("table").logits, (-1, self.num_embeddings))
        drawn = [sampling.draw(logits, u.ravel(), sampling.numbers()) for u in uniforms]
        yield slice(None), ops.reshape(ops.stack(drawn), (-1, *self.code_shape))


@keras.saving.register_keras_serializable(package="own")
class SignQuantizer(keras_vqvae2.layers.Quantizer):
    """Codes are the signs of `embedding_dim` numbers, read as bits."""

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
        return {**super().get_config(), "embedding_dim": self.embedding_dim}


@keras.saving.register_keras_serializable(package="own")
class RootError(keras_vqvae2.losses.ReconstructionLoss):
    """Root of the mean squared error of each image."""

    def __call__(self, images, reconstructions):
        return ops.sqrt(ops.mean(ops.square(images - reconstructions), axis=(1, 2, 3)) + 1e-6)
