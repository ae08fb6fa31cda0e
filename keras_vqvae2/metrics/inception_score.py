from collections.abc import Iterable
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_vqvae2.hints import Config, Tensor
from keras_vqvae2.validation import check_positive

_BLOCK = 128  # rows at a time: float64 of 1,008 classes that stays in a core's cache


def inception_score(probabilities: Tensor, splits: int = 10) -> tuple[float, float]:
    """Inception score of a classifier's probabilities of generated images.

    `exp(mean_i KL(p_i || q))` in each of `splits` contiguous parts, where `q` is the part's mean of
    its `p_i`. Part `i` of `N` samples starts at `i * N // splits`. Samples that lie sorted by class
    must be shuffled first: a part of few classes scores low.

    Only with the logits, without bias, of the Inception network of 2015 is it comparable with
    published scores.

    Args:
        probabilities: Shape `(N, classes)`; rows sum to 1.
        splits: Positive integer, the number of parts.

    Returns:
        Mean and standard deviation (of the population) over the parts, two floats in
        `[1, classes]` and `[0, classes]`.

    Raises:
        ValueError: If a row is no distribution, the shape does not fit, or there are fewer samples
            than splits.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    certain = np.eye(10)[np.arange(100) % 10]  # 10 classes equally often, without doubt
    print(keras_vqvae2.metrics.inception_score(certain))  # (10.0, 0.0), but for rounding
    ```

    Reference:
        - Salimans, Goodfellow, Zaremba, Cheung, Radford, Chen 2016, "Improved Techniques for
          Training GANs", arXiv 1606.03498, section 4.
    """
    check_positive(splits=splits)
    probabilities = _as_probabilities(probabilities)
    count = len(probabilities)
    sums = _SplitSums(splits, probabilities.shape[1])
    for i in range(splits):
        sums.add(i, probabilities[i * count // splits : (i + 1) * count // splits])
    return sums.score()


class _SplitSums:
    """For each split the number of samples, their sum and the sum of their negative entropies."""

    def __init__(self, splits, classes):
        self.counts = np.zeros(splits, "int64")
        self.totals = np.zeros((splits, classes))
        self.negative_entropies = np.zeros(splits)

    def add(self, split, probabilities):
        for start in range(0, len(probabilities), _BLOCK):
            p = probabilities[start : start + _BLOCK].astype("float64")
            self.counts[split] += len(p)
            self.totals[split] += p.sum(axis=0)
            self.negative_entropies[split] += _x_log_x(p).sum()

    def score(self):
        if not self.counts.all():
            raise ValueError(
                f"Expected at least as many samples as splits, {len(self.counts)}. Received: "
                f"{self.counts.sum()}"
            )
        means = self.totals / self.counts[:, None]  # (splits, classes)
        divergences = self.negative_entropies / self.counts - _x_log_x(means).sum(axis=1)
        scores = np.exp(divergences)
        return float(scores.mean()), float(scores.std())


def _x_log_x(x):
    return x * np.log(np.where(x > 0, x, 1.0))


def _as_probabilities(probabilities):
    if not isinstance(probabilities, np.ndarray):
        probabilities = ops.convert_to_numpy(probabilities)
    if probabilities.ndim != 2 or 0 in probabilities.shape[1:]:
        raise ValueError(
            "Expected probabilities of shape (samples, classes). Received: shape "
            f"{probabilities.shape}"
        )
    for start in range(0, len(probabilities), _BLOCK):
        block = probabilities[start : start + _BLOCK]
        sums = block.sum(axis=1, dtype="float64")
        # Half-precision softmax is off by some 1e-3. NaN fails the comparison too.
        wrong = ~(np.abs(sums - 1.0) < 1e-2) | (block.min(axis=1) < 0)
        if wrong.any():
            first = np.flatnonzero(wrong)[0]
            raise ValueError(
                "Expected rows of probabilities, not negative and of sum 1; logits need a softmax "
                f"first. Received: row {start + first} with sum {sums[first]:.6g} and minimum "
                f"{block[first].min():.6g}"
            )
    return probabilities


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class InceptionScore(keras.metrics.Metric):
    """Inception score of probabilities that come batch by batch.

    Samples are dealt to the splits in turn: number `i` since the last reset goes to split
    `i % splits`, so neither their number nor their order by class need be known, and memory is
    `8 * splits * classes` bytes. The score is `inception_score`'s of the samples sorted by
    `i % splits` (exactly so if `splits` divides their number; else the splits have the same sizes
    in another order). State is float64 in NumPy: batches are given eagerly, outside compiled
    functions.

    `merge_state(metrics)` adds what other metrics have seen, as if it had come after what this one
    has seen. `result()` is a dict of floats: `inception_score`, the mean over the splits, and
    `standard_deviation`.

    Args:
        splits: Positive integer.
        name: Name of the metric.

    Raises:
        ValueError: If `splits` is not positive, a row is no distribution, or `result()` finds fewer
            samples than splits.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    metric = keras_vqvae2.metrics.InceptionScore(splits=2)
    for _ in range(5):
        metric.update_state(np.eye(4)[[0, 0, 1, 1, 2, 2, 3, 3]])
    print(round(metric.result()["inception_score"], 6))  # 4.0
    ```

    Reference:
        - Salimans et al. 2016, arXiv 1606.03498; see `inception_score`.
    """

    def __init__(self, splits: int = 10, name: str = "inception_score", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        check_positive(splits=splits)
        self.splits = int(splits)
        self._sums: _SplitSums | None = None

    def update_state(self, probabilities: Tensor) -> None:
        """Adds a batch.

        Args:
            probabilities: Shape `(batch, classes)`; rows sum to 1.
        """
        probabilities = _as_probabilities(probabilities)
        sums = self._prepare(probabilities.shape[1])
        seen = sums.counts.sum()
        for i in range(self.splits):
            sums.add((seen + i) % self.splits, probabilities[i :: self.splits])

    def _prepare(self, classes):
        if self._sums is None:
            self._sums = _SplitSums(self.splits, classes)
        if classes != self._sums.totals.shape[1]:
            raise ValueError(
                f"Expected {self._sums.totals.shape[1]} classes, as before. Received: {classes}"
            )
        return self._sums

    def merge_state(self, metrics: Iterable[Self]) -> None:
        """Adds what other metrics have seen.

        Args:
            metrics: `InceptionScore`s of as many splits and classes.

        Raises:
            ValueError: If one differs in them.
        """
        metrics = list(metrics)
        for metric in metrics:
            if type(metric) is not type(self) or metric.splits != self.splits:
                raise ValueError(
                    f"Expected InceptionScore metrics of {self.splits} splits. Received: {metric}"
                )
        for metric in metrics:
            if metric._sums is None:
                continue
            sums = self._prepare(metric._sums.totals.shape[1])
            # Its first sample comes after our last, so its split 0 is our next.
            seen = sums.counts.sum()
            for name in ("counts", "totals", "negative_entropies"):
                shifted = np.roll(getattr(metric._sums, name), seen % self.splits, axis=0)
                setattr(sums, name, getattr(sums, name) + shifted)

    def result(self) -> dict[str, float]:
        if self._sums is None:
            raise ValueError("Expected probabilities before result(). Received: none")
        mean, deviation = self._sums.score()
        return {"inception_score": mean, "standard_deviation": deviation}

    def reset_state(self) -> None:
        self._sums = None

    def get_config(self) -> Config:
        return {**super().get_config(), "splits": self.splits}
