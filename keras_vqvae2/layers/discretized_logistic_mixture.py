import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2.hints import Config, Tensor
from keras_vqvae2.layers.pixel_distribution import PixelDistribution, scaled, stacked
from keras_vqvae2.validation import check_positive

SMALLEST_LOG_SCALE = -7.0  # openai/pixel-cnn, as all numbers here
LEAST_PROBABILITY = 1e-5  # below it the density at the middle of a level stands for its integral
AUTHORS_LEVELS = 256
NARROWEST_UNIFORM = 1e-5


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class DiscretizedLogisticMixture(PixelDistribution):
    """A mixture of logistic distributions over whole pixels, each level the integral around it.

    With pixels x in `[-1, 1]`, of K components with weight `pi`, mean `m` and scale `s`:

    ```
    p(x)  = sum over components  pi  p(red) p(green | red) p(blue | red, green)
    p(x)  = sigmoid((x + h - m) / s) - sigmoid((x - h - m) / s)             h = 1 / (levels - 1)
            without the first term's complement at the highest level, without the second term at 0
    m_green = m + a x_red          m_blue = m + b x_red + c x_green         a, b, c = tanh(...)
    ```

    The true red stands in green's mean, as in any product over variables: of three colours, a
    component's shapes stay simple and their dependence is linear. `log s` is at least -7. At 256
    levels and more, where an integral is below 1e-5 the density in its middle times its width is
    taken, as the authors do: a level is small beside most scales there, and the nats of what is all
    but impossible come out up to 2.2 too high (at `log s` of -7). Of fewer levels the integral's
    logarithm is computed as it is. Gradients stay finite however far a mean is.

    Parameters of a position: K mixture logits, then for each colour K means, K log scales and, with
    three colours, K coefficients before their tanh (a of red, b of green, c of blue).

    Args:
        colours: 3, or 1 for grey images. Defaults to 3.
        num_mixtures: Positive integer, components. Defaults to 10 (paper).
        levels: Integer of at least 2. Defaults to 256.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        parameters: float32 of shape `(..., num_parameters)`.
        uniforms: float32 in `[0, 1)` of shape `(..., num_mixtures + colours)`: for the component,
            then for each colour.
        temperature: Positive float, divides the mixture logits and multiplies the scales.

    Returns:
        int32 of shape `(..., colours)`, drawn. Each colour is rounded to its level before the next
        one sees it, so draws have exactly the probabilities above.

    Raises:
        ValueError: For other colours, or sizes that are not positive.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    mixture = keras_vqvae2.layers.DiscretizedLogisticMixture(num_mixtures=5)
    parameters = np.zeros((2, 8, 8, mixture.num_parameters), "float32")  # (2, 8, 8, 50)
    uniforms = np.random.default_rng(0).uniform(size=(2, 8, 8, mixture.num_uniforms))
    pixels = mixture(parameters, uniforms.astype("float32"))  # int32 (2, 8, 8, 3)
    print(mixture.nats(pixels, parameters).shape)  # (2, 8, 8)
    ```

    Reference:
        - Salimans et al. 2017, "PixelCNN++", arXiv 1701.05517, sections 2.1 and 2.2.
    """

    def __init__(
        self, colours: int = 3, num_mixtures: int = 10, levels: int = 256, **kwargs: Any
    ) -> None:
        super().__init__(colours, levels, **kwargs)
        if colours not in (1, 3):
            raise ValueError(f"Expected 1 or 3. Received: colours={colours}")
        check_positive(num_mixtures=num_mixtures)
        self.num_mixtures = num_mixtures

    @property
    def num_parameters(self) -> int:
        return self.num_mixtures * (3 if self.colours == 1 else 10)

    @property
    def num_uniforms(self) -> int:
        return self.num_mixtures + self.colours

    def _split(self, parameters):
        """Mixture logits `(..., K)`; means, log scales, coefficients, each `(..., C, K)`."""
        parameters = ops.convert_to_tensor(parameters, "float32")
        count = self.num_mixtures
        kinds = 2 if self.colours == 1 else 3
        rest = ops.reshape(
            parameters[..., count:],
            (*ops.shape(parameters)[:-1], self.colours, kinds, count),
        )
        log_scales = ops.maximum(rest[..., 1, :], SMALLEST_LOG_SCALE)
        coefficients = ops.tanh(rest[..., 2, :]) if kinds == 3 else None
        return parameters[..., :count], rest[..., 0, :], log_scales, coefficients

    def nats(self, values: Tensor, parameters: Tensor) -> Tensor:
        logits, means, log_scales, coefficients = self._split(parameters)
        x = scaled(values, self.levels)[..., None]  # (..., C, 1)
        if coefficients is not None:
            red, green = x[..., 0, :], x[..., 1, :]
            of_green = coefficients[..., 0, :] * red
            of_blue = coefficients[..., 1, :] * red + coefficients[..., 2, :] * green
            shift = ops.stack([ops.zeros_like(of_green), of_green, of_blue], axis=-2)
            means = means + shift
        half = 1.0 / (self.levels - 1)
        inverse = ops.exp(-log_scales)
        centred = x - means  # (..., C, K)
        above, below = inverse * (centred + half), inverse * (centred - half)
        if self.levels < AUTHORS_LEVELS:  # log(sigmoid(above) - sigmoid(below))
            inside = ops.log(-ops.expm1(-2.0 * half * inverse))
            inside = inside - ops.softplus(-above) - ops.softplus(below)
        else:
            middle = inverse * centred
            probability = ops.sigmoid(above) - ops.sigmoid(below)
            inside = ops.where(
                probability > LEAST_PROBABILITY,
                ops.log(ops.maximum(probability, 1e-12)),
                middle - log_scales - 2.0 * ops.softplus(middle) - math.log((self.levels - 1) / 2),
            )
        at_ends = ops.where(x < 0.0, above - ops.softplus(above), -ops.softplus(below))
        is_end = ops.abs(x) > 1.0 - half
        log_probabilities = ops.where(is_end, at_ends, inside)
        # The colours of a component multiply, then the components add up.
        together = ops.sum(log_probabilities, axis=-2) + ops.log_softmax(logits, axis=-1)
        return -ops.logsumexp(together, axis=-1)

    def draw(
        self,
        parameters: Tensor,
        uniforms: Tensor,
        rounded: bool = True,
        temperature: float | Tensor = 1.0,
    ) -> Tensor:
        """Draws pixels in `[-1, 1]`.

        Args:
            parameters: float32 of shape `(..., num_parameters)`.
            uniforms: float32 in `(0, 1)` of shape `(..., num_mixtures + colours)`.
            rounded: Whether each colour is rounded to a level; openai/pixel-cnn does not.
            temperature: Positive float, divides the logits and multiplies the scales.

        Returns:
            float32 of shape `(..., colours)`.
        """
        logits, means, log_scales, coefficients = self._split(parameters)
        uniforms = ops.convert_to_tensor(uniforms, "float32")
        count = self.num_mixtures
        gumbel = -ops.log(-ops.log(uniforms[..., :count]))
        # The largest is 0, and no temperature makes it infinite.
        logits = logits - ops.max(logits, axis=-1, keepdims=True)
        chosen = ops.one_hot(
            ops.argmax(logits / temperature + gumbel, axis=-1), count, dtype="float32"
        )

        def of_chosen(x):  # (..., C, K) to (..., C)
            return ops.sum(x * chosen[..., None, :], axis=-1)

        u = uniforms[..., count:]
        scales = temperature * ops.exp(of_chosen(log_scales))
        values = of_chosen(means) + scales * (ops.log(u) - ops.log(1.0 - u))
        drawn = [self._to_level(values[..., 0], rounded)]
        if coefficients is not None:
            c = of_chosen(coefficients)
            drawn.append(self._to_level(values[..., 1] + c[..., 0] * drawn[0], rounded))
            blue = values[..., 2] + c[..., 1] * drawn[0] + c[..., 2] * drawn[1]
            drawn.append(self._to_level(blue, rounded))
        return stacked(drawn)

    def _to_level(self, x, rounded):
        x = ops.clip(x, -1.0, 1.0)
        return scaled(self._levels_of(x), self.levels) if rounded else x

    def _levels_of(self, x):
        return ops.round((x + 1.0) * ((self.levels - 1) / 2))

    def call(
        self, parameters: Tensor, uniforms: Tensor, temperature: float | Tensor = 1.0
    ) -> Tensor:
        uniforms = ops.convert_to_tensor(uniforms, "float32")
        uniforms = NARROWEST_UNIFORM + uniforms * (1.0 - 2.0 * NARROWEST_UNIFORM)
        drawn = self.draw(parameters, uniforms, temperature=temperature)
        return ops.cast(self._levels_of(drawn), "int32")

    def compute_output_spec(
        self, parameters: Tensor, uniforms: Tensor, temperature: float | Tensor = 1.0
    ) -> keras.KerasTensor:
        return super().compute_output_spec(parameters, uniforms)

    def sampling(
        self, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
    ) -> Any:
        if top_k is not None or top_p is not None:
            raise ValueError(
                "Expected no top_k and no top_p of a mixture, whose levels have no list of "
                f"probabilities. Received: top_k={top_k}, top_p={top_p}"
            )
        return MixtureSampling(self, temperature)

    def get_config(self) -> Config:
        return {**super().get_config(), "num_mixtures": self.num_mixtures}


