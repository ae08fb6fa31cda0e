from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class RotaryEmbedding2D(keras.layers.Layer):
    """Turns the channels of queries and keys by where they stand in a map.

    ```
    pairs (x_2i, x_2i+1), i < d/2, turn by  row * base^(-4i/d)             for i < d/4
                                            column * base^(-4(i - d/4)/d)  for the others
    ```

    A product of a query and a key then depends on how many rows and columns lie between them, and
    not on where they are. A token outside of the map, at `(-1, -1)`, becomes zero, and so do all
    products with it: as LlamaGen has its label.

    Args:
        base: Positive float. Defaults to 10,000.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Tensor of shape `(batch, length, heads, d)`, d a multiple of 4. Computed in float32.
        positions: Integers of shape `(length, 2)`: row and column of each token.

    Returns:
        Tensor of the shape and dtype of the inputs.

    Raises:
        ValueError: If `base` is not positive, or 4 does not divide the channels.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    rotary = keras_vqvae2.layers.RotaryEmbedding2D()
    positions = np.array([(-1, -1), (0, 0), (0, 1), (1, 0)])
    turned = rotary(np.ones((1, 4, 2, 8), "float32"), positions)  # (1, 4, 2, 8)
    ```

    Reference:
        - Su et al. 2021, "RoFormer", arXiv 2104.09864.
        - In two dimensions: Sun et al. 2024, "LlamaGen", arXiv 2406.06525, section 3.2.
    """

    def __init__(self, base: float = 10_000.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not base > 0:
            raise ValueError(f"Expected a positive number. Received: base={base}")
        self.base = base
        self.built = True

    def call(self, inputs: Tensor, positions: Tensor) -> Tensor:
        return rotate(inputs, self._table(positions, inputs.shape[-1])[:, None])

    def _table(self, positions: Tensor, depth: int) -> Tensor:
        """Cosines and sines of each token's pairs, float32 of shape `(length, depth / 2, 2)`."""
        if depth % 4:
            raise ValueError(f"Expected channels that 4 divides. Received: {depth}")
        exponents = ops.arange(0, depth // 2, 2, dtype="float32") / (depth // 2)
        turns = ops.power(ops.cast(self.base, "float32"), -exponents)  # (d/4,)
        positions = ops.convert_to_tensor(positions)
        angles = ops.cast(positions, "float32")[..., None] * turns  # (N, 2, d/4)
        angles = ops.reshape(angles, (-1, depth // 2))  # (N, d/2)
        table = ops.stack([ops.cos(angles), ops.sin(angles)], axis=-1)  # (N, d/2, 2)
        return table * ops.cast(positions[:, :1, None] >= 0, "float32")

    def compute_output_shape(self, inputs_shape: Shape, positions_shape: Shape) -> Shape:
        return inputs_shape

    def get_config(self) -> Config:
        return {**super().get_config(), "base": self.base}


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """`x` of shape `(..., d)` turned by cosines and sines of shape `(..., d / 2, 2)`."""
    shape = x.shape[1:]
    pairs = ops.reshape(ops.cast(x, "float32"), (-1, *shape[:-1], shape[-1] // 2, 2))
    even, odd, cos, sin = pairs[..., 0], pairs[..., 1], table[..., 0], table[..., 1]
    turned = ops.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1)
    return ops.cast(ops.reshape(turned, (-1, *shape)), x.dtype)
