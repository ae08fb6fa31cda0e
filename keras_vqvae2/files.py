"""Files that appear whole or not at all, folders of one process, and what a run was begun with."""

import contextlib
import errno
import json
import os
import reprlib
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_vqvae2.hints import FilePath

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["clear_unfinished", "keep_plan", "only_process", "replacing"]

_UNFINISHED = ".unfinished"
_MOST_NAMED = 6  # differences that a message names

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
    folder = staging_folder(path)
    try:
        temporary = folder / path.name
        yield temporary
        os.replace(temporary, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def replacing_folder(path: FilePath, what: str, check: Callable[[Path], None]) -> Iterator[Path]:
    """Yields an empty folder that takes the place of `path` once the block succeeds.

    Args:
        path: The folder to write.
        what: What it is, in the message of a system's error.
        check: Raises `ValueError` where what is in place must stay.
    """
    target = Path(os.path.expanduser(path)).resolve()
    check(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = staging_folder(target)
    new, old = staging / "new", staging / "old"
    try:
        new.mkdir()
        yield new
        check(target)
        if target.exists():
            os.rename(target, old)
        os.rename(new, target)
    except BaseException as error:
        if old.exists():
            os.rename(old, target)  # If even this fails, the staging folder keeps both.
        shutil.rmtree(staging)
        if isinstance(error, OSError) and error.errno:
            message = f"Cannot write {what} {target}: {error.strerror}"
            raise OSError(error.errno, message) from error
        raise
    shutil.rmtree(staging)


def staging_folder(path: Path) -> Path:
    """A new folder beside `path`, whose name tells `clear_unfinished` what it is for."""
    return Path(tempfile.mkdtemp(prefix=f".{path.name}-", suffix=_UNFINISHED, dir=path.parent))


def clear_unfinished(path: FilePath) -> None:
    """Removes what processes that were killed while they wrote `path` left beside it.

    A preset that was being replaced, and stood nowhere when the kill came, is put back.

    Args:
        path: The file or preset; its name may hold wildcards.
    """
    path = Path(os.path.expanduser(path))
    for folder in path.parent.glob(f".{path.name}-*{_UNFINISHED}"):
        target = path.parent / folder.name[1:].rpartition("-")[0]
        old = folder / "old"
        if old.is_dir() and not target.exists():
            os.rename(old, target)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def only_process(path: FilePath) -> Iterator[None]:
    """Holds a lock file while the block runs: of several processes, one works at a time.

    The lock is the operating system's, which gives it back however a process ends: a file that a
    kill left holds nobody up. Where there are no such locks (Windows, some network file systems)
    nobody is held up at all.

    Args:
        path: The lock file, in the folder that one process is to work in; missing folders are made.

    Raises:
        ValueError: If another process holds it; the message says which, where and since when.

    Example:

    ```python
    import keras_vqvae2

    with keras_vqvae2.files.only_process("run/.lock"):
        model, epoch, step = keras_vqvae2.callbacks.TrainingCheckpoint.restore("run")
    ```
    """
    path = Path(os.path.expanduser(path))
    made = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _locked(path)
    try:
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {since}")
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()
        if made:
            with contextlib.suppress(OSError):  # not empty
                path.parent.rmdir()


def _locked(path):
    while True:
        file = open(path, "a+")  # noqa: SIM115
        if fcntl is None:
            return file
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return file  # a file system without locks
            with file:
                file.seek(0)
                holder = file.read() or "another process"
            raise ValueError(
                "Expected a folder in which no other process works: wait for it, or choose another "
                f"folder. Received: {path.parent}, in use by {holder}"
            ) from None
        # The one before may have removed the file after it was opened here.
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()


def keep_plan(
    path: FilePath, plan: Mapping[str, Any], may_change: Collection[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Writes what a run is begun with, or compares with it what the run is to go on with.

    Args:
        path: The JSON file of the plan, in the run's folder.
        plan: By name: JSON values, dicts of them, classes, and Keras objects with a config. Names
            that the file does not hold are not compared.
        may_change: Names whose values may be others than before; the file then has the new ones.

    Returns:
        Dict of pairs `(before, now)` by name, of what changed. Within a dict, names are dotted.

    Raises:
        ValueError: If anything else differs: the message names it, with both values. Or if the file
            does not read.

    Example:

    ```python
    import keras_vqvae2

    plan = {"batch_size": 8, "steps": 100}
    keras_vqvae2.files.keep_plan("run/plan.json", plan)
    plan = {"batch_size": 8, "steps": 200}
    print(keras_vqvae2.files.keep_plan("run/plan.json", plan, may_change=["steps"]))
    # {'steps': (100, 200)}
    ```
    """
    path = Path(os.path.expanduser(path))
    plan = json.loads(json.dumps(plan, default=_plain))
    begun: dict[str, Any] = {}
    if path.exists():
        try:
            begun = dict(json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"Expected the settings with which {path.parent} was begun. Received: {path}, "
                f"which does not read ({brief(error)}); delete it if they are those of this call"
            ) from error
    changes = dict(_differences({name: begun.get(name, plan[name]) for name in plan}, plan))
    refused = [name for name in changes if name.split(".")[0] not in may_change]
    if refused:
        before, now = (
            ", ".join(f"{name}={brief(changes[name][i])}" for name in refused[:_MOST_NAMED])
            for i in (0, 1)
        )
        more = len(refused) - _MOST_NAMED
        raise ValueError(
            f"Expected {before}, with which {path.parent} was begun. Received: {now}"
            + (f", and {more} more that differ" if more > 0 else "")
        )
    if changes or not path.exists():
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({**begun, **plan}, indent=4))
    return changes


def _differences(before, now, prefix=""):
    for name in dict.fromkeys([*before, *now]):
        a, b = before.get(name), now.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{prefix}{name}.")
        elif a != b:
            yield f"{prefix}{name}", (a, b)


def _plain(value):
    """JSON for what is none: what a value is, without names that differ from object to object."""
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if hasattr(value, "get_config"):
        config = {k: v for k, v in value.get_config().items() if k != "name"}
        return {"class": _plain(type(value)), **_without_names(config)}
    return _plain(type(value))


def _without_names(value):
    if isinstance(value, dict) and {"class_name", "config"} <= set(value):
        config = {k: v for k, v in (value["config"] or {}).items() if k != "name"}
        return {"class": value["class_name"], **_without_names(config)}
    if isinstance(value, dict):
        return {k: _without_names(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_names(v) for v in value]
    return value


def brief(value: Any) -> str:
    """A value that came out of a file, or an error about it, on one short line."""
    if isinstance(value, BaseException):
        text = " ".join(str(value).split())
        return text if len(text) <= 300 else f"{text[:300]}…"
    return _REPR.repr(value)
