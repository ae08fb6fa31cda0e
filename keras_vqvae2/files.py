"""Writing files so that a kill at any moment leaves the old one or the new one, never half."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from keras_vqvae2.hints import FilePath

__all__ = ["replacing"]


@contextlib.contextmanager
def replacing(path: FilePath) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which takes its place once the block succeeds.

    The temporary name keeps the suffix of `path`; missing folders are made.

    Args:
        path: The file to write.

    Example:

    ```python
    from keras_vqvae2.files import replacing

    with replacing("metrics.json") as temporary:
        temporary.write_text("{}")
    ```
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        yield temporary
        os.replace(temporary, path)
