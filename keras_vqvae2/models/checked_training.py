from typing import Any

import keras
import numpy as np

from keras_vqvae2.hints import Dataset, Tensor
from keras_vqvae2.models.source_checks import check_weights


class CheckedTraining:
    """`fit`, `evaluate` and `predict` that look at what they are given before any long work.

    A subclass says what it takes in `_check_data(x, with_loss)`, which raises `ValueError` or
    returns what Keras is to see of `x`; `with_loss` is false for `predict`.
    """

    def fit(
        self, x: Tensor | Dataset | None = None, *args: Any, **kwargs: Any
    ) -> keras.callbacks.History:
        """Trains as `keras.Model.fit` does, on `x` alone: the model does not look at labels `y`.

        Args:
            x: What the class docstring says of the model's data: arrays, or any data set of
                batches that Keras takes.
            *args: Further arguments of `keras.Model.fit`.
            **kwargs: Further arguments of `keras.Model.fit`.

        Raises:
            ValueError: If shapes, dtypes or ranges of the data (of a data set, of its first batch)
                do not fit, or there are none; or if `sample_weight` comes without a `y`, where
                Keras would drop it.
            ImportError: If weights that the loss needs are not installed.
        """
        check_weights("fit", x, args, kwargs)
        return super().fit(self._check_data(x, with_loss=True), *args, **kwargs)

    def evaluate(self, x: Tensor | Dataset | None = None, *args: Any, **kwargs: Any) -> Any:
        """Computes the metrics, as `keras.Model.evaluate` does; arguments and checks of `fit`."""
        check_weights("evaluate", x, args, kwargs)
        return super().evaluate(self._check_data(x, with_loss=True), *args, **kwargs)

    def predict(self, x: Tensor | Dataset, *args: Any, **kwargs: Any) -> np.ndarray:
        """Outputs for `x`, as `keras.Model.predict` does; data are checked as in `fit`."""
        return super().predict(self._check_data(x, with_loss=False), *args, **kwargs)
