from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Config, Shape, Tensor, TensorTree
from keras_vqvae2.layers.dropout import DrawnSeed, dropout

MASKED = -1e9


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class CausalSelfAttention(keras.layers.Layer):
    """Multi-head attention of each position to all strictly earlier ones in raster order.

    ```
    q, k, v = W_q query, W_k source, W_v source
    y_p     = sum over j < p of softmax_j(q_p . k_j / sqrt(units / num_heads)) v_j,   y_0 = 0
    ```

    The scores of `query_chunk` positions are in memory at a time; in training they are computed
    again for the gradient. Queries are scaled before the product, which float16 could not hold
    otherwise; the softmax is float32.

    Args:
        units: Positive integer, channels of the output; `num_heads` divides it.
        num_heads: Positive integer. Defaults to 8 (paper).
        dropout: Float in `[0, 1)`, on the attention weights.
        query_chunk: Positive integer, positions at a time.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        query: Tensor of shape `(batch, rows, columns, channels)`.
        source: Tensor with the same rows and columns, for keys and values. It may hold what is at
            the position itself: only later positions see it.

    Returns:
        Tensor of shape `(batch, rows, columns, units)`.

    Raises:
        ValueError: If `num_heads` does not divide `units`.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    attention = keras_vqvae2.layers.CausalSelfAttention(units=32, num_heads=4)
    x = np.ones((1, 8, 8, 16), "float32")
    print(attention(x, x).shape)  # (1, 8, 8, 32)
    ```

    Reference:
        - Chen et al. 2018, "PixelSNAIL", arXiv 1712.09763, section 2.
    """

    def __init__(
        self,
        units: int,
        num_heads: int = 8,
        dropout: float = 0.0,
        query_chunk: int = 512,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if units < 1 or num_heads < 1 or units % num_heads:
            raise ValueError(
                f"Expected units that the heads divide. Received: units={units}, "
                f"num_heads={num_heads}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"Expected a number in [0, 1). Received: dropout={dropout}")
        self.units = units
        self.num_heads = num_heads
        self.dropout = dropout
        self.query_chunk = query_chunk
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, query_shape: Shape, source_shape: Shape) -> None:
        for name, shape in (
            ("query", query_shape),
            ("key", source_shape),
            ("value", source_shape),
        ):
            projection = keras.layers.Dense(self.units, dtype=self.dtype_policy, name=name)
            projection.build(shape)
            setattr(self, f"{name}_projection", projection)

    def call(
        self,
        query: Tensor,
        source: Tensor,
        training: bool | None = None,
        seed: keras.random.SeedGenerator | None = None,
    ) -> Tensor:
        rows, columns = query.shape[1:3]
        length = rows * columns
        queries = self._scaled(self.query_projection(query))
        queries = self._heads(queries, length)  # (B, heads, N, d)
        keys = self._heads(self.key_projection(source), length)
        values = self._heads(self.value_projection(source), length)
        outputs = []
        for start in range(0, length, self.query_chunk):
            stop = min(start + self.query_chunk, length)
            # Drawn outside, so that computing again drops the same weights.
            drop = DrawnSeed(seed or self.seed_generator) if training and self.dropout else None

            def attend(queries, keys, values, start=start, drop=drop):
                return self._attend(queries, keys, values, start, drop)

            attend = keras.remat(attend) if training else attend
            outputs.append(
                attend(queries[:, :, start:stop], keys[:, :, :stop], values[:, :, :stop])
            )
        output = ops.transpose(ops.concatenate(outputs, axis=2), (0, 2, 1, 3))  # (B, N, heads, d)
        return ops.reshape(output, (-1, rows, columns, self.units))

    def _scaled(self, queries):
        return queries * (self.units // self.num_heads) ** -0.5

    def _heads(self, x, length):
        x = ops.reshape(x, (-1, length, self.num_heads, self.units // self.num_heads))
        return ops.transpose(x, (0, 2, 1, 3))  # (B, heads, N, d)

    def _attend(self, queries, keys, values, start, drop):
        """Attention of the positions from `start` on to the first `keys.shape[2]`."""
        scores = ops.matmul(queries, ops.transpose(keys, (0, 1, 3, 2)))  # (B, heads, chunk, keys)
        position = start + ops.arange(queries.shape[2])[:, None]  # (chunk, 1)
        earlier = ops.arange(keys.shape[2])[None] < position  # (chunk, keys)
        weights = self._weights(scores, earlier, position > 0)
        if drop is not None:
            weights = dropout(weights, self.dropout, drop)
        return ops.matmul(ops.cast(weights, values.dtype), values)  # (B, heads, chunk, d)

    def _weights(self, scores, visible, any_visible):
        """Softmax over what is visible; where nothing is, zeros and not the mean of all."""
        scores = ops.where(visible, ops.cast(scores, "float32"), MASKED)
        return ops.softmax(scores, axis=-1) * ops.cast(any_visible, "float32")

    def compute_output_spec(
        self, query: Tensor, source: Tensor, **kwargs: Any
    ) -> keras.KerasTensor:
        return keras.KerasTensor((*query.shape[:-1], self.units), self.compute_dtype)

    # === One position after the other ===

    def _cache(self, batch: int, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Keys and values of all positions, each `(batch, heads, rows, columns, d)`."""
        shape = (batch, self.num_heads, rows, columns, self.units // self.num_heads)
        return ops.zeros(shape, self.compute_dtype), ops.zeros(shape, self.compute_dtype)

    def _step_weights(self) -> TensorTree:
        """Kernel and bias of the query, and of key and value side by side."""
        return {
            "query": dense_weights(self.query_projection),
            "key_value": dense_weights(self.key_projection, self.value_projection),
        }

    def _start_row(self, cache: TensorTree, row: Tensor) -> tuple[TensorTree, TensorTree]:
        """Returns `(fixed, left)`: the finished rows, and empty keys and values of this row."""
        batch, heads, rows, columns, width = cache[0].shape
        flat = (batch, heads, rows * columns, width)
        finished = ops.arange(rows * columns) < row * columns  # (N,)
        fixed = (ops.reshape(cache[0], flat), ops.reshape(cache[1], flat), finished)
        empty = ops.zeros((batch, heads, columns, width), self.compute_dtype)
        return fixed, (empty, empty)

    def _step(
        self,
        weights: TensorTree,
        fixed: TensorTree,
        left: TensorTree,
        column: Tensor,
        query: Tensor,
    ) -> Tensor:
        """Output of a column, shape `(batch, units)`, for its query, shape `(batch, channels)`."""
        keys, values, finished = fixed
        q = self._scaled(dense(weights["query"], query, self.query_projection))  # (B, units)
        q = ops.reshape(q, (q.shape[0], self.num_heads, -1, 1))  # (B, heads, d, 1)
        scores = [ops.matmul(k, q)[..., 0] for k in (keys, left[0])]  # (B, heads, N or W)
        in_row = ops.arange(left[0].shape[2]) < column  # (W,)
        visible = ops.concatenate([finished, in_row])
        weight = self._weights(ops.concatenate(scores, axis=-1), visible, ops.any(visible))
        weight = ops.cast(weight, values.dtype)[:, :, None]  # (B, heads, 1, N + W)
        length = keys.shape[2]
        output = ops.matmul(weight[..., :length], values) + ops.matmul(
            weight[..., length:], left[1]
        )  # (B, heads, 1, d)
        return ops.reshape(output, (q.shape[0], self.units))

    def _remember(
        self, weights: TensorTree, left: TensorTree, column: Tensor, source: Tensor
    ) -> TensorTree:
        """Adds the keys and values of a column, from its source, shape `(batch, channels)`."""
        projections = self.key_projection, self.value_projection
        new = dense(weights["key_value"], source, *projections)  # (B, 2 * units)
        new = ops.reshape(new, (new.shape[0], 2, self.num_heads, 1, -1))  # (B, 2, heads, 1, d)
        here = ops.cast(ops.arange(left[0].shape[2]) == column, self.compute_dtype)[:, None]
        return tuple(old + here * new[:, i] for i, old in enumerate(left))  # (B, heads, W, d)

    def _finish_row(self, cache: TensorTree, left: TensorTree, row: Tensor) -> TensorTree:
        """The cache with the keys and values of a finished row."""
        here = (ops.arange(cache[0].shape[2]) == row)[:, None, None]  # (H, 1, 1)
        return tuple(ops.where(here, new[:, :, None], old) for old, new in zip(cache, left))

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "units": self.units,
            "num_heads": self.num_heads,
            "dropout": self.dropout,
            "query_chunk": self.query_chunk,
        }


def dense_weights(*layers: keras.layers.Dense) -> tuple[Tensor, ...]:
    """Kernels, and biases if any, of Dense layers side by side: for `dense`, as one product.

    Of quantized layers nothing: their product is their own.
    """
    if any(layer.quantization_mode for layer in layers):
        return ()
    weights = [[layer.kernel for layer in layers]]
    if layers[0].use_bias:
        weights.append([layer.bias for layer in layers])
    return tuple(
        ops.concatenate([ops.cast(x, layers[0].compute_dtype) for x in parts], axis=-1)
        for parts in weights
    )


def dense(weights: tuple[Tensor, ...], inputs: Tensor, *layers: keras.layers.Dense) -> Tensor:
    """Outputs of Dense layers side by side; `weights` is what `dense_weights` returned of them."""
    if not weights:
        return ops.concatenate([layer(inputs) for layer in layers], axis=-1)
    kernel, *bias = weights
    outputs = ops.matmul(inputs, kernel)
    return outputs + bias[0] if bias else outputs
