import zipfile
from typing import Any, Self

import numpy as np

from keras_vqvae2.files import replacing
from keras_vqvae2.hints import FilePath, Tensor
from keras_vqvae2.metrics.feature_sets import as_features, check_widths

_BLOCK = 4096  # rows turned into float64 at a time


class FeatureStatistics:
    """Mean and covariance of features, added batch by batch.

    State is the number of samples, their mean and their scatter, the sum of
    `(x - mean)(x - mean)^T`, in float64: `8 * D * (D + 1)` bytes, whatever the number of samples.
    Batches are joined by the update of Chan, Golub and LeVeque, which, unlike sums of squares,
    loses nothing where the mean is large beside the spread.

    Args:
        features: None, or the first features, shape `(N, D)`.
        extractor: None, or the name of the network that made them, as `FeatureExtractor.name`.
            Statistics of different names are neither merged nor compared.

    Attributes:
        count: Number of samples.
        width: `D`; None before the first features.
        mean: float64, shape `(D,)`.
        covariance: float64, shape `(D, D)`: the unbiased one, divided by `count - 1`.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    features = np.random.default_rng(0).normal(size=(100, 3))
    statistics = keras_vqvae2.metrics.FeatureStatistics()
    for batch in np.split(features, 4):
        statistics.update(batch)
    print(np.allclose(statistics.covariance, np.cov(features, rowvar=False)))  # True
    statistics.save("reference.npz")
    print(keras_vqvae2.metrics.FeatureStatistics.load("reference.npz").count)  # 100
    ```

    Reference:
        - Chan, Golub, LeVeque 1983, "Algorithms for Computing the Sample Variance".
    """

    def __init__(self, features: Tensor | None = None, extractor: str | None = None) -> None:
        if not isinstance(extractor, (str, type(None))):
            raise ValueError(f"Expected a name or None. Received: {extractor=}")
        self.extractor = extractor
        self.count = 0
        self._mean: Any = None  # arrays, as soon as there are features
        self._scatter: Any = None
        if features is not None:
            self.update(features)

    @property
    def width(self) -> int | None:
        return None if self._mean is None else len(self._mean)

    @property
    def mean(self) -> np.ndarray:
        self._check_count(1)
        return self._mean.copy()

    @property
    def covariance(self) -> np.ndarray:
        self._check_count(2)
        return self._scatter / (self.count - 1)

    def update(self, features: Tensor) -> None:
        """Adds features.

        Args:
            features: Array or tensor of shape `(batch, D)`.

        Raises:
            ValueError: If the shape does not fit or a number is not finite.
        """
        features = as_features(features)
        if self._mean is None:
            self._mean = np.zeros(features.shape[1])
            self._scatter = np.zeros((features.shape[1], features.shape[1]))
        check_widths(features.shape[1], self.width)
        for start in range(0, len(features), _BLOCK):
            block = features[start : start + _BLOCK].astype("float64")  # (b, D)
            mean = block.mean(axis=0)
            block -= mean
            self._join(len(block), mean, block)

    def merge(self, other: Self) -> None:
        """Adds what another `FeatureStatistics` has seen, and its extractor if none is known.

        Raises:
            ValueError: If it is of another width or of another extractor.
        """
        check_extractors(self, other)
        if not other.count:
            return
        self.extractor = self.extractor or other.extractor
        if not self.count:
            self._mean, self._scatter = np.zeros_like(other._mean), np.zeros_like(other._scatter)
        check_widths(other.width, self.width)
        scatter = other._scatter.copy()  # also where `other` is this one
        self._join(other.count, other._mean, np.empty((0, other.width)))
        self._scatter += scatter

    def _join(self, count, mean, centred):
        """Adds `count` samples of this mean and of the scatter `centred^T centred`."""
        total = self.count + count
        step = mean - self._mean
        # The means' difference enters the scatter as one more row.
        rows = np.concatenate([centred, np.sqrt(self.count * count / total) * step[None]])
        self._scatter += rows.T @ rows  # (D, b + 1) @ (b + 1, D)
        self._mean = self._mean + (count / total) * step
        self.count = total

    def save(self, path: FilePath) -> None:
        """Writes an `.npz` file: `mu`, `sigma` (the names other tools read), `count`, `extractor`.

        Args:
            path: The file, which the finished one replaces at once.

        Raises:
            ValueError: If there are fewer than 2 samples, or the name does not end in `.npz`.
        """
        if not str(path).endswith(".npz"):
            raise ValueError(f"Expected a name that ends in .npz. Received: {path}")
        content: dict[str, Any] = {"mu": self.mean, "sigma": self.covariance, "count": self.count}
        if self.extractor is not None:
            content["extractor"] = self.extractor
        with replacing(path) as temporary:
            np.savez(temporary, **content)

    @classmethod
    def load(cls, path: FilePath) -> Self:
        """Reads a file that `save` wrote.

        Args:
            path: The file.

        Returns:
            `FeatureStatistics`, which can be updated further.

        Raises:
            ValueError: If the file holds anything else.
        """
        try:
            with np.load(path) as content:
                mean, covariance, count = content["mu"], content["sigma"], int(content["count"])
                extractor = str(content["extractor"]) if "extractor" in content else None
            check_moments(mean, covariance)
            if count < 2:
                raise ValueError(f"{count=}")
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"Expected {path} to hold mu, sigma and count, as FeatureStatistics.save writes "
                f"them. Received: {error}"
            ) from error
        statistics = cls(extractor=extractor)
        statistics.count = count
        statistics._mean = mean.astype("float64")
        statistics._scatter = covariance.astype("float64") * (count - 1)
        return statistics

    def _check_count(self, needed):
        if self.count < needed:
            raise ValueError(f"Expected at least {needed} samples. Received: {self.count}")


def check_extractors(statistics: FeatureStatistics, reference: FeatureStatistics) -> None:
    """Raises `ValueError` if the two are known to be of different networks' features."""
    names = statistics.extractor, reference.extractor
    if None not in names and names[0] != names[1]:
        raise ValueError(
            f"Expected statistics of one network's features. Received: {names[0]} and {names[1]}"
        )


def check_moments(mean: Tensor, covariance: Tensor) -> None:
    """Raises `ValueError` unless these can be a mean `(D,)` and a covariance `(D, D)`."""
    mean, covariance = np.asarray(mean), np.asarray(covariance)
    if mean.ndim != 1 or covariance.shape != 2 * mean.shape:
        raise ValueError(
            "Expected a mean of shape (D,) and a covariance of shape (D, D). Received: "
            f"{mean.shape} and {covariance.shape}"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError("Expected a finite mean and covariance. Received: NaN or infinity")
    if not np.allclose(covariance, covariance.T, rtol=1e-5, atol=1e-5 * np.abs(covariance).max()):
        raise ValueError("Expected a symmetric covariance. Received: one that is not")
