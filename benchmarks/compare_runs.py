"""What is in the folder of a run, in a form in which two runs can be compared bit by bit."""

import json
import re
import zipfile

import h5py
import numpy as np

# What two equal runs differ in. Of weights, the digest of the file; the weights are compared.
DATES = {"seconds", "date_saved", "sha256"}


def content(folder):
    """What is compared of a folder, by file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() or path.name[0] == ".")
    return {str(path.relative_to(folder)): _content(path) for path in files}


def _content(path):
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        parts.pop("metadata.json")
        # Numbers of objects that share a part are addresses in memory.
        parts["config.json"] = re.sub(rb'"shared_object_id": \d+', b"", parts["config.json"])
        with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as file:
            parts["model.weights.h5"] = _arrays(file)
        return parts
    if path.suffix == ".h5":
        return _arrays(path)
    if path.name in ("metrics.json", "metadata.json"):
        return {k: v for k, v in json.loads(path.read_text()).items() if k not in DATES}
    return path.read_bytes() if path.is_file() else "a folder"


def _arrays(file):
    arrays = {}

    def add(name, item):
        if isinstance(item, h5py.Dataset):
            arrays[name] = (str(item.dtype), item.shape, np.array(item).tobytes())

    with h5py.File(file) as weights:
        weights.visititems(add)
    return arrays


def differences(folder, expected):
    found = content(folder)
    return [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
