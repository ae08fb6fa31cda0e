"""A scope in which other programs than the backend's own are to understand what is traced."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

_plain = contextvars.ContextVar("plain", default=False)


@contextlib.contextmanager
def plain_operations() -> Iterator[None]:
    """A scope for what is traced to run elsewhere, in ONNX Runtime or LiteRT.

    In it `map_range` writes its turns one after the other, as many as sizes say that are fixed, and
    `matmul_float32` is a product like any other: a runtime has its own idea of precision.
    """
    before = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(before)


def plain_inside(plain: Callable[..., Any], usual: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is `plain` inside of the scope, and else `usual`."""

    @functools.wraps(usual)
    def function(*args: Any) -> Any:
        return (plain if _plain.get() else usual)(*args)

    return function
