from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Config, Shape, Tensor
from keras_vqvae2.validation import check_positive


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class ResidualStack(keras.layers.Layer):
    """`num_blocks` residual blocks and a closing ReLU, as in the encoders and decoders of VQ-VAE-2.

    ```
    x <- x + conv_1x1(relu(conv_3x3(relu(x))))        num_blocks times
    y  = relu(x)
    ```

    Args:
        residual_units: Positive integer, channels of the 3x3 convolution.
        num_blocks: Non-negative integer, the number of blocks. Defaults to 2 (paper).
        rectified_skip: Boolean, whether the skip carries `relu(x)` in place of `x`. Networks whose
            first ReLU worked in place were trained that way; the paper's do not.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Tensor of shape `(batch, height, width, channels)`.

    Returns:
        Tensor of the inputs' shape.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    stack = keras_vqvae2.layers.ResidualStack(residual_units=8, num_blocks=2)
    print(stack(np.ones((1, 16, 16, 32), "float32")).shape)  # (1, 16, 16, 32)
    ```

    Reference:
        - Razavi et al. 2019, arXiv 1906.00446, section 3.1 and appendix A.1.
    """

    def __init__(
        self, residual_units: int, num_blocks: int = 2, rectified_skip: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        check_positive(residual_units=residual_units)
        if int(num_blocks) != num_blocks or num_blocks < 0:
            raise ValueError(f"Expected a non-negative integer. Received: {num_blocks=}")
        self.residual_units = residual_units
        self.num_blocks = num_blocks
        self.rectified_skip = rectified_skip

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[-1]
        self.blocks = []
        for i in range(self.num_blocks):
            common = {"data_format": "channels_last", "dtype": self.dtype_policy}
            wide = keras.layers.Conv2D(
                self.residual_units, 3, padding="same", name=f"wide_{i}", **common
            )
            back = keras.layers.Conv2D(channels, 1, name=f"back_{i}", **common)
            wide.build(input_shape)
            back.build((*input_shape[:-1], self.residual_units))
            self.blocks.append((wide, back))

    def call(self, inputs: Tensor) -> Tensor:
        x = inputs
        for wide, back in self.blocks:
            rectified = ops.relu(x)
            skip = rectified if self.rectified_skip else x
            x = skip + back(ops.relu(wide(rectified)))
        return ops.relu(x)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "residual_units": self.residual_units,
            "num_blocks": self.num_blocks,
            "rectified_skip": self.rectified_skip,
        }
