"""What stands before the blocks of both transformer priors."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2.hints import Config, Shape, Size, Tensor
from keras_vqvae2.layers import TransformerBlock
from keras_vqvae2.layers.dropout import dropout
from keras_vqvae2.layers.initializers import small_normal
from keras_vqvae2.layers.self_attention import EPSILON
from keras_vqvae2.validation import both_axes

PACKAGE = "keras_vqvae2"


def grid(map_shape: Sequence[int], tokens_before: int = 0) -> np.ndarray:
    """Row and column of each token, int32 of shape `(length, 2)`: `(-1, -1)` outside of the map."""
    inside = np.argwhere(np.ones(map_shape))
    return np.concatenate([np.full((tokens_before, 2), -1), inside]).astype("int32")


@keras.saving.register_keras_serializable(package=PACKAGE)
class CodeSequence(keras.layers.Layer):
    """The tokens that predict the codes of a map: the label, then all codes but the last.

    Codes `(batch, H, W)`, labels `(batch,)` or None, and features of the coarser levels
    `(batch, H, W, units)` or None to `(batch, H * W, units)`. Token `i` predicts code `i`, so the
    features at position `i` are added to it, and with `absolute_positions` its own vector.

    Args:
        units: Channels.
        num_embeddings: Codes.
        num_labels: Labels; 1 if there are no classes.
        absolute_positions: Whether each position has a learned vector.
        dropout: Of the tokens.
    """

    def __init__(
        self,
        units: int,
        num_embeddings: int,
        num_labels: int = 1,
        absolute_positions: bool = False,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.num_embeddings = num_embeddings
        self.num_labels = num_labels
        self.absolute_positions = absolute_positions
        self.dropout = dropout
        self.seed_generator = keras.random.SeedGenerator()

    def build(
        self,
        codes_shape: Shape,
        labels_shape: Shape | None = None,
        condition_shape: Shape | None = None,
    ) -> None:
        self.length = codes_shape[1] * codes_shape[2]
        self.codes, self.labels = (
            keras.layers.Embedding(
                count, self.units, small_normal(), dtype=self.dtype_policy, name=name
            )
            for name, count in (("codes", self.num_embeddings), ("labels", self.num_labels))
        )
        self.codes.build()
        self.labels.build()
        if self.absolute_positions:
            self.positions = self.add_weight(
                shape=(self.length, self.units), initializer=small_normal(), name="positions"
            )

    def call(
        self,
        codes: Tensor,
        labels: Tensor | None = None,
        condition: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        codes = ops.reshape(codes, (-1, self.length))  # (B, N)
        start = self._start(labels, codes[:, 0])[:, None]  # (B, 1, units)
        x = ops.concatenate([start, self.codes(codes[:, :-1])], axis=1)  # (B, N, units)
        if condition is not None:
            x = x + ops.reshape(condition, (-1, self.length, self.units))
        if self.absolute_positions:
            x = x + ops.convert_to_tensor(self.positions, x.dtype)
        if training and self.dropout:
            x = dropout(x, self.dropout, self.seed_generator)
        return x

    def compute_output_spec(self, codes: Tensor, *args: Any, **kwargs: Any) -> keras.KerasTensor:
        return keras.KerasTensor((codes.shape[0], self.length, self.units), self.compute_dtype)

    def _start(self, labels: Tensor | None, like: Tensor) -> Tensor:
        """The first token, `(batch, units)`; `like` are any integers of shape `(batch,)`."""
        return self.labels(ops.zeros_like(like) if labels is None else labels)

    def _step(self, index: Tensor, start: Tensor, code: Tensor, condition: Tensor | None) -> Tensor:
        """Token `index`, `(batch, units)`: the first, or the code before it."""
        x = ops.where(index == 0, start, self.codes(ops.maximum(code, 0)))
        if condition is not None:
            x = x + condition
        if self.absolute_positions:
            x = x + ops.take(ops.convert_to_tensor(self.positions, x.dtype), index, axis=0)
        return x

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "units": self.units,
            "num_embeddings": self.num_embeddings,
            "num_labels": self.num_labels,
            "absolute_positions": self.absolute_positions,
            "dropout": self.dropout,
        }


@keras.saving.register_keras_serializable(package=PACKAGE)
class CodeConditioner(keras.layers.Layer):
    """A coarser level's codes as features at the size of the level that is modelled.

    An embedding, transformer blocks in which all positions see each other (the map is known), and a
    projection for each of the `factor * factor` positions that a coarser one covers:
    `(batch, rows, columns)` to `(batch, factor * rows, factor * columns, units)`, or a factor for
    each axis.

    Args:
        units: Channels.
        num_embeddings: Codes of the coarser level.
        untold: Whether a code of -1, "not told", has a row of its own.
        factor: How many times smaller its map is: an integer, or one for each axis.
        num_blocks: Transformer blocks.
        num_heads: As in `TransformerBlock`, as are those that follow.
        feed_forward_units: As in `TransformerBlock`.
        qk_norm: As in `TransformerBlock`.
        rope_base: As in `TransformerBlock`.
        dropout: As in `TransformerBlock`.
        gradient_checkpointing: As in `TransformerBlock`.
    """

    def __init__(
        self,
        units: int,
        num_embeddings: int,
        factor: Size,
        num_blocks: int,
        num_heads: int,
        feed_forward_units: int,
        qk_norm: bool = False,
        rope_base: float = 10_000.0,
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
        untold: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.num_embeddings = num_embeddings
        self.untold = untold
        self.factor = factor
        self.num_blocks = num_blocks
        self.num_heads = num_heads
        self.feed_forward_units = feed_forward_units
        self.qk_norm = qk_norm
        self.rope_base = rope_base
        self.dropout = dropout
        self.gradient_checkpointing = gradient_checkpointing

    def build(self, codes_shape: Shape) -> None:
        self.map_shape = tuple(codes_shape[1:])
        shape = (None, self.map_shape[0] * self.map_shape[1], self.units)
        self.codes = keras.layers.Embedding(
            self.num_embeddings + self.untold,
            self.units,
            small_normal(),
            dtype=self.dtype_policy,
            name="codes",
        )
        self.codes.build()
        self.blocks = [
            TransformerBlock(
                self.num_heads,
                self.feed_forward_units,
                qk_norm=self.qk_norm,
                rope_base=self.rope_base,
                dropout=self.dropout,
                gradient_checkpointing=self.gradient_checkpointing,
                dtype=self.dtype_policy,
                name=f"block_{i}",
            )
            for i in range(self.num_blocks)
        ]
        for block in self.blocks:
            block.build(shape)
        self.norm = keras.layers.RMSNormalization(
            epsilon=EPSILON, dtype=self.dtype_policy, name="norm"
        )
        self.norm.build(shape)
        self.upsampler = keras.layers.Dense(
            math.prod(both_axes(self.factor)) * self.units,
            use_bias=False,
            kernel_initializer=small_normal(),
            dtype=self.dtype_policy,
            name="upsampler",
        )
        self.upsampler.build(shape)

    def call(self, codes: Tensor, training: bool | None = None) -> Tensor:
        (rows, columns), (f, g) = self.map_shape, both_axes(self.factor)
        if self.untold:
            codes = ops.where(codes < 0, self.num_embeddings, codes)
        x = self.codes(ops.reshape(codes, (-1, rows * columns)))  # (B, h*w, units)
        for block in self.blocks:
            x = block(x, grid(self.map_shape), training=training)
        x = self.upsampler(self.norm(x))
        x = ops.reshape(x, (-1, rows, columns, f, g, self.units))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))  # (B, h, f, w, g, units)
        return ops.reshape(x, (-1, f * rows, g * columns, self.units))

    def compute_output_spec(self, codes: Tensor, training: bool | None = None) -> keras.KerasTensor:
        factors = both_axes(self.factor)
        size = tuple(f * n for f, n in zip(factors, codes.shape[1:], strict=True))
        return keras.KerasTensor((codes.shape[0], *size, self.units), self.compute_dtype)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "units": self.units,
            "num_embeddings": self.num_embeddings,
            "factor": self.factor,
            "num_blocks": self.num_blocks,
            "num_heads": self.num_heads,
            "feed_forward_units": self.feed_forward_units,
            "qk_norm": self.qk_norm,
            "rope_base": self.rope_base,
            "dropout": self.dropout,
            "gradient_checkpointing": self.gradient_checkpointing,
            "untold": self.untold,
        }


def condition_map(
    conditioners: Mapping[str, CodeConditioner], codes: Mapping[str, Tensor]
) -> Tensor | None:
    """The sum of the features of all coarser levels, `(batch, H, W, units)`; None without any."""
    maps = [layer(codes[name]) for name, layer in conditioners.items()]
    return functools.reduce(ops.add, maps) if maps else None
