"""The levels of a model: their names, how much each shrinks its map, and sizes in general."""

import math
from collections.abc import Sequence


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
