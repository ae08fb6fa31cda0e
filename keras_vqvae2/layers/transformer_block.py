from typing import Any

import keras

from keras_vqvae2.hints import Config, Shape, Tensor, TensorTree
from keras_vqvae2.layers.dropout import DrawnSeed, dropout
from keras_vqvae2.layers.self_attention import EPSILON, SelfAttention
from keras_vqvae2.layers.swiglu import SwiGLU
from keras_vqvae2.validation import check_share


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class TransformerBlock(keras.layers.Layer):
    """A transformer block with its norms before its parts, as LLaMA and LlamaGen have it.

    ```
    x <- x + dropout(attention(rms_norm(x)))
    x <- x + dropout(swiglu(rms_norm(x)))
    ```

    Args:
        num_heads: Positive integer; it divides the channels.
        feed_forward_units: Positive integer, width of the `SwiGLU`.
        causal: Whether a token sees only itself and the tokens before it.
        qk_norm: Whether queries and keys are normalised.
        rope_base: Positive float, of `RotaryEmbedding2D`.
        dropout: Float in `[0, 1)`, behind both parts.
        gradient_checkpointing: Whether to compute the block again for its gradient, in place of
            keeping what is inside it.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Tensor of shape `(batch, length, channels)`.
        positions: None, or integers of shape `(length, 2)`, row and column of each token;
            `(-1, -1)` for one outside of the map.

    Returns:
        Tensor of the inputs' shape.

    Raises:
        ValueError: If a size or the dropout is out of range.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    block = keras_vqvae2.layers.TransformerBlock(num_heads=2, feed_forward_units=48, causal=True)
    x = np.ones((1, 4, 16), "float32")
    print(block(x, np.array([(-1, -1), (0, 0), (0, 1), (1, 0)])).shape)  # (1, 4, 16)
    ```

    Reference:
        - Sun et al. 2024, "Autoregressive Model Beats Diffusion: Llama for Scalable Image
          Generation", arXiv 2406.06525, section 3.2.
    """

    def __init__(
        self,
        num_heads: int,
        feed_forward_units: int,
        causal: bool = False,
        qk_norm: bool = False,
        rope_base: float = 10_000.0,
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_share("dropout", dropout)
        self.num_heads = num_heads
        self.feed_forward_units = feed_forward_units
        self.causal = causal
        self.qk_norm = qk_norm
        self.rope_base = rope_base
        self.dropout = dropout
        self.gradient_checkpointing = gradient_checkpointing
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, inputs_shape: Shape, positions_shape: Shape | None = None) -> None:
        self.attention = SelfAttention(
            self.num_heads,
            self.causal,
            self.qk_norm,
            rope_base=self.rope_base,
            dtype=self.dtype_policy,
            name="attention",
        )
        self.feed_forward = SwiGLU(
            self.feed_forward_units, dtype=self.dtype_policy, name="feed_forward"
        )
        self.attention_norm, self.feed_forward_norm = (
            keras.layers.RMSNormalization(epsilon=EPSILON, dtype=self.dtype_policy, name=name)
            for name in ("attention_norm", "feed_forward_norm")
        )
        parts = (self.attention_norm, self.attention, self.feed_forward_norm, self.feed_forward)
        for part in parts:
            part.build(inputs_shape)

    def call(
        self, inputs: Tensor, positions: Tensor | None = None, training: bool | None = None
    ) -> Tensor:
        # Drawn outside, so that computing again drops the same units.
        drops = training and self.dropout
        seeds = [DrawnSeed(self.seed_generator) for _ in range(2 if drops else 0)]

        def dropped(x, number):
            return dropout(x, self.dropout, seeds[number]) if seeds else x

        def compute(x):
            x = x + dropped(self.attention(self.attention_norm(x), positions), 0)
            return x + dropped(self.feed_forward(self.feed_forward_norm(x)), 1)

        compute = keras.remat(compute) if training and self.gradient_checkpointing else compute
        return compute(inputs)

    def compute_output_spec(self, inputs: Tensor, *args: Any, **kwargs: Any) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, self.compute_dtype)

    # === One position after the other ===

    def _cache(self, batch: int, rows: int, columns: int) -> TensorTree:
        """The state before the first row."""
        return self.attention._cache(batch, rows, columns)

    def _step_weights(self) -> TensorTree:
        """The weights of the parts, for `_step`."""
        return {
            "attention": self.attention._step_weights(),
            "feed_forward": self.feed_forward._step_weights(),
        }

    def _start_row(self, cache: TensorTree, row: Tensor) -> tuple[TensorTree, TensorTree]:
        """Returns `(fixed, left)`, as the attention's."""
        return self.attention._start_row(cache, row)

    def _step(
        self,
        weights: TensorTree,
        fixed: TensorTree,
        left: TensorTree,
        column: Tensor,
        inputs: Tensor,
        table: Tensor | None,
    ) -> tuple[Tensor, TensorTree]:
        """What `call` computes of a column, `(batch, channels)`, and what the row remembers."""
        attended, left = self.attention._step(
            weights["attention"], fixed, left, column, self.attention_norm(inputs), table
        )
        x = inputs + attended
        point = self.feed_forward._point(weights["feed_forward"], self.feed_forward_norm(x))
        return x + point, left

    def _finish_row(self, cache: TensorTree, left: TensorTree, row: Tensor) -> TensorTree:
        """The state after a row."""
        return self.attention._finish_row(cache, left, row)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "feed_forward_units": self.feed_forward_units,
            "causal": self.causal,
            "qk_norm": self.qk_norm,
            "rope_base": self.rope_base,
            "dropout": self.dropout,
            "gradient_checkpointing": self.gradient_checkpointing,
        }
