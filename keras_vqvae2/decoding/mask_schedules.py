"""How many codes stay masked, and in which order they are drawn."""

import re

import numpy as np

from keras_vqvae2.hints import Tensor

SMALLEST = 1e-6  # MaskGIT's: a share is never 0


def masked_share(schedule: str, progress: Tensor, positions: Tensor) -> np.ndarray:
    """The share of the codes that is masked, from 1 at the start to nothing at the end.

    ```
    cosine   cos(pi r / 2)                 log   -log2(r) / log2(n)
    arccos   arccos(r) 2 / pi              exp   1 - n^(r - 1)
    uniform  1 - r                         pow2  1 - r^2, and so pow with any positive number
    ```

    In float64 on the host: `n * share` is rounded later, and may lie on a whole number.

    Args:
        schedule: One of these names.
        progress: Numbers r in `[0, 1]`.
        positions: Number n of the codes, for `"log"` and `"exp"`.

    Returns:
        float64 in `[1e-6, 1]`, of the shape of `progress` and `positions` together.

    Raises:
        ValueError: For other names.

    Reference:
        - Chang et al. 2022, "MaskGIT", arXiv 2202.04200, section 3.3; arccos: MaskBit, TiTok, and
          Besnier et al. 2025, "Halton Scheduler for Masked Generative Image Transformer".
    """
    power = check_schedule(schedule)
    r = np.asarray(progress, "float64")
    bits = np.log2(np.maximum(np.asarray(positions, "float64"), 2))
    if power is not None:
        share = 1 - r**power
    elif schedule == "uniform":
        share = 1 - r
    elif schedule == "cosine":
        share = np.cos(np.pi * r / 2)
    elif schedule == "arccos":
        share = np.arccos(r) * 2 / np.pi
    elif schedule == "log":
        share = -np.log2(np.maximum(r, SMALLEST)) / bits
    else:
        share = 1 - 2 ** (-bits * (1 - r))
    return np.clip(share, SMALLEST, 1)


def check_schedule(schedule: str) -> float | None:
    """Raises `ValueError` unless there is such a schedule; returns the number behind `"pow"`."""
    power = re.fullmatch(r"pow(\d+\.?\d*)", schedule) if isinstance(schedule, str) else None
    if power and float(power[1]) > 0:
        return float(power[1])
    if power or schedule not in ("uniform", "cosine", "arccos", "log", "exp"):
        raise ValueError(
            "Expected 'cosine', 'arccos', 'uniform', 'log', 'exp' or 'pow2' with any positive "
            f"number. Received: mask_schedule={schedule!r}"
        )
    return None


def masked_counts(schedule: str, num_steps: int, unknown: np.ndarray) -> np.ndarray:
    """How many codes of each map are masked again after each pass.

    The share of those that were unknown at the start, rounded down; at least one, and fewer than
    before, as MaskGIT has it. What the last pass draws stays.

    Args:
        schedule: As in `masked_share`.
        num_steps: Positive integer, passes.
        unknown: Integers of shape `(batch,)`, codes to draw of each map.

    Returns:
        int32 of shape `(num_steps, batch)`.
    """
    unknown = np.asarray(unknown)
    before, counts = unknown, []
    for step in range(num_steps):
        share = masked_share(schedule, (step + 1) / num_steps, unknown)
        before = np.maximum(1, np.minimum(before - 1, np.floor(unknown * share)))
        counts.append(before)
    return np.stack(counts).astype("int32")


def halton_ranks(rows: int, columns: int) -> np.ndarray:
    """When each position is drawn, if the order is that of a Halton sequence in two dimensions.

    Its points (bases 2 and 3) spread evenly: what is drawn together lies far apart.

    Args:
        rows: Positive integer.
        columns: Positive integer.

    Returns:
        int32 of shape `(rows, columns)`: a permutation of 0, 1, ...

    Reference:
        - Besnier et al. 2025, "Halton Scheduler for Masked Generative Image Transformer",
          arXiv 2503.17076.
    """
    size = np.array([rows, columns])
    ranks = np.full((rows, columns), -1, "int32")
    rank = number = 0
    while rank < rows * columns:
        place = np.array([_radical_inverse(number, base) for base in (2, 3)])
        row, column = (place * size).astype(int)
        if ranks[row, column] < 0:
            ranks[row, column] = rank
            rank += 1
        number += 1
    return ranks


def _radical_inverse(number, base):
    """The digits of a number behind the point, in turned order."""
    value, digit = 0.0, 1.0
    while number:
        digit /= base
        number, rest = divmod(number, base)
        value += rest * digit
    return value
