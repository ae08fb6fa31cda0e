from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Config, Tensor
from keras_vqvae2.validation import check_positive


class PixelDistribution(keras.layers.Layer):
    """What a network predicts of a position: the seam between a network and its pixels.

    A network gives each position `num_parameters` numbers; a subclass says what they mean: how
    unlikely a position's values are (`nats`), and how values are drawn (`call`). It has no weights.
    `Categorical` and `DiscretizedLogisticMixture` are those of the package.

    Values are integers from 0 to `levels - 1`, one for each colour.

    Args:
        colours: Positive integer, values of a position.
        levels: Integer of at least 2, what each value can be.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        num_parameters: What the network has to give for a position.
        num_uniforms: How many random numbers the drawing of a position takes.
        colour_by_colour: Whether the network gives the parameters of a colour after it has seen the
            colours before it, or all of them at once.

    Call arguments:
        parameters: float32 of shape `(..., num_parameters)`.
        uniforms: float32 in `[0, 1)` of shape `(..., num_uniforms)`.

    Returns:
        int32 of shape `(..., colours)`, drawn.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    binary = keras_vqvae2.layers.Categorical(colours=1, levels=2)  # a PixelDistribution
    parameters = np.zeros((1, 28, 28, binary.num_parameters), "float32")
    uniforms = np.full((1, 28, 28, binary.num_uniforms), 0.7, "float32")
    print(binary(parameters, uniforms).shape)  # (1, 28, 28, 1): ones, above one half
    ```
    """

    colour_by_colour = False

    def __init__(self, colours: int, levels: int = 256, **kwargs: Any) -> None:
        # A global mixed policy would cast what comes in: a uniform next to 1 would become 1.
        super().__init__(autocast=False, **kwargs)
        check_positive(colours=colours)
        if not (int(levels) == levels and levels >= 2):
            raise ValueError(f"Expected an integer of at least 2. Received: levels={levels}")
        self.colours = colours
        self.levels = levels
        self.built = True

    @property
    def num_parameters(self) -> int:
        raise TypeError(f"{type(self).__name__} does not say how many parameters it has.")

    @property
    def num_uniforms(self) -> int:
        return self.colours

    def nats(self, values: Tensor, parameters: Tensor) -> Tensor:
        """How unlikely values are.

        Args:
            values: Integers, or floats that are whole, of shape `(..., colours)`.
            parameters: float32 of shape `(..., num_parameters)`.

        Returns:
            float32 of shape `(...)`: `-log p` of the values together.
        """
        raise TypeError(f"{type(self).__name__} does not say how likely values are.")

    def sampling(
        self, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
    ) -> Any:
        """What draws a position for a `decoding.RowDecoder`: it has the methods of `Sampling`.

        Args:
            temperature: Positive float; towards 0 the most probable values are drawn.
            top_k: None, or a positive integer, where values have probabilities of their own.
            top_p: None, or a float in `(0, 1]`, likewise.

        Raises:
            ValueError: If one is out of range, or the distribution does not know it.
        """
        raise TypeError(f"{type(self).__name__} does not say how it is drawn from.")

    def get_config(self) -> Config:
        return {**super().get_config(), "colours": self.colours, "levels": self.levels}

    def compute_output_spec(self, parameters: Tensor, uniforms: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor((*parameters.shape[:-1], self.colours), "int32")


def scaled(values: Tensor, levels: int) -> Tensor:
    """Values from 0 to `levels - 1` as float32 in `[-1, 1]`."""
    return ops.cast(values, "float32") * (2.0 / (levels - 1)) - 1.0


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """Tensors of shape `(...)` side by side in a new last axis."""
    return ops.stack(list(parts), axis=-1)
