from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Config, Tensor


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class ConditionDropout(keras.layers.Layer):
    """While training, hides what a model is told of some examples: its label, its coarser codes.

    A model that has also learned to do without can be guided by what it is told
    (`CodePrior.generate`, `guidance_scale`). One number is drawn an example: inputs of one rate are
    hidden together.

    Args:
        rates: Dict from input to a float in `[0, 1)`, the share of examples in which it is hidden.
        values: Dict from input to the integer that stands for "not told".
        seed: None or an integer.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Dict of integer tensors, the batch first, for each of the names.
        training: Boolean; without training the inputs come back as they are.

    Raises:
        ValueError: If a rate is out of range, or `values` has other names.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    dropout = keras_vqvae2.layers.ConditionDropout({"label": 0.5}, {"label": 10})
    labels = dropout({"label": np.arange(10)}, training=True)["label"]  # some of them 10
    ```

    Reference:
        - Ho, Salimans 2022, "Classifier-Free Diffusion Guidance", arXiv 2207.12598, algorithm 1.
    """

    def __init__(
        self,
        rates: Mapping[str, float],
        values: Mapping[str, int],
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, rate in rates.items():
            if not 0 <= rate < 1:
                raise ValueError(f"Expected rates in [0, 1). Received: {rate} for {name!r}")
        if set(rates) != set(values):
            raise ValueError(
                f"Expected values for {sorted(rates)}. Received: values for {sorted(values)}"
            )
        self.rates = dict(rates)
        self.values = dict(values)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, inputs: Mapping[str, Tensor], training: bool | None = None) -> dict[str, Tensor]:
        if not training:
            return dict(inputs)
        # Drawn for the whole batch, of which a replica takes its part: replicas change nothing.
        batch = ops.shape(next(iter(inputs.values())))[0]
        uniforms = keras.random.uniform(
            (backend.replica_count(), batch), dtype="float32", seed=self.seed_generator
        )
        uniforms = ops.take(uniforms, backend.replica_index(), axis=0)  # (B,)
        hidden = {}
        for name, x in inputs.items():
            told = ops.reshape(uniforms >= self.rates[name], (-1, *(1,) * (len(x.shape) - 1)))
            hidden[name] = ops.where(told, x, ops.cast(self.values[name], x.dtype))
        return hidden

    def compute_output_spec(
        self, inputs: Mapping[str, Tensor], training: bool | None = None
    ) -> dict[str, keras.KerasTensor]:
        return {name: keras.KerasTensor(x.shape, x.dtype) for name, x in inputs.items()}

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "rates": self.rates,
            "values": self.values,
            "seed": self.seed,
        }
