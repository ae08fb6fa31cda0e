"""Integers as bits, one behind the other."""

import numpy as np


def bits_of(num_embeddings: int) -> int:
    """Bits that a code takes: `ceil(log2 K)`, and one at least, so that no map takes none."""
    return max(1, (num_embeddings - 1).bit_length())


def pack(values: np.ndarray, bits: int) -> np.ndarray:
    """The lowest `bits` of each integer, the highest first: booleans of shape `(N * bits,)`."""
    values = values.ravel()
    flags = np.empty((len(values), bits), bool)
    for i in range(bits):
        flags[:, i] = values >> (bits - 1 - i) & 1
    return flags.ravel()


def unpack(flags: np.ndarray, bits: int) -> np.ndarray:
    """The integers that `pack` was given, int64 of shape `(N,)`."""
    columns = flags.reshape(-1, bits)
    values = np.zeros(len(columns), "int64")
    for i in range(bits):
        values = values << 1 | columns[:, i]
    return values
