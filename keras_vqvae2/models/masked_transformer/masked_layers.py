"""The parts of `MaskedTransformerPrior` around its blocks."""

from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Config, Shape, Tensor
from keras_vqvae2.layers.dropout import dropout
from keras_vqvae2.layers.initializers import small_normal
from keras_vqvae2.layers.post_norm_transformer_block import EPSILON

PACKAGE = "keras_vqvae2"


@keras.saving.register_keras_serializable(package=PACKAGE)
class CodeTokens(keras.layers.Layer):
    """A map of codes, -1 for those that are masked, and its label as tokens of one vocabulary.

    The vocabulary is MaskGIT's: codes, labels, `[MASK]`. Codes `(batch, H, W)` and labels
    `(batch,)`, or None, to `(batch, 1 + H * W)`, or without labels `(batch, H * W)`.

    Args:
        num_embeddings: Codes.
        num_labels: Labels.
    """

    def __init__(self, num_embeddings: int, num_labels: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_embeddings = num_embeddings
        self.num_labels = num_labels
        self.built = True

    @property
    def vocabulary(self) -> int:
        return self.num_embeddings + self.num_labels + 1

    def call(self, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        tokens = ops.reshape(codes, (-1, codes.shape[1] * codes.shape[2]))  # (B, N)
        tokens = ops.where(tokens < 0, self.vocabulary - 1, tokens)
        if labels is None:
            return tokens
        return ops.concatenate([labels[:, None] + self.num_embeddings, tokens], axis=1)

    def compute_output_spec(self, codes: Tensor, labels: Tensor | None = None) -> keras.KerasTensor:
        length = codes.shape[1] * codes.shape[2] + (labels is not None)
        return keras.KerasTensor((codes.shape[0], length), "int32")

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_embeddings": self.num_embeddings,
            "num_labels": self.num_labels,
        }


@keras.saving.register_keras_serializable(package=PACKAGE)
class SequenceStart(keras.layers.Layer):
    """What is added to embedded tokens before the first block.

    Tokens `(batch, length, units)` and features of coarser levels `(batch, H, W, units)`, or None,
    which the last `H * W` tokens get.

    Args:
        absolute_positions: Whether each token has a learned vector.
        layer_norm: Whether the sum is normalised, as in BERT.
        dropout: Of the tokens.
    """

    def __init__(
        self,
        absolute_positions: bool = False,
        layer_norm: bool = False,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.absolute_positions = absolute_positions
        self.layer_norm = layer_norm
        self.dropout = dropout
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, inputs_shape: Shape, condition_shape: Shape | None = None) -> None:
        if self.absolute_positions:
            self.positions = self.add_weight(
                shape=inputs_shape[1:], initializer=small_normal(), name="positions"
            )
        if self.layer_norm:
            self.norm = keras.layers.LayerNormalization(
                epsilon=EPSILON, dtype=self.dtype_policy, name="norm"
            )
            self.norm.build(inputs_shape)

    def call(
        self, inputs: Tensor, condition: Tensor | None = None, training: bool | None = None
    ) -> Tensor:
        x, (length, units) = inputs, inputs.shape[1:]
        if condition is not None:
            count = condition.shape[1] * condition.shape[2]
            condition = ops.reshape(condition, (-1, count, units))
            x = x + ops.pad(condition, ((0, 0), (length - count, 0), (0, 0)))
        if self.absolute_positions:
            x = x + ops.convert_to_tensor(self.positions, x.dtype)
        if self.layer_norm:
            x = self.norm(x)
        return dropout(x, self.dropout, self.seed_generator) if training and self.dropout else x

    def compute_output_spec(self, inputs: Tensor, *args: Any, **kwargs: Any) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, self.compute_dtype)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "absolute_positions": self.absolute_positions,
            "layer_norm": self.layer_norm,
            "dropout": self.dropout,
        }


@keras.saving.register_keras_serializable(package=PACKAGE)
class Bias(keras.layers.Layer):
    """Adds a learned vector, in float32: of MaskGIT's tied logits."""

    def build(self, inputs_shape: Shape) -> None:
        self.bias = self.add_weight(
            shape=inputs_shape[-1:], initializer="zeros", name="bias", autocast=False
        )

    def call(self, inputs: Tensor) -> Tensor:
        return ops.cast(inputs, "float32") + self.bias

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, "float32")
