"""What the metrics that compare two sets of features share."""

from collections.abc import Iterable
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_vqvae2.hints import Tensor


def as_features(features: Tensor) -> np.ndarray:
    """Features as a matrix of the host, checked.

    Args:
        features: Array or tensor of shape `(N, D)`.

    Returns:
        NumPy array of shape `(N, D)`: float32, or float64 where float32 would round.

    Raises:
        ValueError: If the shape is another or a number is not finite.
    """
    if not isinstance(features, np.ndarray):
        features = ops.convert_to_numpy(features)
    if features.ndim != 2 or 0 in features.shape[1:]:
        raise ValueError(
            f"Expected features of shape (samples, width). Received: shape {features.shape}"
        )
    exact = features.dtype == "float32" or features.dtype.itemsize < 4
    features = features.astype("float32" if exact else "float64", copy=False)
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise ValueError(
            "Expected finite features. Received: NaN or infinity in "
            f"{np.count_nonzero(~finite)} of {len(features)} samples"
        )
    return features


def check_widths(width: int | None, reference_width: int | None) -> None:
    """Raises `ValueError` if two sets of features differ in their width."""
    if width != reference_width:
        raise ValueError(
            f"Expected features as wide as the reference's, {reference_width}. Received: {width}"
        )


class FeatureCollection:
    """Features as they come, kept whole: `N * D * 4` bytes where they are float32."""

    def __init__(self) -> None:
        self._batches: list[np.ndarray] = []

    @property
    def count(self) -> int:
        return sum(map(len, self._batches))

    def update(self, features: Tensor) -> None:
        features = as_features(features)
        if self._batches:
            check_widths(features.shape[1], self._batches[0].shape[1])
        self._batches.append(features.copy())  # the caller may write into its array again

    def merge(self, other: Self) -> None:
        for batch in other._batches:
            self.update(batch)

    def features(self) -> np.ndarray:
        """All of them, shape `(N, D)`."""
        if len(self._batches) > 1:
            self._batches = [np.concatenate(self._batches)]
        return self._batches[0]


class FeatureSetMetric(keras.metrics.Metric):
    """Base of the metrics that compare generated features with reference features.

    The state lies on the host, in NumPy: batches are given eagerly, outside compiled functions, and
    `variables` is empty. Subclasses say how a set is kept, `_new_set()`, and what is computed of
    two, `_compare(generated, reference)`.

    Args:
        reference: Features of shape `(N, D)`, kept over resets and left alone by `merge_state`; or
            None, and `update_reference` adds them batch by batch.
        name: Name of the metric.
    """

    def __init__(
        self, reference: Tensor | None = None, name: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        self._generated = self._new_set()
        self._reference_is_given = reference is not None
        self._reference = self._new_set() if reference is None else self._given_set(reference)

    def _new_set(self):
        return FeatureCollection()

    def _given_set(self, reference):
        features = self._new_set()
        features.update(reference)
        return features

    def _compare(self, generated, reference):
        raise NotImplementedError

    def update_state(self, features: Tensor) -> None:
        """Adds generated features.

        Args:
            features: Shape `(batch, D)`.

        Raises:
            ValueError: If the shape does not fit or a number is not finite.
        """
        self._generated.update(features)

    def update_reference(self, features: Tensor) -> None:
        """Adds reference features.

        Args:
            features: Shape `(batch, D)`.

        Raises:
            ValueError: If the reference was given to the constructor, the shape does not fit or a
                number is not finite.
        """
        if self._reference_is_given:
            raise ValueError(
                "Expected the reference either in the constructor or by update_reference. "
                "Received: both"
            )
        self._reference.update(features)

    def result(self) -> Any:
        for features, name in ((self._generated, "generated"), (self._reference, "reference")):
            if not features.count:
                raise ValueError(f"Expected {name} features before result(). Received: none")
        return self._compare(self._generated, self._reference)

    def reset_state(self) -> None:
        """Forgets the generated features and keeps the reference."""
        self._generated = self._new_set()

    def merge_state(self, metrics: Iterable[Self]) -> None:
        """Adds what other metrics have seen, as if this one had seen it after its own.

        Reference features that came by `update_reference` are added too, at every call: merge
        replicas that stream theirs into a new metric.

        Args:
            metrics: Metrics of the same class.

        Raises:
            ValueError: If one is of another class.
        """
        metrics = list(metrics)
        for metric in metrics:
            if type(metric) is not type(self):
                raise ValueError(f"Expected metrics of {type(self).__name__}. Received: {metric}")
        for metric in metrics:
            self._generated.merge(metric._generated)
            if not self._reference_is_given and not metric._reference_is_given:
                self._reference.merge(metric._reference)
