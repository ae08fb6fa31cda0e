from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_vqvae2.decoding.steps import Steps
from keras_vqvae2.hints import Config, DTypePolicy
from keras_vqvae2.models.gated_pixelcnn.gated_pixelcnn_layers import ColourHead
from keras_vqvae2.models.pixelrnn.chain_steps import ChainSteps
from keras_vqvae2.models.pixelrnn.pixelrnn_layers import ChainLayer, FirstConv
from keras_vqvae2.models.pixels.colour_model import ColourInputs, ColourModel, check_multiple
from keras_vqvae2.validation import check_positive


class ChainModel(ColourModel):
    """What `PixelCNN` and `PixelRNN` share: a 7x7 convolution, a chain of layers, a head.

    Args:
        layer: Function from a layer's name to the layer.
        residual: Whether the chain has `2 * hidden_units` features, to which layers add.
        head_units: Positive integer, or None for two hidden layers of as many features as the
            chain.
    """

    def __init__(
        self,
        layer: Callable[[str], ChainLayer],
        image_shape: Sequence[int],
        num_classes: int | None,
        hidden_units: int,
        num_layers: int,
        first_kernel_size: int,
        residual: bool,
        head_units: int,
        levels: int,
        centre_inputs: bool,
        dtype: DTypePolicy,
        **kwargs: Any,
    ) -> None:
        inputs = self.pixel_inputs(image_shape, num_classes)
        colours = tuple(image_shape)[-1]
        check_positive(
            hidden_units=hidden_units,
            num_layers=num_layers,
            first_kernel_size=first_kernel_size,
            head_units=head_units,
        )
        check_multiple(colours, hidden_units=hidden_units, head_units=head_units)

        # === Layers ===
        dtype = keras.dtype_policies.get(dtype)
        to_network = ColourInputs(levels, centre_inputs, dtype=dtype, name="inputs")
        features = 2 * hidden_units if residual else hidden_units
        first = FirstConv(
            features, first_kernel_size, colours, num_classes, dtype=dtype, name="first"
        )
        layers = [layer(f"layer_{i}") for i in range(num_layers)]
        head = ColourHead(
            (head_units, head_units),
            colours * levels,
            colours,
            activate_inputs=residual,
            dtype=dtype,
            name="head",
        )

        # === Functional Model ===
        x = first(to_network(inputs["image"]), inputs.get("label"))
        for layer_i in layers:
            x = layer_i(x)
        super().__init__(
            inputs,
            head(x),
            image_shape,
            num_classes,
            levels,
            centre_inputs,
            dtype=dtype,
            **kwargs,
        )

        # === Config ===
        self.hidden_units = hidden_units
        self.num_layers = num_layers
        self.first_kernel_size = first_kernel_size
        self.residual = residual
        self.head_units = head_units

    def _steps(self) -> Sequence[Sequence[Steps]]:
        layers = [self.get_layer(f"layer_{i}") for i in range(self.num_layers)]
        _, width, colours = self.image_shape
        first, head = self.get_layer("first"), self.get_layer("head")
        return [
            [
                ChainSteps(first, layers, head, self._embed, width, colour)
                for colour in range(colours)
            ]
        ]

    def get_config(self) -> Config:
        config = super().get_config()
        config.pop("condition_channels")
        return {
            **config,
            "hidden_units": self.hidden_units,
            "num_layers": self.num_layers,
            "first_kernel_size": self.first_kernel_size,
            "residual": self.residual,
            "head_units": self.head_units,
        }
