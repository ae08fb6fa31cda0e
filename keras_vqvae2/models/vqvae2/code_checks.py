"""What maps of codes may look like where they enter a model."""

import numpy as np
from keras import ops


def complete_codes(codes, unit, num_embeddings):
    """Checks maps of codes and fills the levels that are left out with -1, for "unknown".

    Args:
        codes: Dict from level to integer codes of shape `(batch, rows, columns)`; not empty.
        unit: Dict from level to `(rows, columns)` of the smallest image's maps, coarse to fine.
        num_embeddings: Codes a level.

    Returns:
        Dict from level to int32 codes, for all levels of `unit`.

    Raises:
        ValueError: If a level is not in `unit`, sizes do not fit each other, or a code is not in
            `[0, num_embeddings)`.
    """
    if not codes or not set(codes) <= set(unit):
        raise ValueError(
            f"Expected a dict of code maps for some of the levels {tuple(unit)}. "
            f"Received: codes for {tuple(codes)}"
        )
    codes = {level: ops.convert_to_numpy(value) for level, value in codes.items()}
    sizes = {_images_size(level, value, unit[level]) for level, value in codes.items()}
    if len(sizes) > 1:
        received = {level: value.shape for level, value in codes.items()}
        raise ValueError(
            f"Expected maps of one image size: (rows, columns) a multiple of {unit}. "
            f"Received: codes of shapes {received}"
        )
    for level, value in codes.items():
        low, high = value.min(), value.max()
        if low < 0 or high >= num_embeddings:
            raise ValueError(
                f"Expected codes in [0, {num_embeddings}). "
                f"Received: codes[{level!r}] from {low} to {high}"
            )
    batch, rows, columns = sizes.pop()
    whole = {}
    for level, (unit_rows, unit_columns) in unit.items():
        shape = (batch, round(rows * unit_rows), round(columns * unit_columns))
        whole[level] = codes.get(level, np.full(shape, -1)).astype("int32")
    return whole


def _images_size(level, value, unit):
    """`(batch, rows, columns)` of the images a map stands for, counted in units."""
    if value.ndim != 3 or not np.issubdtype(value.dtype, np.integer) or not value.size:
        raise ValueError(
            "Expected integer codes of shape (batch, rows, columns). Received: "
            f"codes[{level!r}] of dtype {value.dtype} and shape {value.shape}"
        )
    batch, rows, columns = value.shape
    return batch, rows / unit[0], columns / unit[1]
