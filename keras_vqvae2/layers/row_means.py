"""Means over the vectors of a batch, without those that are padding, over all replicas."""

from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Tensor


def row_weights(vectors: Tensor, real: Tensor | None) -> Tensor:
    """What each vector counts in the mean over the batch of all replicas.

    The sum over replicas of weighted sums, over the number of replicas, is the mean: replicas'
    losses and gradients are averaged, as `fit` does it.

    Args:
        vectors: Shape `(N, D)`.
        real: None, or booleans of shape `(N,)`, false where there is padding.

    Returns:
        float32 of shape `(N,)`.
    """
    ones = ops.ones_like(vectors[:, 0])
    if real is None:
        return ones / ops.cast(ops.shape(vectors)[0], "float32")
    counted = ops.where(real, ones, 0.0)
    count = backend.replica_sum(ops.sum(counted)) / backend.replica_count()
    return counted / ops.maximum(count, 1e-12)


def mean_square(a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    """The mean of squared differences of `(N, D)`, of which `row_weights` says what counts."""
    return ops.sum(weights * ops.mean(ops.square(a - b), axis=-1))


def without_padding(vectors: Tensor, real: Tensor | None) -> Tensor:
    """The vectors with zeros where there is padding, which may hold anything: `(N, D)`."""
    return vectors if real is None else ops.where(real[:, None], vectors, 0.0)
