"""What the results in a folder were made with: those of another command do not join them."""

import hashlib
import json
from pathlib import Path

import command_line
import keras
import numpy as np

import keras_vqvae2
from keras_vqvae2.files import keep_plan


def keep(path, plan, results, may_change=()):
    """Writes what results are made with, or compares it with what is there.

    Args:
        path: The JSON file of the plan, in the folder of the results.
        plan: Dict of JSON values by name. Where there are no results it replaces what is there.
        results: Pattern of the names of results.
        may_change: Names whose values may be others than before.

    Raises:
        ValueError: If results that are there were made with anything else, or nobody knows.
    """
    there = next(path.parent.glob(results), None)
    if there is not None and not path.exists():
        raise ValueError(
            f"Expected {path}, which says what {there.name} was made with. Received: "
            f"{path.parent} without it. Choose another --output, or remove the folder"
        )
    try:
        keep_plan(path, plan, plan if there is None else may_change)
    except ValueError as error:
        raise ValueError(f"{error}. Choose another --output, or remove the folder") from error


def of_generator(generator):
    """What decides the images of a generator, but for seed and labels, for a plan."""
    parts = command_line.parts(generator)

    def content():
        for part in parts:
            config = json.dumps(keras.saving.serialize_keras_object(part.get_config()))
            config = json.loads(config, object_hook=_without_name_and_dtype)
            yield json.dumps(config, sort_keys=True).encode()
            yield from map(np.ascontiguousarray, part.get_weights())

    return {
        "fingerprint_of_generator": digest(content()),
        "precision": list(dict.fromkeys(part.dtype_policy.name for part in parts)),
        "settings": generator.settings,
    }


def _without_name_and_dtype(config):
    return {name: value for name, value in config.items() if name not in ("name", "dtype")}


def of_images(folder):
    """What a folder of images holds, wherever it lies, for a plan."""
    files = [Path(file) for file in keras_vqvae2.data.list_images(folder)]
    names = [file.relative_to(folder).as_posix().encode() for file in files]
    content = (part for name, file in zip(names, files) for part in (name, file.read_bytes()))
    return {"files": len(files), "digest": digest(content)}


def digest(parts):
    """16 hexadecimal digits of a hash of bytes and arrays, and of where one ends."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()[:16]
