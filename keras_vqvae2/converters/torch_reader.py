"""Reading what `torch.save` wrote, without PyTorch and without running anything in the file."""

import argparse
import math
import pickle
import zipfile
from collections import OrderedDict

import ml_dtypes  # noqa: F401 - gives NumPy a bfloat16
import numpy as np

_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}
# The number that a file of before PyTorch 1.6 begins with.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def read_torch_file(path):
    """Reads a file of tensors that `torch.save` wrote, in its format of today or before 1.6.

    Only tensors, plain containers, numbers, strings and the flags of a training script
    (`argparse.Namespace`) are admitted. A file that names anything else is refused, and nothing
    that it names is run.

    Args:
        path: The file.

    Returns:
        What was saved, usually a state dict, with NumPy arrays for tensors.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not such a file, is damaged, or holds anything else.
    """
    with open(path, "rb") as file:
        try:
            return _read_zip(file) if zipfile.is_zipfile(file) else _read_legacy(file)
        # A pickle that is damaged or made to harm can raise any kind.
        except Exception as error:
            raise ValueError(
                "Expected a file of tensors that torch.save wrote, and nothing else in it. "
                f"Received: {path} ({type(error).__name__}: {error})"
            ) from error


def _read_zip(file):
    """One folder: `data.pkl`, and beside it `data/KEY` with the raw numbers of each storage."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        (pickled,) = (name for name in names if name.count("/") == 1 and name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise ValueError("compressed entries")
        if folder + "byteorder" in names and archive.read(folder + "byteorder") != b"little":
            raise ValueError("numbers in big-endian order")
        with archive.open(pickled) as stream:
            reader = _TensorUnpickler(stream, _size(file))
            value = reader.load()
        for key, storage in reader.storages.items():
            _fill(storage, archive.read(f"{folder}data/{key}"))
    return value


def _read_legacy(file):
    """Pickles of a number, a version, the machine, the value, the keys; then raw numbers."""
    size = _size(file)
    file.seek(0)
    if _TensorUnpickler(file, 0).load() != _LEGACY_MAGIC:
        raise ValueError("no number that torch.save begins a file with")
    _version, machine = _TensorUnpickler(file, 0).load(), _TensorUnpickler(file, 0).load()
    if machine["little_endian"] is not True:
        raise ValueError("numbers in big-endian order")
    reader = _TensorUnpickler(file, size)
    value = reader.load()
    keys = _TensorUnpickler(file, 0).load()
    if sorted(keys) != sorted(reader.storages):
        raise ValueError("other storages than the tensors need")
    for key in keys:
        storage = reader.storages[key]
        if int.from_bytes(file.read(8), "little") != storage.size:
            raise ValueError(f"storage {key} is of another size than its tensors say")
        _fill(storage, file.read(storage.nbytes))
    return value


def _size(file):
    return file.seek(0, 2)


def _fill(storage, content):
    if len(content) != storage.nbytes:
        raise ValueError(f"{len(content)} bytes in the place of {storage.nbytes}")
    storage[:] = np.frombuffer(content, storage.dtype)  # the tensors are views of it


class _TensorUnpickler(pickle.Unpickler):
    """Makes tensors arrays, over storages that stay to be filled; refuses every other name."""

    def __init__(self, file, room):
        super().__init__(file, encoding="utf-8")
        self.storages = {}
        self._room = room  # bytes that the storages can have: what is in the file

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("argparse", "Namespace"):
            return argparse.Namespace  # attributes and no more
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return self._parameter
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"the file names {module}.{name}")

    def persistent_load(self, pid):
        kind, dtype, key, _device, size, *view = pid
        if kind != "storage" or dtype not in _DTYPES.values() or any(v is not None for v in view):
            raise pickle.UnpicklingError(f"persistent object {pid}")
        if key not in self.storages:
            self._room -= size * np.dtype(dtype).itemsize
            if size < 0 or self._room < 0:
                raise ValueError("storages larger than the file")
            self.storages[key] = np.zeros(size, dtype)
        return self.storages[key]

    def _tensor(self, storage, offset, shape, strides, *_):
        # as_strided checks nothing: a view must not reach out of its storage, nor repeat it.
        numbers = [offset, *shape, *strides]
        last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides))
        if (
            not any(storage is known for known in self.storages.values())
            or len(shape) != len(strides)
            or any(type(number) is not int or number < 0 for number in numbers)
            or math.prod(shape) > storage.size
            or (0 not in shape and last >= storage.size)
        ):
            raise ValueError(f"a tensor of shape {shape} and strides {strides} at {offset}")
        if 0 in shape:
            return np.zeros(shape, storage.dtype)
        strides = [stride * storage.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(storage[offset:], shape, strides)

    def _parameter(self, tensor, *_):
        return tensor
