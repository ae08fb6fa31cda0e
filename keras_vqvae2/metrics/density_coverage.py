from typing import Any

import keras
import numpy as np

from keras_vqvae2.hints import Config, Tensor
from keras_vqvae2.metrics.feature_sets import FeatureSetMetric
from keras_vqvae2.metrics.nearest_neighbours import (
    Distances,
    point_sets,
    positions,
)
from keras_vqvae2.validation import check_positive


def density_coverage(features: Tensor, reference: Tensor, nearest_k: int = 5) -> dict[str, float]:
    """Density and coverage of generated images, by their features.

    Around each reference feature lies a ball that reaches to its `nearest_k`-th nearest neighbour
    in the reference. Density is the mean number of balls that a generated feature lies in, divided
    by `nearest_k`: fidelity that, unlike precision, one outlier with a huge ball does not raise.
    Coverage is the share of balls with a generated feature inside: diversity. A feature on a ball's
    surface is outside.

    Computed as `precision_recall` is: exact, in tiles of bounded memory.

    Args:
        features: Of the generated images, shape `(N, D)`.
        reference: Of the images to compare with, shape `(M, D)`.
        nearest_k: Positive integer below `M`.

    Returns:
        Dict of two floats: `density`, not negative and about 1 where the sets are alike, and
        `coverage` in `[0, 1]`.

    Raises:
        ValueError: If the shapes do not fit, a number is not finite or a set is too small.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    reference = np.random.default_rng(0).normal(size=(50, 4))
    print(keras_vqvae2.metrics.density_coverage(reference, reference))
    # {'density': 1.0, 'coverage': 1.0}
    ```

    Reference:
        - Naeem, Oh, Uh, Choi, Yoo 2020, "Reliable Fidelity and Diversity Metrics for Generative
          Models", arXiv 2002.09797, section 3.
    """
    check_positive(nearest_k=nearest_k)
    generated, reference = point_sets(features, reference)
    radii = reference.radii(nearest_k)
    covered = np.zeros(len(reference.points), "bool")
    inside_balls = 0
    for tile in Distances(reference, generated).tiles():
        inside = tile.within(radii[tile.rows, None], strict=True)
        covered[tile.rows] |= inside.any(axis=1)
        i, j = positions(inside)
        inside_balls += reference.counts[tile.rows][i] @ generated.counts[tile.columns][j]
    return {
        "density": float(inside_balls / (nearest_k * generated.counts.sum())),
        "coverage": float(np.average(covered, weights=reference.counts)),
    }


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class DensityCoverage(FeatureSetMetric):
    """Density and coverage of features that come batch by batch.

    See `density_coverage`. Every feature must be kept, `4 * D` bytes each in float32 (410 MB for
    50,000 of width 2,048) and twice that for a moment in `result()`, in NumPy: features are given
    eagerly, outside compiled functions. `update_reference(features)` adds reference features, which
    `reset_state()` keeps; `merge_state(metrics)` adds what other replicas have seen. `result()` is
    a dict of floats, `density` and `coverage`.

    Args:
        reference: Features of shape `(M, D)`; None if `update_reference` adds them. It is data and
            no part of `get_config()`.
        nearest_k: Positive integer.
        name: Name of the metric.

    Raises:
        ValueError: If features do not fit, a number is not finite, or `result()` finds no more than
            `nearest_k` reference features.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    rng = np.random.default_rng(0)
    metric = keras_vqvae2.metrics.DensityCoverage(reference=rng.normal(size=(50, 4)))
    for _ in range(2):
        metric.update_state(rng.normal(size=(25, 4)) + 100.0)
    print(metric.result())  # {'density': 0.0, 'coverage': 0.0}
    ```

    Reference:
        - Naeem et al. 2020, arXiv 2002.09797; see `density_coverage`.
    """

    def __init__(
        self,
        reference: Tensor | None = None,
        nearest_k: int = 5,
        name: str = "density_coverage",
        **kwargs: Any,
    ) -> None:
        super().__init__(reference, name=name, **kwargs)
        check_positive(nearest_k=nearest_k)
        self.nearest_k = int(nearest_k)

    def _compare(self, generated, reference):
        return density_coverage(generated.features(), reference.features(), self.nearest_k)

    def get_config(self) -> Config:
        return {**super().get_config(), "nearest_k": self.nearest_k}
