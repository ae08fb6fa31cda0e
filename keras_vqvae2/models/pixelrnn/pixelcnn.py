from collections.abc import Sequence
from typing import Any

import keras

from keras_vqvae2.hints import Config, DTypePolicy
from keras_vqvae2.models.pixelrnn.chain_model import ChainModel
from keras_vqvae2.models.pixelrnn.pixelrnn_layers import PixelCNNLayer


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class PixelCNN(ChainModel):
    """The first PixelCNN: masked convolutions, and a softmax for each colour.

    ```
    x      = 7x7 convolution, mask A (pixels), 2 h features
    x      = x + 1x1 (relu (3x3 (relu (1x1 (relu (x))))))          mask B, h features inside
    logits = 1x1 (relu (1x1 (relu (1x1 (relu (x))))))              mask B
    ```

    Stacked masks have a blind spot to the upper right, up to a quarter of what they reach:
    `GatedPixelCNN` has none.

    Args:
        image_shape: `(height, width, colours)`. Defaults to `(32, 32, 3)`.
        num_classes: None, or the number of labels, which are added to the first features: not in
            the paper.
        hidden_units: Positive integer h, a multiple of the colours. Defaults to 129: the paper's
            128 on CIFAR-10, rounded to the colours.
        num_layers: Positive integer. Defaults to 15 (paper, CIFAR-10).
        kernel_size: Odd integer, of the layers. Defaults to 3.
        first_kernel_size: Odd integer. Defaults to 7.
        residual: Whether layers are residual blocks; else each is a convolution and a ReLU, with h
            features throughout.
        head_units: Positive integer, a multiple of the colours. Defaults to 1023: the paper's 1024,
            rounded likewise.
        levels: Integer of at least 2, values of a colour. Defaults to 256; 2 for binary images.
        centre_inputs: Whether the network sees levels in `[-1, 1]`, or in `[0, 1]`.
        dtype: Dtype policy of the layers. Logits and loss are float32.
        **kwargs: `name` and `trainable`.

    Raises:
        ValueError: If a size is not positive, or the colours do not divide one.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_vqvae2

    images = np.random.default_rng(0).integers(2, size=(4, 8, 8, 1)).astype("uint8")
    model = keras_vqvae2.PixelCNN(
        (8, 8, 1), hidden_units=8, num_layers=2, head_units=16, levels=2
    )
    model.compile(optimizer=keras.optimizers.RMSprop(1e-3))
    model.fit(images, verbose=0)
    print(model.generate(2, verbose=0).max() <= 1)  # True
    ```

    Reference:
        - van den Oord, Kalchbrenner, Kavukcuoglu 2016, "Pixel Recurrent Neural Networks", arXiv
          1601.06759, sections 3.3 to 3.5 and table 1.
    """

    def __init__(
        self,
        image_shape: Sequence[int] = (32, 32, 3),
        num_classes: int | None = None,
        hidden_units: int = 129,
        num_layers: int = 15,
        kernel_size: int = 3,
        first_kernel_size: int = 7,
        residual: bool = True,
        head_units: int = 1023,
        levels: int = 256,
        centre_inputs: bool = True,
        dtype: DTypePolicy = None,
        **kwargs: Any,
    ) -> None:
        def layer(name):
            return PixelCNNLayer(
                hidden_units,
                tuple(image_shape)[-1],
                residual,
                kernel_size,
                dtype=keras.dtype_policies.get(dtype),
                name=name,
            )

        super().__init__(
            layer,
            image_shape,
            num_classes,
            hidden_units,
            num_layers,
            first_kernel_size,
            residual,
            head_units,
            levels,
            centre_inputs,
            dtype,
            **kwargs,
        )
        self.kernel_size = kernel_size

    def get_config(self) -> Config:
        return {**super().get_config(), "kernel_size": self.kernel_size}
