from collections.abc import Sequence
from typing import Any

import keras

from keras_vqvae2.hints import Config, DTypePolicy
from keras_vqvae2.models.pixelrnn.chain_model import ChainModel
from keras_vqvae2.models.pixelrnn.pixelrnn_layers import DiagonalBiLSTMLayer, RowLSTMLayer

KINDS = {"row_lstm": RowLSTMLayer, "diagonal_bilstm": DiagonalBiLSTMLayer}


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class PixelRNN(ChainModel):
    """PixelRNN: rows or diagonals of LSTMs, and a softmax for each colour.

    ```
    x      = 7x7 convolution, mask A (pixels), 2 h features
    x      = x + 1x1 (LSTM (x))                                    mask B, h features inside
    logits = 1x1 (relu (1x1 (relu (1x1 (relu (x))))))              mask B

    [o, f, i, g] = input-to-state (x) + state-to-state (h before)
    c = sigmoid(f) c before + sigmoid(i) tanh(g)       h = sigmoid(o) tanh(c)
    ```

    A row LSTM goes down the rows, and sees a triangle above a pixel. A diagonal BiLSTM goes along
    the diagonals, from the left and from the right, and sees everything before a pixel but for one
    hole: pixel `(i, j)` does not see the last one of the row above, `(i - 1, W - 1)`, unless the
    first convolution reaches it. It is in the paper's design: a feature never holds its own pixel,
    and what comes from the right is a row late, lest it sees the pixels to the right.

    Args:
        image_shape: `(height, width, colours)`. Defaults to `(32, 32, 3)`.
        kind: `"row_lstm"` or `"diagonal_bilstm"`, the default.
        num_classes: None, or the number of labels, which are added to the first features: not in
            the paper.
        hidden_units: Positive integer h, a multiple of the colours. Defaults to 129: the paper's
            128 on CIFAR-10, rounded to the colours.
        num_layers: Positive integer. Defaults to 12 (paper, CIFAR-10).
        first_kernel_size: Odd integer. Defaults to 7.
        residual: Whether layers are added to their inputs; else h features throughout.
        row_states: Whether each row has learned first states of its own, not only each feature.
        head_units: Positive integer, a multiple of the colours. Defaults to 1023: the paper's 1024,
            rounded likewise.
        levels: Integer of at least 2, values of a colour. Defaults to 256; 2 for binary images.
        centre_inputs: Whether the network sees levels in `[-1, 1]`, or in `[0, 1]`.
        dtype: Dtype policy of the layers. Logits and loss are float32.
        **kwargs: `name` and `trainable`.

    Raises:
        ValueError: If a size is not positive, the colours do not divide one, or the kind is
            another.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_vqvae2

    images = np.random.default_rng(0).integers(256, size=(2, 6, 6, 3)).astype("uint8")
    model = keras_vqvae2.PixelRNN(
        (6, 6, 3), kind="row_lstm", hidden_units=6, num_layers=1, head_units=12
    )
    model.compile(optimizer=keras.optimizers.RMSprop(1e-3))
    model.fit(images, verbose=0)
    print(model.nats(images).shape)  # (2, 6, 6)
    ```

    Reference:
        - van den Oord, Kalchbrenner, Kavukcuoglu 2016, "Pixel Recurrent Neural Networks", arXiv
          1601.06759, sections 3.1 to 3.4 and table 1.
    """

    def __init__(
        self,
        image_shape: Sequence[int] = (32, 32, 3),
        kind: str = "diagonal_bilstm",
        num_classes: int | None = None,
        hidden_units: int = 129,
        num_layers: int = 12,
        first_kernel_size: int = 7,
        residual: bool = True,
        row_states: bool = False,
        head_units: int = 1023,
        levels: int = 256,
        centre_inputs: bool = True,
        dtype: DTypePolicy = None,
        **kwargs: Any,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"Expected one of {sorted(KINDS)}. Received: kind={kind!r}")

        def layer(name):
            return KINDS[kind](
                hidden_units,
                tuple(image_shape)[-1],
                residual,
                row_states,
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
        self.kind = kind
        self.row_states = row_states

    def get_config(self) -> Config:
        return {**super().get_config(), "kind": self.kind, "row_states": self.row_states}
