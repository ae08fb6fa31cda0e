"""Preset directories on disk: finding, reading, verifying and writing them.

    config.json         the class and its constructor arguments
    metadata.json       versions, parameter count, SHA-256 of the other files
    model.weights.h5    the weights; or model.weights.json and model_00000.weights.h5, ...

This is KerasHub's format. KerasHub reads nothing of `metadata.json`.
"""

import collections
import concurrent.futures
import contextlib
import datetime
import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import ml_dtypes
import numpy as np

from keras_vqvae2.files import brief, replacing, replacing_folder
from keras_vqvae2.hints import Config, FilePath
from keras_vqvae2.models.preset_config import parse_config, registered_class, serialize_model
from keras_vqvae2.version import __version__

CONFIG_FILE = "config.json"
METADATA_FILE = "metadata.json"
WEIGHTS_FILE = "model.weights.h5"
MOST_RANDOM_WEIGHTS = 4096  # arrays of a model that is built without a file to hold it to
SHARDED_WEIGHTS_FILE = "model.weights.json"
BUNDLED_PRESETS = Path(__file__).parents[1] / "presets"

_FILES = re.compile(r"config\.json|metadata\.json|model\.weights\.(h5|json)|model_\d+\.weights\.h5")
# The parts of a preset that is made of several models.
_PARTS = re.compile(r"vqvae|prior_\w+")
_NAME = r"\w[\w.-]*"
# What file managers leave in the folders that people look into.
_OF_FILE_MANAGERS = re.compile(r"\.DS_Store|Thumbs\.db|desktop\.ini|\._.*")
_BFLOAT16 = np.dtype("V2")  # as h5py sees it


def locate(preset: str) -> Path | None:
    """Returns the directory of a preset that is not registered, downloading it if need be.

    Args:
        preset: A directory, `"hf://user/repo"` or
            `"kaggle://user/model/keras/variation[/version]"`.

    Returns:
        A `pathlib.Path`, or `None` if `preset` is neither an address nor a directory.

    Raises:
        ValueError: If `preset` is an address of another form.
        ImportError: If the package that downloads is absent.
    """
    scheme, separator, handle = preset.partition("://")
    if not separator or scheme not in ("hf", "kaggle"):
        path = Path(os.path.expanduser(preset))
        if path.is_dir() or not separator:
            return path if path.is_dir() else None
    if scheme == "hf" and re.fullmatch(rf"{_NAME}/{_NAME}", handle):
        try:
            import huggingface_hub
        except ImportError as error:
            raise ImportError(_pip_line("huggingface_hub", preset)) from error
        return Path(huggingface_hub.snapshot_download(handle))
    if scheme == "kaggle" and re.fullmatch(rf"{_NAME}/{_NAME}/keras/{_NAME}(/\d+)?", handle):
        try:
            import kagglehub
        except ImportError as error:
            raise ImportError(_pip_line("kagglehub", preset)) from error
        return Path(kagglehub.model_download(handle))
    raise ValueError(
        "Expected 'hf://user/repo' or 'kaggle://user/model/keras/variation[/version]'. "
        f"Received: preset={preset!r}"
    )


def read_config(directory: FilePath) -> tuple[type[Any], Config]:
    """Reads the class and the constructor arguments of the model in a preset directory.

    Args:
        directory: The preset directory.

    Returns:
        `(model_class, config)`; `model_class.from_config(config)` builds the model.

    Raises:
        FileNotFoundError: If `config.json` or `metadata.json` is missing.
        ValueError: If `config.json` is not JSON, holds an object of a foreign class, or is not
            the file that `metadata.json` describes.
    """
    path = Path(directory) / CONFIG_FILE
    _require(directory, CONFIG_FILE, METADATA_FILE)
    try:
        config = parse_config(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"Cannot read {path}. {error}") from error
    checksums = _checksums(directory)
    if CONFIG_FILE in checksums:  # not before version 0.2
        _verify(path, checksums)
    return registered_class(config), config["config"]


def verified_weights(directory: FilePath) -> list[Path]:
    """Finds the weights files of a preset directory and compares them with their checksums.

    Args:
        directory: The preset directory.

    Returns:
        A list of paths: the one to give to `load_weights`, then its shards if it has any.

    Raises:
        FileNotFoundError: If there are no weights, or not all of them.
        ValueError: If a shard lies outside the directory or a checksum differs.
    """
    directory = Path(directory)
    if (directory / WEIGHTS_FILE).exists():
        names = [WEIGHTS_FILE]
    elif (directory / SHARDED_WEIGHTS_FILE).exists():
        names = [SHARDED_WEIGHTS_FILE, *_shard_names(directory / SHARDED_WEIGHTS_FILE)]
    else:
        _require(directory, f"{WEIGHTS_FILE} or {SHARDED_WEIGHTS_FILE}")
    _require(directory, METADATA_FILE, *names)
    checksums = _checksums(directory)
    if checksums:  # A preset that KerasHub saved has none.
        for name in names:
            _verify(directory / name, checksums)
    return [directory / name for name in names]


