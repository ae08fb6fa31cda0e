from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Config, Shape, Tensor, TensorTree
from keras_vqvae2.layers.causal_self_attention import dense, dense_weights
from keras_vqvae2.layers.initializers import small_normal
from keras_vqvae2.validation import check_positive


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class SwiGLU(keras.layers.Layer):
    """The feed-forward part of a transformer block, gated: `W_down (silu(W_gate x) * W_up x)`.

    Args:
        units: Positive integer, width of the gate.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Tensor of shape `(..., channels)`.

    Returns:
        Tensor of the inputs' shape.

    Raises:
        ValueError: If `units` is not a positive integer.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    print(keras_vqvae2.layers.SwiGLU(32)(np.ones((1, 4, 8), "float32")).shape)  # (1, 4, 8)
    ```

    Reference:
        - Shazeer 2020, "GLU Variants Improve Transformer", arXiv 2002.05202.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_positive(units=units)
        self.units = units

    def build(self, input_shape: Shape) -> None:
        for name, units in (("gate", self.units), ("up", self.units), ("down", input_shape[-1])):
            layer = keras.layers.Dense(
                units,
                use_bias=False,
                kernel_initializer=small_normal(),
                dtype=self.dtype_policy,
                name=name,
            )
            layer.build((*input_shape[:-1], self.units if name == "down" else input_shape[-1]))
            setattr(self, name, layer)

    def call(self, inputs: Tensor) -> Tensor:
        return self.down(ops.silu(self.gate(inputs)) * self.up(inputs))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    # === One position after the other ===

    def _step_weights(self) -> TensorTree:
        """Gate and up side by side."""
        return dense_weights(self.gate, self.up)

    def _point(self, weights: TensorTree, inputs: Tensor) -> Tensor:
        """What `call` computes, of shape `(batch, channels)`."""
        both = dense(weights, inputs, self.gate, self.up)  # (B, 2 * units)
        return self.down(ops.silu(both[:, : self.units]) * both[:, self.units :])

    def get_config(self) -> Config:
        return {**super().get_config(), "units": self.units}
