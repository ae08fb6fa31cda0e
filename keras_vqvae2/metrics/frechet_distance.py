import contextlib
import warnings
from typing import Any

import keras
import numpy as np

from keras_vqvae2.hints import Config, Tensor
from keras_vqvae2.metrics.feature_sets import FeatureSetMetric, as_features, check_widths
from keras_vqvae2.metrics.feature_statistics import (
    FeatureStatistics,
    check_extractors,
    check_moments,
)


def frechet_distance(
    features: Tensor | tuple[Tensor, Tensor] | FeatureStatistics,
    reference: Tensor | tuple[Tensor, Tensor] | FeatureStatistics,
) -> float:
    """Fréchet distance between the Gaussians of two sets of features.

    `|m - r|^2 + tr(A + B - 2 (A B)^(1/2))`, with means `m`, `r` and unbiased covariances `A`, `B`,
    in float64. With `A = L L^T` and `B = R R^T` the last trace is the sum of the singular values of
    `L^T R`: nothing is inverted and no root of rounding noise is taken, so sets whose covariance
    is singular (too few samples, duplicates, constant features) are as exact as others. Of fewer
    samples than features are wide, `L` is the centred samples themselves.

    On features of the Inception network of 2015 this is the Fréchet inception distance (FID); on
    any others it is not, and the features' name belongs beside the number.

    Args:
        features: Of the generated images: shape `(N, D)`; or `FeatureStatistics`; or a tuple
            of the mean `(D,)` and the covariance `(D, D)`.
        reference: Likewise, of the images to compare with.

    Returns:
        Float, not negative, in squared units of the features; 0 for equal Gaussians.

    Raises:
        ValueError: If the shapes do not fit, a number is not finite, a set has fewer than 2 samples
            or both are statistics, of different extractors.

    Warns:
        UserWarning: If a set has no more samples than features are wide. Such a covariance is
            singular and the distance far too large; 10,000 samples and more are usual.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    features = np.random.default_rng(0).normal(size=(1000, 4))
    distance = keras_vqvae2.metrics.frechet_distance(features + [3, 0, 0, 0], features)
    print(round(distance, 6))  # 9.0
    ```

    Reference:
        - Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter 2017, "GANs Trained by a Two
          Time-Scale Update Rule Converge to a Local Nash Equilibrium", arXiv 1706.08500, equation
          6.
        - Dowson, Landau 1982, "The Fréchet Distance between Multivariate Normal Distributions".
    """
    if isinstance(features, FeatureStatistics) and isinstance(reference, FeatureStatistics):
        check_extractors(features, reference)
    mean, factor = _mean_and_factor(features, "features")
    reference_mean, reference_factor = _mean_and_factor(reference, "reference")
    check_widths(len(mean), len(reference_mean))
    products = factor.T @ reference_factor  # (rank, rank)
    root = np.linalg.svd(products, compute_uv=False).sum() if products.size else 0.0
    distance = np.sum((mean - reference_mean) ** 2) + np.sum(factor**2)
    return max(float(distance + np.sum(reference_factor**2) - 2.0 * root), 0.0)


def _mean_and_factor(given, name):
    """The mean `(D,)` and `L` `(D, rank)`, of which `L L^T` is the covariance, in float64."""
    if isinstance(given, tuple):
        if len(given) != 2:
            raise ValueError(f"Expected a mean and a covariance. Received: {len(given)} arrays")
        check_moments(*given)
        mean, covariance = (np.asarray(moment, "float64") for moment in given)
        return mean, _factor(covariance)
    samples = None if isinstance(given, FeatureStatistics) else as_features(given)
    statistics = given if samples is None else FeatureStatistics(samples)
    mean, covariance = statistics.mean, statistics.covariance  # of two samples at least
    if statistics.count <= statistics.width:
        warnings.warn(
            f"The Fréchet distance of features of width {statistics.width} expected at least "
            f"{statistics.width + 1} samples, and 10,000 or more are usual. Received: {name} of "
            f"{statistics.count} samples, which make it too large",
            stacklevel=3,
        )
        if samples is not None:
            return mean, (samples - mean).T / np.sqrt(len(samples) - 1)
    return mean, _factor(covariance)


def _factor(covariance):
    """`L` of a covariance."""
    with contextlib.suppress(np.linalg.LinAlgError):
        # Four times as fast as eigenvalues, and as exact if none is below 1e-10 of their sum.
        np.linalg.cholesky(covariance - 1e-10 * np.trace(covariance) * np.eye(len(covariance)))
        return np.linalg.cholesky(covariance)
    values, vectors = np.linalg.eigh(covariance)
    # Eigenvalues below are noise of the decomposition, and their roots would be millions of times
    # larger than they.
    kept = values > len(values) * np.finfo("float64").eps * max(values.max(), 0.0)
    return vectors[:, kept] * np.sqrt(values[kept])


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class FrechetDistance(FeatureSetMetric):
    """Fréchet distance of generated features to reference features, added batch by batch.

    See `frechet_distance`. The state is a `FeatureStatistics` a set, in NumPy: features are given
    eagerly, outside compiled functions. `update_reference(features)` adds reference features, which
    `reset_state()` keeps; `merge_state(metrics)` adds what other replicas have seen.

    Args:
        reference: Features of shape `(N, D)` or `FeatureStatistics`, such as a data set's that were
            loaded from a file; None if `update_reference` adds them. It is data and no part of
            `get_config()`.
        extractor: None, or the name of the network that makes the features, as
            `FeatureExtractor.name`: a reference of another name is an error.
        name: Name of the metric.

    Raises:
        ValueError: If features do not fit, a number is not finite, a set is of another extractor,
            or `result()` finds a set of fewer than 2 samples.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    rng = np.random.default_rng(0)
    metric = keras_vqvae2.metrics.FrechetDistance()
    for _ in range(4):
        batch = rng.normal(size=(100, 4))
        metric.update_reference(batch)
        metric.update_state(batch + 1.0)
    print(round(metric.result(), 6))  # 4.0
    ```

    Reference:
        - Heusel et al. 2017, arXiv 1706.08500; see `frechet_distance`.
    """

    def __init__(
        self,
        reference: Tensor | FeatureStatistics | None = None,
        extractor: str | None = None,
        name: str = "frechet_distance",
        **kwargs: Any,
    ) -> None:
        self.extractor = extractor  # new sets are of it
        super().__init__(reference, name=name, **kwargs)

    def _new_set(self):
        return FeatureStatistics(extractor=self.extractor)

    def _given_set(self, reference):
        statistics = self._new_set()
        if isinstance(reference, FeatureStatistics):
            statistics.merge(reference)
        else:
            statistics.update(reference)
        return statistics

    def _compare(self, generated, reference):
        return frechet_distance(generated, reference)

    def get_config(self) -> Config:
        return {**super().get_config(), "extractor": self.extractor}
