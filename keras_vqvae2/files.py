"""Files that appear whole or not at all, and what messages say of their content."""

import contextlib
import os
import reprlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_vqvae2.hints import FilePath

__all__ = ["replacing"]

_REPR = reprlib.Repr()
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = 10
_REPR.maxlevel = 3
_REPR.maxstring = _REPR.maxother = 300


@contextlib.contextmanager
def replacing(path: FilePath) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which takes its place once the block succeeds.

    A kill at any moment leaves the old file or the new one, never half. The temporary name keeps
    the suffix of `path`; missing folders are made.

    Args:
        path: The file to write. `~` is the home of the user.
    """
    path = Path(os.path.expanduser(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        yield temporary
        os.replace(temporary, path)


def brief(value: Any) -> str:
    """A value that came out of a file, or an error about it, on one short line."""
    if isinstance(value, BaseException):
        text = " ".join(str(value).split())
        return text if len(text) <= 300 else f"{text[:300]}…"
    return _REPR.repr(value)
