from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Config, Shape, Size, Tensor, TensorTree
from keras_vqvae2.layers import CausalSelfAttention, GatedResidualBlock, MaskedConv2D
from keras_vqvae2.layers.dropout import DrawnSeed


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class CausalBlock(keras.layers.Layer):
    """Gated residual blocks, and what gathers their result: attention, or a 1x1 convolution.

    ```
    y   = residual blocks (x)
    key = block_1x1([raw, y, background])      query = block_1x1([y, background])
    out = block_1x1(y, auxiliary=attention(query, key))          with attention
    out = conv_1x1([y, background])                              without
    ```

    Args:
        residual_units: Inner channels of the residual blocks.
        num_layers: Residual blocks.
        kernel_size: Of the residual blocks.
        mask_type: Of the residual blocks, `"B"` or `"A"`.
        attention_heads: 0 for a block without attention.
        attention_units: Channels of the attention.
        dropout: Of residual blocks and attention weights.
        num_classes: As in `GatedResidualBlock`.
        gradient_checkpointing: Whether to compute the block again for its gradient, in place of
            keeping what is inside it.
    """

    def __init__(
        self,
        residual_units: int,
        num_layers: int,
        kernel_size: Size,
        mask_type: str = "B",
        attention_heads: int = 8,
        attention_units: int = 0,
        dropout: float = 0.0,
        num_classes: int | None = None,
        gradient_checkpointing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.residual_units = residual_units
        self.num_layers = num_layers
        self.kernel_size = kernel_size
        self.mask_type = mask_type
        self.attention_heads = attention_heads
        self.attention_units = attention_units
        self.dropout = dropout
        self.num_classes = num_classes
        self.gradient_checkpointing = gradient_checkpointing
        self.seed_generator = keras.random.SeedGenerator()

    def build(
        self,
        inputs_shape: Shape,
        raw_shape: Shape,
        background_shape: Shape,
        condition_shape: Shape | None = None,
        labels_shape: Shape | None = None,
    ) -> None:
        channels = inputs_shape[-1]
        self.layers = [
            GatedResidualBlock(
                self.residual_units,
                self.kernel_size,
                self.mask_type,
                self.dropout,
                self.num_classes,
                dtype=self.dtype_policy,
                name=f"layer_{i}",
            )
            for i in range(self.num_layers)
        ]
        for layer in self.layers:
            layer.build(inputs_shape, condition_shape=condition_shape, labels_shape=labels_shape)
        query_shape = (*inputs_shape[:-1], channels + background_shape[-1])
        if not self.attention_heads:
            self.gather = MaskedConv2D(
                channels, 1, mask_type=None, dtype=self.dtype_policy, name="gather"
            )
            self.gather.build(query_shape)
            return
        key_shape = (*inputs_shape[:-1], channels + raw_shape[-1] + background_shape[-1])
        self.key_block, self.query_block, self.out_block = (
            GatedResidualBlock(
                channels, dropout=self.dropout, dtype=self.dtype_policy, name=f"{name}_block"
            )
            for name in ("key", "query", "out")
        )
        self.attention = CausalSelfAttention(
            self.attention_units,
            self.attention_heads,
            self.dropout,
            dtype=self.dtype_policy,
            name="attention",
        )
        self.key_block.build(key_shape)
        self.query_block.build(query_shape)
        self.attention.build(query_shape, key_shape)
        self.out_block.build(inputs_shape, (*inputs_shape[:-1], self.attention_units))

    def call(
        self,
        inputs: Tensor,
        raw: Tensor,
        background: Tensor,
        condition: Tensor | None = None,
        labels: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        optional = [x for x in (condition, labels) if x is not None]

        def compute(inputs, raw, background, *optional, seeds=None):
            rest = list(optional)
            return self._compute(
                inputs,
                raw,
                background,
                rest.pop(0) if condition is not None else None,
                rest.pop(0) if labels is not None else None,
                training,
                seeds,
            )

        if not (training and self.gradient_checkpointing):
            return compute(inputs, raw, background, *optional)
        # Drawn outside, so that computing again drops the same units.
        count = self.num_layers + (4 if self.attention_heads else 0)
        seeds = [DrawnSeed(self.seed_generator) for _ in range(count if self.dropout else 0)]

        def again(*tensors):
            return compute(*tensors, seeds=seeds)

        return keras.remat(again)(inputs, raw, background, *optional)

    def _compute(self, inputs, raw, background, condition, labels, training, seeds):
        seeds = iter(seeds or ())
        x = inputs
        for layer in self.layers:
            x = layer(
                x,
                condition=condition,
                labels=labels,
                training=training,
                seed=next(seeds, None),
            )
        query = ops.concatenate([x, background], axis=-1)
        if not self.attention_heads:
            return self.gather(query)
        key = ops.concatenate([raw, x, background], axis=-1)
        key = self.key_block(key, training=training, seed=next(seeds, None))
        query = self.query_block(query, training=training, seed=next(seeds, None))
        attended = self.attention(query, key, training=training, seed=next(seeds, None))
        return self.out_block(x, attended, training=training, seed=next(seeds, None))

    def compute_output_spec(self, inputs: Tensor, *args: Any, **kwargs: Any) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, self.compute_dtype)

    # === One position after the other ===

    def _cache(self, batch: int, rows: int, columns: int, channels: int) -> TensorTree:
        """The state before the first row."""
        layers = [layer._cache(batch, columns, channels) for layer in self.layers]
        return {
            "layers": layers,
            "attention": self.attention._cache(batch, rows, columns)
            if self.attention_heads
            else (),
        }

    def _step_weights(self) -> TensorTree:
        """The weights of the parts, for `_start_row`, `_step` and `_remember`."""
        weights = {"layers": [layer._step_weights() for layer in self.layers]}
        names = ("key_block", "query_block", "attention", "out_block")
        for name in names if self.attention_heads else ("gather",):
            weights[name] = getattr(self, name)._step_weights()
        return weights

    def _start_row(
        self,
        weights: TensorTree,
        cache: TensorTree,
        row: Tensor,
        condition: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> tuple[TensorTree, TensorTree, TensorTree]:
        """Prepares a row.

        Args:
            weights: What `_step_weights` returned.
            cache: The state after the rows before.
            row: int32 of shape `()`.
            condition: None, or the row's conditions, shape `(batch, columns, units)`.
            labels: None, or int32 of shape `(batch,)`.

        Returns:
            A tuple `(fixed, columns, left)`: what stays through the row, what each column adds
            (shapes `(batch, columns, …)`), and the state before the first column.
        """
        started = [
            layer._start_row(layer_weights, layer_cache, condition, labels)
            for layer, layer_weights, layer_cache in zip(
                self.layers, weights["layers"], cache["layers"]
            )
        ]
        columns, left = ([part[i] for part in started] for i in range(2))
        fixed = empty = ()
        if self.attention_heads:
            fixed, empty = self.attention._start_row(cache["attention"], row)
        return fixed, columns, {"layers": left, "attention": empty}

    def _step(
        self,
        weights: TensorTree,
        fixed: TensorTree,
        columns: TensorTree,
        left: TensorTree,
        column: Tensor,
        inputs: Tensor,
        background: Tensor,
    ) -> tuple[Tensor, Tensor, TensorTree, TensorTree]:
        """Advances by one column, all tensors of shape `(batch, …)`.

        Returns:
            A tuple `(outputs, features, left, to_cache)`; `features` are what `_remember` takes.
        """
        x, lefts, to_cache = inputs, [], []
        parts = zip(self.layers, weights["layers"], columns, left["layers"])
        for layer, layer_weights, column_of_layer, layer_left in parts:
            x, layer_left, layer_cache = layer._step(layer_weights, column_of_layer, layer_left, x)
            lefts.append(layer_left)
            to_cache.append(layer_cache)
        memory = left["attention"]
        left = {"layers": lefts, "attention": memory}
        query = ops.concatenate([x, background], axis=-1)  # (B, C + 2)
        if not self.attention_heads:
            gather = weights["gather"]
            return ops.matmul(query, gather["row"]) + gather["bias"], x, left, to_cache
        query = self.query_block._point(weights["query_block"], query)
        attended = self.attention._step(weights["attention"], fixed, memory, column, query)
        return self.out_block._point(weights["out_block"], x, attended), x, left, to_cache

    def _remember(
        self,
        weights: TensorTree,
        left: TensorTree,
        column: Tensor,
        raw: Tensor,
        features: Tensor,
        background: Tensor,
    ) -> TensorTree:
        """Makes a column visible to the attention of the columns after it."""
        if not self.attention_heads:
            return left
        key = ops.concatenate([raw, features, background], axis=-1)  # (B, raw + C + 2)
        key = self.key_block._point(weights["key_block"], key)
        memory = self.attention._remember(weights["attention"], left["attention"], column, key)
        return {**left, "attention": memory}

    def _finish_row(
        self, cache: TensorTree, left: TensorTree, to_cache: TensorTree, row: Tensor
    ) -> TensorTree:
        """The cache after a row whose convolutions had the inputs `to_cache`, `(B, W, C)`."""
        layers = [
            tuple(shift_in(old, new) for old, new in zip(layer_cache, new_rows))
            for layer_cache, new_rows in zip(cache["layers"], to_cache)
        ]
        attention = ()
        if self.attention_heads:
            attention = self.attention._finish_row(cache["attention"], left["attention"], row)
        return {"layers": layers, "attention": attention}

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "residual_units": self.residual_units,
            "num_layers": self.num_layers,
            "kernel_size": self.kernel_size,
            "mask_type": self.mask_type,
            "attention_heads": self.attention_heads,
            "attention_units": self.attention_units,
            "dropout": self.dropout,
            "num_classes": self.num_classes,
            "gradient_checkpointing": self.gradient_checkpointing,
        }


def shift_in(rows: Tensor, new: Tensor) -> Tensor:
    """Drops the oldest of the rows and adds a new one. `(B, R, W, …)` and `(B, W, …)`."""
    if rows.shape[1] == 0:
        return rows
    return ops.concatenate([rows[:, 1:], new[:, None]], axis=1)