def _checksums(directory):
    return _read_dict(Path(directory) / METADATA_FILE).get("sha256", {})


def _verify(path, checksums):
    received = _sha256(path)
    if checksums.get(path.name) != received:
        raise ValueError(
            f"{path} is damaged, or not the file that {METADATA_FILE} describes: "
            f"expected sha256={brief(checksums.get(path.name))}. Received: sha256={received!r}"
        )


def build(model_class: type[Any], config: Config, weights: list[Path] | None = None) -> keras.Model:
    """Builds the model of a config, no larger than its weights, or else than this machine holds.

    Before any memory is allocated the model is built once without values, and its weights are
    compared with those in the files.

    Args:
        model_class: The class.
        config: Its config.
        weights: What `verified_weights` returned, or None for random ones.

    Returns:
        The model.

    Raises:
        ValueError: If the weights or the memory do not fit, or the class cannot be built from the
            config.
    """
    with building(model_class):
        if weights is None:
            most = _memory() // 4
            _require_plausible(config, most, MOST_RANDOM_WEIGHTS)
            shapes = _rehearse(model_class, config)
            numbers = sum(math.prod(shape) * count for shape, count in shapes.items())
            if numbers > most:
                raise ValueError(
                    f"Expected at most {most:,} parameters, which the memory of this machine "
                    f"holds; {model_class.__name__}(...) itself builds more. "
                    f"Received: a config of {numbers:,}"
                )
        else:
            stored = _stored_shapes(weights)
            _require_plausible(config, sum(map(math.prod, stored.elements())), stored.total())
            # Of an int8 model the form before it was quantized, whose arrays are fewer.
            plain = {name: value for name, value in config.items() if name != "int8_layers"}
            shapes = _rehearse(model_class, plain)
            if not config.get("int8_layers"):
                _require_fit(model_class.__name__, shapes, stored, weights[0])
            elif shapes - stored:
                raise ValueError(
                    f"{_misfit(model_class.__name__, weights[0])}Expected the shapes "
                    f"{brief(list(shapes - stored))} too. Received: a file without them"
                )
        return model_class.from_config(config)


@contextlib.contextmanager
def building(model_class: type[Any]) -> Iterator[None]:
    """Makes a `ValueError` of what a class raises when a config from anywhere does not suit it."""
    try:
        yield
    except (ValueError, ImportError, OSError):
        raise
    except Exception as error:
        raise ValueError(
            f"Expected a config that a {model_class.__name__} can be built from. "
            f"Received: {type(error).__name__}: {brief(error)}"
        ) from error


def _require_plausible(config, numbers, arrays):
    """No size is larger than the number of all weights, no count of parts than that of arrays."""
    limit, parts = max(numbers, 2**20), max(arrays, 64)
    counts = {"num_blocks": 1, "block_layers": 1}
    sizes = list(_integers("config", config))
    if len(sizes) > 16 * parts:
        raise ValueError(
            f"Expected at most {16 * parts:,} sizes beside {arrays:,} weights. "
            f"Received: {len(sizes):,}"
        )
    for key, value in sizes:
        is_count = str(key).endswith(("_blocks", "_layers")) or key == "num_levels"
        if is_count and key in counts:
            counts[key], value = value, max(value, math.prod({**counts, key: value}.values()))
        most = parts if is_count else limit
        if abs(value) > most and key != "seed":
            raise ValueError(
                f"Expected no size above {most:,} beside {arrays:,} weights of {numbers:,} "
                f"numbers. Received: {brief(key)}: {brief(value)}"
            )


