from typing import Any

import keras
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Config, Shape, Tensor, TensorTree
from keras_vqvae2.layers.causal_self_attention import MASKED, dense, dense_weights
from keras_vqvae2.layers.initializers import small_normal
from keras_vqvae2.layers.rotary_embedding_2d import RotaryEmbedding2D, rotate

EPSILON = 1e-5  # of the norms (LlamaGen)


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class SelfAttention(keras.layers.Layer):
    """Multi-head attention of the tokens of a sequence to each other.

    ```
    q, k, v = W_q x, W_k x, W_v x      turned by their positions, if there are any
    y_i     = W_o sum over j of softmax_j(q_i . k_j / sqrt(d)) v_j,   j <= i if causal
    ```

    `keras.ops.dot_product_attention` takes the backend's fused kernel where there is one. Queries
    are scaled before the product, which float16 could not hold otherwise.

    Args:
        num_heads: Positive integer; it divides the channels.
        causal: Whether a token sees only itself and the tokens before it.
        qk_norm: Whether queries and keys are normalised (RMS, a learned scale a channel).
        use_bias: Whether the projections have biases.
        rope_base: Positive float, of `RotaryEmbedding2D`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Tensor of shape `(batch, length, channels)`.
        positions: None, or integers of shape `(length, 2)`, as `RotaryEmbedding2D` takes them.

    Returns:
        Tensor of the inputs' shape.

    Raises:
        ValueError: If the heads do not divide the channels.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    attention = keras_vqvae2.layers.SelfAttention(num_heads=2, causal=True)
    print(attention(np.ones((1, 5, 16), "float32")).shape)  # (1, 5, 16)
    ```

    Reference:
        - Vaswani et al. 2017, "Attention Is All You Need", arXiv 1706.03762, section 3.2.
        - Norm of queries and keys: Henry et al. 2020, arXiv 2010.04245.
    """

    def __init__(
        self,
        num_heads: int,
        causal: bool = False,
        qk_norm: bool = False,
        use_bias: bool = False,
        rope_base: float = 10_000.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.causal = causal
        self.qk_norm = qk_norm
        self.use_bias = use_bias
        self.rope_base = rope_base

    def build(self, inputs_shape: Shape, positions_shape: Shape | None = None) -> None:
        units = inputs_shape[-1]
        if self.num_heads < 1 or units % self.num_heads:
            raise ValueError(
                f"Expected heads that divide the {units} channels. Received: "
                f"num_heads={self.num_heads}"
            )
        self.depth = units // self.num_heads
        for name in ("query", "key", "value", "output"):
            layer = keras.layers.Dense(
                units,
                use_bias=self.use_bias,
                kernel_initializer=small_normal(),
                dtype=self.dtype_policy,
                name=name,
            )
            layer.build(inputs_shape)
            setattr(self, f"{name}_projection", layer)
        self.norms = []
        for name in ("query_norm", "key_norm") if self.qk_norm else ():
            norm = keras.layers.RMSNormalization(
                epsilon=EPSILON, dtype=self.dtype_policy, name=name
            )
            norm.build((None, None, self.num_heads, self.depth))
            self.norms.append(norm)
        self.rotary = RotaryEmbedding2D(self.rope_base, dtype=self.dtype_policy, name="rotary")

    def call(self, inputs: Tensor, positions: Tensor | None = None) -> Tensor:
        projections = (self.query_projection, self.key_projection, self.value_projection)
        length = ops.shape(inputs)[1]  # which TensorFlow may not know before it runs
        shape = (-1, length, self.num_heads, self.depth)
        q, k, v = (ops.reshape(layer(inputs), shape) for layer in projections)  # (B, N, heads, d)
        if self.norms:
            q, k = (norm(x) for norm, x in zip(self.norms, (q, k)))
        if positions is not None:
            q, k = (self.rotary(x, positions) for x in (q, k))
        attended = backend.attention(q * self.depth**-0.5, k, v, self.causal)
        return self.output_projection(ops.reshape(attended, (-1, length, inputs.shape[2])))

    def compute_output_spec(
        self, inputs: Tensor, positions: Tensor | None = None
    ) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, self.compute_dtype)

    # === One position after the other ===

    def _cache(self, batch: int, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Keys and values of all positions, each `(batch, heads, rows, columns, d)`."""
        shape = (batch, self.num_heads, rows, columns, self.depth)
        return ops.zeros(shape, self.compute_dtype), ops.zeros(shape, self.compute_dtype)

    def _step_weights(self) -> TensorTree:
        """Query, key and value side by side."""
        return dense_weights(self.query_projection, self.key_projection, self.value_projection)

    def _start_row(self, cache: TensorTree, row: Tensor) -> tuple[TensorTree, TensorTree]:
        """Returns `(fixed, left)`: the finished rows, and empty keys and values of this row."""
        batch, heads, rows, columns, depth = cache[0].shape
        flat = (batch, heads, rows * columns, depth)
        finished = ops.arange(rows * columns) < row * columns  # (N,)
        empty = ops.zeros((batch, heads, columns, depth), self.compute_dtype)
        fixed = (ops.reshape(cache[0], flat), ops.reshape(cache[1], flat), finished)
        return fixed, (empty, empty)

    def _step(
        self,
        weights: TensorTree,
        fixed: TensorTree,
        left: TensorTree,
        column: Tensor,
        inputs: Tensor,
        table: Tensor | None,
    ) -> tuple[Tensor, TensorTree]:
        """A column's output, `(batch, channels)`, and this row's keys and values with its own.

        `table` holds the cosines and sines of the position, `(d / 2, 2)`.
        """
        batch = inputs.shape[0]
        projections = (self.query_projection, self.key_projection, self.value_projection)
        joined = dense(weights, inputs, *projections)  # (B, 3 * channels)
        joined = ops.reshape(joined, (batch, 3, self.num_heads, self.depth))
        queries_keys, value = joined[:, :2], joined[:, 2]
        if self.norms:
            normed = [norm(queries_keys[:, i]) for i, norm in enumerate(self.norms)]
            queries_keys = ops.stack(normed, axis=1)  # (B, 2, heads, d)
        if table is not None:
            queries_keys = rotate(queries_keys, table)
        query = queries_keys[:, 0] * self.depth**-0.5  # (B, heads, d)
        columns = left[0].shape[2]
        here = ops.cast(ops.arange(columns) == column, self.compute_dtype)[:, None]  # (W, 1)
        left = tuple(
            old + here * new[:, :, None] for old, new in zip(left, (queries_keys[:, 1], value))
        )  # (B, heads, W, d)
        keys, values, finished = fixed
        length = keys.shape[2]
        # XLA's CPU compiler takes matrices for these a third longer.
        scores = [ops.einsum("bhnd,bhd->bhn", k, query) for k in (keys, left[0])]
        visible = ops.concatenate([finished, ops.arange(columns) <= column])  # (N + W,)
        scores = ops.cast(ops.concatenate(scores, axis=-1), "float32")
        weight = ops.softmax(ops.where(visible, scores, MASKED), axis=-1)
        weight = ops.cast(weight, values.dtype)  # (B, heads, N + W)
        parts = ((weight[..., :length], values), (weight[..., length:], left[1]))
        attended = sum(ops.einsum("bhn,bhnd->bhd", w, v) for w, v in parts)  # (B, heads, d)
        return self.output_projection(ops.reshape(attended, (batch, -1))), left

    def _finish_row(self, cache: TensorTree, left: TensorTree, row: Tensor) -> TensorTree:
        """The cache with the keys and values of a finished row."""
        here = (ops.arange(cache[0].shape[2]) == row)[:, None, None]  # (H, 1, 1)
        return tuple(ops.where(here, new[:, :, None], old) for old, new in zip(cache, left))

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "causal": self.causal,
            "qk_norm": self.qk_norm,
            "use_bias": self.use_bias,
            "rope_base": self.rope_base,
        }
