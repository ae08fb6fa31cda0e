"""Dropout that can be computed again: gradient checkpointing must drop the same units twice."""

import copy

import keras
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Tensor


def seed_apart(drawn: Tensor, number: Tensor) -> Tensor:
    """A seed for a number: far from those that follow, as a generator counts in ones."""
    return drawn + ops.cast(ops.multiply(number, 1_000_003), drawn.dtype)


class DrawnSeed(keras.random.SeedGenerator):
    """A seed that has been drawn once and stays.

    Args:
        seed: The `keras.random.SeedGenerator` it is drawn from.
    """

    def __init__(self, seed: keras.random.SeedGenerator) -> None:
        self.drawn = seed.next()

    def apart(self, number: Tensor) -> "DrawnSeed":
        """A seed for an int32 of shape `()`: for draws in a loop, which can move no state."""
        other = copy.copy(self)
        other.drawn = seed_apart(self.drawn, number)
        return other

    def next(self, ordered: bool = True) -> Tensor:
        return self.drawn


class ReplicaSeed(keras.random.SeedGenerator):
    """A seed of this replica's own: the generators of all replicas count alike.

    Args:
        seed: The `keras.random.SeedGenerator`.
    """

    def __init__(self, seed: keras.random.SeedGenerator) -> None:
        self.seed = seed

    def next(self, ordered: bool = True) -> Tensor:
        return seed_apart(self.seed.next(ordered), backend.replica_index())


def dropout(x: Tensor, rate: float, seed: keras.random.SeedGenerator) -> Tensor:
    """Zeroes a share `rate` of `x` and scales the rest by `1 / (1 - rate)`.

    `keras.random.dropout` leaves the seed aside on PyTorch unless it was given as a number.

    Args:
        x: Tensor.
        rate: Float in `[0, 1)`.
        seed: `keras.random.SeedGenerator`.
    """
    if backend.replica_count() > 1:
        seed = ReplicaSeed(seed)
    keep = keras.random.uniform(ops.shape(x), seed=seed) >= rate
    return ops.where(keep, x / (1.0 - rate), ops.zeros_like(x))
