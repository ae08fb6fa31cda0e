from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Config, DTypePolicy, Tensor, TensorTree
from keras_vqvae2.layers import Categorical, PixelDistribution
from keras_vqvae2.models.pixels.pixel_model import PixelModel


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class ColourInputs(keras.layers.Layer):
    """Levels as a network sees them: in `[-1, 1]`, or in `[0, 1]` if they are not centred."""

    def __init__(self, levels: int, centre: bool = True, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)  # levels up to 255 are not whole in bfloat16
        self.levels = levels
        self.centre = centre

    def call(self, values: Tensor) -> Tensor:
        x = ops.cast(values, "float32") / (self.levels - 1)
        return ops.cast(2.0 * x - 1.0 if self.centre else x, self.compute_dtype)

    def compute_output_spec(self, values: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor(values.shape, self.compute_dtype)

    def get_config(self) -> Config:
        return {**super().get_config(), "levels": self.levels, "centre": self.centre}


class ColourModel(PixelModel):
    """A `PixelModel` with a softmax for each colour, drawn red, then green, then blue.

    Features fall into groups for the colours (`MaskedConv2D`), so sizes are multiples of the
    colours. Arguments are those of `PixelModel`.
    """

    def __init__(
        self,
        inputs: TensorTree,
        parameters: keras.KerasTensor,
        image_shape: Sequence[int],
        num_classes: int | None = None,
        levels: int = 256,
        centre_inputs: bool = True,
        condition_channels: int | None = None,
        dtype: DTypePolicy = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            inputs,
            parameters,
            image_shape,
            num_classes,
            levels,
            condition_channels,
            dtype=dtype,
            **kwargs,
        )
        self.centre_inputs = centre_inputs

    def _distribution(self) -> PixelDistribution:
        return Categorical(self.image_shape[-1], self.levels)

    def _embed(self, values: Tensor) -> Tensor:
        """What the network sees of one colour, `(batch, 1)`, or of a row of all of them."""
        x = self.get_layer("inputs")(values)
        return x[:, None] if len(x.shape) == 1 else x

    def get_config(self) -> Config:
        return {**super().get_config(), "centre_inputs": self.centre_inputs}


def check_multiple(colours: int, **sizes: int) -> None:
    """Raises `ValueError` for a size that colours cannot share out."""
    for name, size in sizes.items():
        if size % colours:
            raise ValueError(
                f"Expected a multiple of the {colours} colours, whose groups of features are "
                f"equal. Received: {name}={size}"
            )
