"""The levels of a model: their names, how much each shrinks its map, and sizes in general."""

import math
from collections.abc import Sequence

import numpy as np

from keras_vqvae2.hints import Tensor
from keras_vqvae2.image_batches import to_numpy
from keras_vqvae2.validation import check_codes, side_by_side


def level_names(num_levels: int) -> tuple[str, ...]:
    """Names of the levels, coarse to fine."""
    if num_levels <= 3:
        return {1: ("bottom",), 2: ("top", "bottom"), 3: ("top", "middle", "bottom")}[num_levels]
    return tuple(f"level_{i}" for i in range(num_levels))


def check_factors(factors: Sequence[int] | None, num_levels: int) -> tuple[int, ...]:
    if factors is None:
        factors = (2,) * (num_levels - 1) + (4 if num_levels <= 2 else 8,)
    factors = tuple(factors)
    powers = [f >= 2 and math.log2(f).is_integer() for f in factors]
    if len(factors) != num_levels or not all(powers):
        raise ValueError(
            f"Expected a power of two, at least 2, for each of the {num_levels} levels. "
            f"Received: downsample_factors={factors}"
        )
    return factors


def codes_by_position(
    codes: Tensor, num_embeddings: int, axes: tuple[int, ...], argument: str
) -> np.ndarray:
    """Checks the codes of a level, which may stand side by side.

    Args:
        codes: Integers in `[-1, num_embeddings)`, of shape `(batch, rows, columns, *axes)`, or
            `(batch, rows, columns * depth)` where a position has `depth` codes.
        num_embeddings: Positive integer.
        axes: Shape of the codes of a position: `()`, or several.
        argument: What the codes are called in errors.

    Returns:
        The codes, of shape `(batch, rows, columns, *axes)`.

    Raises:
        ValueError: If they do not fit.
    """
    codes, depth = to_numpy(codes), math.prod(axes)
    if axes and (codes.shape[3:] not in ((), axes) or math.prod(codes.shape[2:]) % depth):
        raise ValueError(
            f"Expected {depth} codes a position: (batch, rows, columns, {depth}), or "
            f"side by side. Received: {argument} of shape {codes.shape}"
        )
    flat = side_by_side(codes) if axes else codes
    checked = check_codes(flat, num_embeddings, argument=argument)
    return np.reshape(checked, (*checked.shape[:2], -1, *axes)) if axes else checked


def touched(mask: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Which codes of a map touch a masked pixel, or neighbour one that does.

    Args:
        mask: Booleans of shape `(N, H, W)`.
        shape: `(rows, columns, ...)` of the map.

    Returns:
        Booleans of shape `(N, rows, columns, ...)`, with 1 for what follows the columns.
    """
    count, height, width = mask.shape
    rows, columns = shape[:2]
    cells = mask.reshape(count, rows, height // rows, columns, width // columns)
    cells = np.pad(cells.any(axis=(2, 4)), ((0, 0), (1, 1), (1, 1)))
    found = np.logical_or.reduce(
        [cells[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    )
    return found.reshape(*found.shape, *(1 for _ in shape[2:]))
