"""Checks of arguments that many constructors and functions share."""

from typing import Any


def check_positive(**values: Any) -> None:
    """Raises `ValueError` that names the first value that is not a positive integer."""
    for name, value in values.items():
        try:
            positive = int(value) == value and value >= 1
        except (TypeError, ValueError, OverflowError):
            positive = False
        if not positive:
            raise ValueError(f"Expected a positive integer. Received: {name}={value}")
