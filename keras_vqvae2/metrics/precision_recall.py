from typing import Any

import keras
import numpy as np

from keras_vqvae2.hints import Config, Tensor
from keras_vqvae2.metrics.feature_sets import FeatureSetMetric
from keras_vqvae2.metrics.nearest_neighbours import Distances, point_sets
from keras_vqvae2.validation import check_positive


def precision_recall(features: Tensor, reference: Tensor, nearest_k: int = 3) -> dict[str, float]:
    """Improved precision and recall of generated images, by their features.

    A set's manifold is estimated by the balls around its points that reach to their `nearest_k`-th
    nearest neighbours in the set. Precision is the share of generated features within the
    reference's manifold (fidelity), recall the share of reference features within the generated
    ones' (diversity). A feature on a ball's surface is inside.

    Distances come from float32 matrix products, tile by tile, with those that could decide
    otherwise computed again in float64: the numbers are those of float64, and a float32 copy of one
    set and some hundred megabytes are all that is held beside the features.

    Numbers on features of different networks, or of sets of other sizes, cannot be compared.

    Args:
        features: Of the generated images, shape `(N, D)`.
        reference: Of the images to compare with, shape `(M, D)`; `M = N` is usual.
        nearest_k: Positive integer below `N` and `M`.

    Returns:
        Dict of two floats in `[0, 1]`, `precision` and `recall`.

    Raises:
        ValueError: If the shapes do not fit, a number is not finite or a set is too small.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    reference = np.random.default_rng(0).normal(size=(50, 4))
    collapsed = np.repeat(reference[:1], 50, axis=0)  # one real image again and again
    measured = keras_vqvae2.metrics.precision_recall(collapsed, reference)
    print(measured)  # {'precision': 1.0, 'recall': 0.02}
    ```

    Reference:
        - Kynkäänniemi, Karras, Laine, Lehtinen, Aila 2019, "Improved Precision and Recall Metric
          for Assessing Generative Models", arXiv 1904.06991, section 3.
    """
    check_positive(nearest_k=nearest_k)
    generated, reference = point_sets(features, reference)
    radii, reference_radii = generated.radii(nearest_k), reference.radii(nearest_k)
    realistic = np.zeros(len(generated.points), "bool")
    covered = np.zeros(len(reference.points), "bool")
    for tile in Distances(reference, generated).tiles():
        realistic[tile.columns] |= tile.within(reference_radii[tile.rows, None]).any(axis=0)
        covered[tile.rows] |= tile.within(radii[None, tile.columns]).any(axis=1)
    return {
        "precision": float(np.average(realistic, weights=generated.counts)),
        "recall": float(np.average(covered, weights=reference.counts)),
    }


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class PrecisionRecall(FeatureSetMetric):
    """Improved precision and recall of features that come batch by batch.

    See `precision_recall`. Every feature must be kept, `4 * D` bytes each in float32 (410 MB for
    50,000 of width 2,048) and twice that for a moment in `result()`, in NumPy: features are given
    eagerly, outside compiled functions. `update_reference(features)` adds reference features, which
    `reset_state()` keeps; `merge_state(metrics)` adds what other replicas have seen. `result()` is
    a dict of floats, `precision` and `recall`.

    Args:
        reference: Features of shape `(M, D)`; None if `update_reference` adds them. It is data and
            no part of `get_config()`.
        nearest_k: Positive integer.
        name: Name of the metric.

    Raises:
        ValueError: If features do not fit, a number is not finite, or `result()` finds no more than
            `nearest_k` samples in a set.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    rng = np.random.default_rng(0)
    metric = keras_vqvae2.metrics.PrecisionRecall(reference=rng.normal(size=(50, 4)))
    for _ in range(2):
        metric.update_state(rng.normal(size=(25, 4)) + 100.0)
    print(metric.result())  # {'precision': 0.0, 'recall': 0.0}
    ```

    Reference:
        - Kynkäänniemi et al. 2019, arXiv 1904.06991; see `precision_recall`.
    """

    def __init__(
        self,
        reference: Tensor | None = None,
        nearest_k: int = 3,
        name: str = "precision_recall",
        **kwargs: Any,
    ) -> None:
        super().__init__(reference, name=name, **kwargs)
        check_positive(nearest_k=nearest_k)
        self.nearest_k = int(nearest_k)

    def _compare(self, generated, reference):
        return precision_recall(generated.features(), reference.features(), self.nearest_k)

    def get_config(self) -> Config:
        return {**super().get_config(), "nearest_k": self.nearest_k}