def _memory():
    """Bytes of this machine's memory, or what no machine has where nothing says it."""
    names = getattr(os, "sysconf_names", ())
    if not {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(names):
        return 2**50
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _integers(key, value):
    if isinstance(value, int):
        yield key, value
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _integers(name, part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _integers(key, part)


def _rehearse(model_class, config):
    """The shapes of a model's weights, without their values.

    Keras keeps its scopes and its counters of names by thread: those of this one end with it.
    """

    def shapes():
        with keras.StatelessScope(initialize_variables=False):
            return collections.Counter(
                tuple(v.shape) for v in model_class.from_config(config).weights
            )

    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(shapes).result()


def _require_fit(name, expected, received, path):
    if expected != received:
        raise ValueError(
            f"{_misfit(name, path)}Expected {expected.total()} weights, of which these shapes are "
            f"not in the file: {brief(list(expected - received))}. Received: {received.total()} "
            f"weights, these shapes too many: {brief(list(received - expected))}"
        )


def _misfit(name, path):
    return f"The weights in {path} do not fit this config of {name}. "


def load_weights(model: keras.Model, paths: list[Path]) -> None:
    """Loads verified weights into a model: every weight of the file, into every weight of it.

    Keras itself checks the layers it looks for, and is silent about what else the file holds.

    Args:
        model: The model, built.
        paths: What `verified_weights` returned.

    Raises:
        ValueError: If a file is truncated, a weight is not finite, or they do not fit the model.
    """
    misfit = _misfit(type(model).__name__, paths[0])
    expected = collections.Counter(tuple(v.shape) for v in model.weights)
    received = _stored_shapes(paths, check_values=True)
    _require_fit(type(model).__name__, expected, received, paths[0])
    try:
        # Keras only warns of layers inside containers that it leaves as they are.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.load_weights(paths[0])
    except Exception as error:  # HDF5 files that are made to harm can raise any kind
        raise ValueError(f"{misfit}Received: {brief(error)}") from error
    skipped = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    if skipped:
        raise ValueError(f"{misfit}Received: {brief(skipped)}")


def write(model, directory, max_shard_size, weights_dtype=None, metadata=None):
    """Writes a preset directory; see `PresetModel.save_to_preset`."""
    with _replacing(directory) as new:
        _write(model, new, max_shard_size, weights_dtype, metadata)


def write_parts(whole, parts, directory, weights_dtype=None, metadata=None):
    """Writes a preset directory of several models.

    Args:
        whole: Object of a registered class; its config says how the parts fit together.
        parts: Dict from the name of a folder to a model.
        directory: The directory.
        weights_dtype: None, or a dict from name to dtype: `PresetModel.save_to_preset`.
        metadata: None, or a dict of further entries for `metadata.json`.
    """
    with _replacing(directory) as new:
        for name, model in parts.items():
            (new / name).mkdir()
            _write(model, new / name, 10, (weights_dtype or {}).get(name))
        parameters = sum(model.count_params() for model in parts.values())
        _write_description(whole, new, parameters, metadata)


def _write(model, new, max_shard_size, weights_dtype, metadata=None):
    # The same graph and layers without the optimizer, which `model.save_weights` would add.
    graph = keras.Model(model.inputs, model.outputs)
    inside = {id(v) for v in graph.weights}
    outside = [v.path for v in model.weights if id(v) not in inside]
    if outside:
        raise ValueError(
            f"Expected every weight of {type(model).__name__} to belong to a layer between its "
            f"inputs and its outputs. Received: {outside=}"
        )
    size = 4 * model.count_params() / 1024**3  # GiB of float32
    if max_shard_size is None or size <= max_shard_size:
        memory = _MemoryFile()
        graph.save_weights(memory)
        (new / WEIGHTS_FILE).write_bytes(memory.getbuffer())
    else:
        # Too much for memory. Each weight takes some kilobytes more for its groups and its name.
        if shutil.disk_usage(new).free < size * 1024**3 + 2**14 * len(graph.weights) + 2**20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        graph.save_weights(new / SHARDED_WEIGHTS_FILE, max_shard_size=max_shard_size)
    if weights_dtype is not None:
        for path in new.glob("*.weights.h5"):
            _store_as(path, weights_dtype)
    _write_description(model, new, model.count_params(), metadata)


class _MemoryFile(io.BytesIO):
    """A file in memory that Keras takes for one of weights: HDF5 crashes on a disk that is full."""

    def __str__(self):
        return WEIGHTS_FILE


def _store_as(path, dtype):
    """Writes an HDF5 file anew with all float32 weights in another dtype."""

    def copy(name, item):
        if isinstance(item, h5py.Dataset):
            value = item[()]
            new[name] = value.astype(dtype) if value.dtype == "float32" else value
        else:
            new.require_group(name)
        new[name].attrs.update(item.attrs)

    memory = io.BytesIO()
    with h5py.File(path) as old, h5py.File(memory, "w") as new:
        new.attrs.update(old.attrs)
        old.visititems(copy)
    with replacing(path) as temporary:
        temporary.write_bytes(memory.getbuffer())


def _write_description(model, new, parameters, further=None):
    (new / CONFIG_FILE).write_text(json.dumps(serialize_model(model), indent=4))
    files = sorted(path for path in new.iterdir() if path.is_file())
    metadata = {
        "keras_version": keras.__version__,
        "keras_vqvae2_version": __version__,
        "parameter_count": parameters,
        "date_saved": datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S"),
        "sha256": {path.name: _sha256(path) for path in files},
    }
    taken = sorted(set(metadata) & set(further or {}))
    if taken:
        raise ValueError(f"Expected names other than {list(metadata)}. Received: {taken}")
    metadata.update(further or {})
    (new / METADATA_FILE).write_text(json.dumps(metadata, indent=4))


def _replacing(directory):
    return replacing_folder(directory, "the preset", _require_replaceable)


def _require_replaceable(target):
    if not target.exists():
        return
    names = sorted(os.listdir(target)) if target.is_dir() else [target.name]
    names = [name for name in names if not _OF_FILE_MANAGERS.fullmatch(name)]
    parts = [name for name in names if _PARTS.fullmatch(name) and (target / name).is_dir()]
    for name in parts:
        _require_replaceable(target / name)
    foreign = [name for name in names if not _FILES.fullmatch(name) and name not in parts]
    if foreign or (names and not {CONFIG_FILE, METADATA_FILE} <= set(names)):
        raise ValueError(
            "Expected a directory that does not exist yet, is empty, or holds a preset and "
            f"nothing else. Received: directory={str(target)!r} with {names[:20]}"
        )


def _require(directory, *names):
    missing = [name for name in names if not (Path(directory) / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"Expected a preset directory with the files {missing}. "
            f"Received: {directory} with {sorted(os.listdir(directory))[:20]}"
        )


def _shard_names(path):
    weight_map = _read_dict(path).get("weight_map")
    entries = list(weight_map.values()) if isinstance(weight_map, dict) else [None]
    names = [name for entry in entries for name in (entry if isinstance(entry, list) else [entry])]
    for name in names:
        # Anything but a plain file name could lead out of the directory.
        if not isinstance(name, str) or not _FILES.fullmatch(name):
            raise ValueError(
                f"Expected {path} to map weights to files beside it, like "
                f"'model_00000.weights.h5'. Received: {name!r}"
            )
    return sorted(set(names))


def _stored_shapes(paths, check_values=False):
    """Counts the shapes of the weights in HDF5 files, in which nothing is but plain weights."""
    shapes: collections.Counter[tuple[int, ...]] = collections.Counter()
    for path in paths:
        if path.suffix == ".h5":
            try:
                with h5py.File(path, "r") as file:
                    shapes.update(_shapes_in(file, os.path.getsize(path), check_values))
            except Exception as error:  # HDF5 files that are made to harm can raise any kind
                raise ValueError(
                    f"Expected {path} to be a complete HDF5 file of weights. Received: "
                    f"{os.path.getsize(path)} bytes that are truncated, of another format or "
                    f"hold something else ({brief(error)})"
                ) from error
    return shapes


def _shapes_in(file, room, check_values):
    shapes = []

    def visit(name, item):
        nonlocal room
        if isinstance(item, h5py.Group):
            for key in item:
                if not isinstance(item.get(key, getlink=True), h5py.HardLink):
                    raise ValueError(f"{name}/{key} is a link")
            return
        # Keras writes weights in one piece. Elsewhere, not at all, in other pieces or compressed
        # they can be far larger than the file.
        is_plain = item.dtype.kind in "fiub" or item.dtype == _BFLOAT16
        stored = item.id.get_storage_size()
        in_one_piece = not item.external and not item.chunks and stored == item.nbytes
        if item.shape is None or not is_plain or not in_one_piece:
            raise ValueError(f"{name} is not plain numbers in one piece")
        room -= item.nbytes
        if room < 0:
            raise ValueError(f"{name} is larger than the file")
        # A file from `save_weights` of a compiled model also holds its optimizer.
        if not name.startswith("optimizer/"):
            shapes.append(item.shape)
            if check_values:
                dtype = ml_dtypes.bfloat16 if item.dtype == _BFLOAT16 else item.dtype
                if not np.isfinite(np.array(item, dtype)).all():
                    raise ValueError(f"{name} is not finite")

    visit("", file)
    file.visititems(visit)  # every object once, whatever links lead to it
    return shapes


def _read_dict(path):
    try:
        if path.stat().st_size > 2**22:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Expected {path} to hold JSON. Received: {brief(error)}") from error
    is_object = isinstance(value, dict) and isinstance(value.get("sha256", {}), dict)
    if not is_object:
        raise ValueError(f"Expected {path} to hold a JSON object. Received: {brief(value)}")
    return value


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pip_line(package, preset):
    return f"Loading this preset needs a package: `pip install {package}`. Received: {preset=}"