class MixtureSampling:
    """How a position is drawn from a mixture: what `decoding.Sampling` is to a softmax.

    A temperature T divides the mixture's logits and multiplies the scales.

    Args:
        mixture: `DiscretizedLogisticMixture`.
        temperature: Positive float.

    Raises:
        ValueError: If the temperature is not positive.
    """

    guided = False
    kind = (False, False, False)

    def __init__(self, mixture: DiscretizedLogisticMixture, temperature: float = 1.0) -> None:
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"Expected a positive number. Received: temperature={temperature}")
        self.mixture = mixture
        self.temperature = temperature

    def guidance_scales(self, count: int) -> np.ndarray:
        return np.ones(count, "float32")

    def guide(self, parameters: Tensor, scale: Tensor) -> Tensor:
        return parameters

    def numbers(self) -> dict[str, np.generic]:
        smallest = float(np.finfo("float32").tiny)
        return {"temperature": np.float32(max(self.temperature, smallest))}

    def draw(self, parameters: Tensor, uniforms: Tensor, numbers: dict[str, Tensor]) -> Tensor:
        """Draws pixels: int32 `(batch, colours)`, -1 where parameters are not finite."""
        parameters = ops.convert_to_tensor(parameters, "float32")
        finite = ops.all(ops.isfinite(parameters), axis=-1, keepdims=True)
        drawn = self.mixture(parameters, uniforms, numbers["temperature"])
        return ops.where(finite, drawn, -1)
