from collections.abc import Sequence
from typing import Any

import keras

from keras_vqvae2.decoding.steps import Steps
from keras_vqvae2.hints import Config, DTypePolicy, Size
from keras_vqvae2.models.gated_pixelcnn.gated_pixelcnn_layers import ColourHead, GatedPixelCNNLayer
from keras_vqvae2.models.gated_pixelcnn.gated_pixelcnn_steps import GatedPixelCNNSteps
from keras_vqvae2.models.pixels.colour_model import ColourInputs, ColourModel, check_multiple
from keras_vqvae2.validation import check_positive


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class GatedPixelCNN(ColourModel):
    """Gated PixelCNN: two stacks without a blind spot, gates that see the label.

    ```
    v, h    = layer (v, h), from pixels, pixels; the layers are those of `GatedPixelCNNPrior`
    gate    = tanh(a + V_a label) sigmoid(b + V_b label)
    logits  = W relu(W h): 256 for each colour, green's with red in view, blue's with both
    ```

    The vertical stack and what it hands over may mix colours; in the horizontal stack and behind
    it features have a colour each.

    Args:
        image_shape: `(height, width, colours)`. Defaults to `(32, 32, 3)`.
        num_classes: None, or the number of labels.
        hidden_units: Positive integer, features of each stack, a multiple of the colours. Defaults
            to 384 (paper, ImageNet, as all sizes).
        num_layers: Positive integer. Defaults to 20.
        kernel_size: Odd integer, or `(rows, columns)`, from the second layer on. Defaults to 5.
        first_kernel_size: Of the first layer. Defaults to 7.
        head_units: Positive integer, features before the logits, a multiple of the colours.
            Defaults to 1024 for one colour and 1023 for three.
        levels: Integer of at least 2, values of a colour. Defaults to 256.
        centre_inputs: Whether the network sees levels in `[-1, 1]`, or in `[0, 1]`.
        condition_channels: None, or the channels of a map that every gate sees, `"condition"` in
            the data: the paper's `s = m(h)`.
        dtype: Dtype policy of the layers. Logits and loss are float32.
        **kwargs: `name` and `trainable`.

    Raises:
        ValueError: If a size is not positive, or the colours do not divide one.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_vqvae2

    images = np.random.default_rng(0).integers(256, size=(4, 8, 8, 3)).astype("uint8")
    model = keras_vqvae2.GatedPixelCNN(
        (8, 8, 3), hidden_units=6, num_layers=2, kernel_size=3, head_units=12
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    model.fit(images, verbose=0)
    print(model.generate(1, verbose=0).shape)  # uint8 (1, 8, 8, 3)
    ```

    Reference:
        - van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders", arXiv
          1606.05328, section 2.
    """

    def __init__(
        self,
        image_shape: Sequence[int] = (32, 32, 3),
        num_classes: int | None = None,
        hidden_units: int = 384,
        num_layers: int = 20,
        kernel_size: Size = 5,
        first_kernel_size: Size = 7,
        head_units: int | None = None,
        levels: int = 256,
        centre_inputs: bool = True,
        condition_channels: int | None = None,
        dtype: DTypePolicy = None,
        **kwargs: Any,
    ) -> None:
        inputs = self.pixel_inputs(image_shape, num_classes, condition_channels=condition_channels)
        colours = tuple(image_shape)[-1]
        if head_units is None:
            head_units = 1024 // colours * colours
        check_positive(hidden_units=hidden_units, num_layers=num_layers, head_units=head_units)
        check_multiple(colours, hidden_units=hidden_units, head_units=head_units)

        # === Layers ===
        dtype = keras.dtype_policies.get(dtype)
        to_network = ColourInputs(levels, centre_inputs, dtype=dtype, name="inputs")
        layers = [
            GatedPixelCNNLayer(
                hidden_units,
                kernel_size if i else first_kernel_size,
                first=i == 0,
                colours=colours,
                num_classes=num_classes,
                dtype=dtype,
                name=f"layer_{i}",
            )
            for i in range(num_layers)
        ]
        head = ColourHead((head_units,), colours * levels, colours, dtype=dtype, name="head")

        # === Functional Model ===
        vertical = horizontal = to_network(inputs["image"])
        for layer in layers:
            vertical, horizontal = layer(
                vertical, horizontal, inputs.get("condition"), inputs.get("label")
            )
        super().__init__(
            inputs,
            head(horizontal),
            image_shape,
            num_classes,
            levels,
            centre_inputs,
            condition_channels,
            dtype=dtype,
            **kwargs,
        )

        # === Config ===
        self.hidden_units = hidden_units
        self.num_layers = num_layers
        self.kernel_size = kernel_size
        self.first_kernel_size = first_kernel_size
        self.head_units = head_units

    def _steps(self) -> Sequence[Sequence[Steps]]:
        layers = [self.get_layer(f"layer_{i}") for i in range(self.num_layers)]
        _, width, colours = self.image_shape
        return [
            [
                GatedPixelCNNSteps(
                    layers, self.get_layer("head"), self._embed, width, colours, colour
                )
                for colour in range(colours)
            ]
        ]

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "hidden_units": self.hidden_units,
            "num_layers": self.num_layers,
            "kernel_size": self.kernel_size,
            "first_kernel_size": self.first_kernel_size,
            "head_units": self.head_units,
        }
