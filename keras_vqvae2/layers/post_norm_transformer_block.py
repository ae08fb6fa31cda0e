from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Config, Shape, Tensor
from keras_vqvae2.layers.dropout import DrawnSeed, dropout
from keras_vqvae2.layers.initializers import small_normal
from keras_vqvae2.layers.self_attention import SelfAttention
from keras_vqvae2.validation import check_positive, check_share

EPSILON = 1e-12  # of the norms (BERT, MaskGIT)


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class PostNormTransformerBlock(keras.layers.Layer):
    """A transformer block with its norms behind the sums, as BERT and MaskGIT have it.

    ```
    x <- layer_norm(x + dropout(attention(x)))
    x <- layer_norm(x + dropout(W_down gelu(W_up x)))          gelu by tanh
    ```

    All tokens see each other. MaskGIT drops attention weights too, which fused kernels do not.

    Args:
        num_heads: Positive integer; it divides the channels.
        feed_forward_units: Positive integer, between the two projections.
        dropout: Float in `[0, 1)`, behind both parts.
        gradient_checkpointing: Whether to compute the block again for its gradient, in place of
            keeping what is inside it.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Tensor of shape `(batch, length, channels)`.

    Returns:
        Tensor of the inputs' shape.

    Raises:
        ValueError: If a size or the dropout is out of range.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    block = keras_vqvae2.layers.PostNormTransformerBlock(num_heads=2, feed_forward_units=64)
    print(block(np.ones((1, 5, 16), "float32")).shape)  # (1, 5, 16)
    ```

    Reference:
        - Devlin et al. 2018, "BERT", arXiv 1810.04805; Chang et al. 2022, "MaskGIT",
          arXiv 2202.04200, section 4.1.
    """

    def __init__(
        self,
        num_heads: int,
        feed_forward_units: int,
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_positive(feed_forward_units=feed_forward_units)
        check_share("dropout", dropout)
        self.num_heads = num_heads
        self.feed_forward_units = feed_forward_units
        self.dropout = dropout
        self.gradient_checkpointing = gradient_checkpointing
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, inputs_shape: Shape) -> None:
        self.attention = SelfAttention(
            self.num_heads, use_bias=True, dtype=self.dtype_policy, name="attention"
        )
        self.attention.build(inputs_shape)
        for name in ("attention_norm", "feed_forward_norm"):
            norm = keras.layers.LayerNormalization(
                epsilon=EPSILON, dtype=self.dtype_policy, name=name
            )
            norm.build(inputs_shape)
            setattr(self, name, norm)
        wide = (*inputs_shape[:-1], self.feed_forward_units)
        for name, shape, units in (
            ("up", inputs_shape, self.feed_forward_units),
            ("down", wide, inputs_shape[-1]),
        ):
            layer = keras.layers.Dense(
                units, kernel_initializer=small_normal(), dtype=self.dtype_policy, name=name
            )
            layer.build(shape)
            setattr(self, name, layer)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        # Drawn outside, so that computing again drops the same units.
        drops = training and self.dropout
        seeds = [DrawnSeed(self.seed_generator) for _ in range(2 if drops else 0)]

        def dropped(x, number):
            return dropout(x, self.dropout, seeds[number]) if seeds else x

        def compute(x):
            x = self.attention_norm(x + dropped(self.attention(x), 0))
            wide = ops.gelu(self.up(x), approximate=True)
            return self.feed_forward_norm(x + dropped(self.down(wide), 1))

        compute = keras.remat(compute) if training and self.gradient_checkpointing else compute
        return compute(inputs)

    def compute_output_spec(
        self, inputs: Tensor, training: bool | None = None
    ) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, self.compute_dtype)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "feed_forward_units": self.feed_forward_units,
            "dropout": self.dropout,
            "gradient_checkpointing": self.gradient_checkpointing,
        }
