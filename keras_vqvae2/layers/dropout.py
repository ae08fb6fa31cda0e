"""Dropout that can be computed again: gradient checkpointing must drop the same units twice."""

import keras
from keras import ops


class DrawnSeed(keras.random.SeedGenerator):
    """A seed that has been drawn once and stays.

    Args:
        seed: The `keras.random.SeedGenerator` it is drawn from.
    """

    def __init__(self, seed):
        self.drawn = seed.next()

    def next(self, ordered=True):
        return self.drawn


def dropout(x, rate, seed):
    """Zeroes a share `rate` of `x` and scales the rest by `1 / (1 - rate)`.

    `keras.random.dropout` leaves the seed aside on PyTorch unless it was given as a number.

    Args:
        x: Tensor.
        rate: Float in `[0, 1)`.
        seed: `keras.random.SeedGenerator`.
    """
    keep = keras.random.uniform(ops.shape(x), seed=seed) >= rate
    return ops.where(keep, x / (1.0 - rate), ops.zeros_like(x))
