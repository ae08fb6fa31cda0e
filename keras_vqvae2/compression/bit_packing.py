"""Integers as bits, one behind the other."""

from collections.abc import Sequence

import numpy as np


def bits_of(num_embeddings: int) -> int:
    """Bits that a code takes: `ceil(log2 K)`, and one at least, so that no map takes none."""
    return max(1, (num_embeddings - 1).bit_length())


def pack(values: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Codes as bits, the highest of each first.

    Args:
        values: Integers, code after code of position after position, of any shape.
        sizes: How many codes there are of each that a position has.

    Returns:
        Booleans, `bits_of` them for each code.

    Raises:
        ValueError: If a code is larger.
    """
    positions = values.reshape(-1, len(sizes))
    largest = positions.max(axis=0)
    if (largest >= sizes).any():
        raise ValueError(
            f"Expected codes below {tuple(sizes)}, of those of a position. "
            f"Received: codes up to {tuple(largest.tolist())}"
        )
    columns = [
        (positions[:, i] >> bit & 1).astype(bool)
        for i, size in enumerate(sizes)
        for bit in reversed(range(bits_of(size)))
    ]
    return np.stack(columns, axis=-1).ravel()


def unpack(flags: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """The integers that `pack` was given, int64 of shape `(positions, len(sizes))`."""
    bits = [bits_of(size) for size in sizes]
    columns = flags.reshape(-1, sum(bits))
    values = np.zeros((len(columns), len(sizes)), "int64")
    place = 0
    for i, number in enumerate(bits):
        for _ in range(number):
            values[:, i] = values[:, i] << 1 | columns[:, place]
            place += 1
    return values
