"""Reading what `torch.save` wrote, without PyTorch and without running anything in the file."""

import io
import math
import os
import struct
import zipfile
from pathlib import Path

import ml_dtypes  # noqa: F401 - gives NumPy a bfloat16
import numpy as np

from keras_vqvae2.files import brief
from keras_vqvae2.plain_pickle import Name, PlainUnpickler, Stateful, plain_dict

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
_MAX_DIRECTORY = 2**24  # bytes of a zip file's list of entries: about 200,000 storages


def read_torch_file(path):
    """Reads a file of tensors that `torch.save` wrote, in its format of today or before 1.6.

    Only tensors, plain containers, numbers, strings and the flags of a training script
    (`argparse.Namespace`) are admitted. A file that names anything else is refused, and nothing
    that it names is run. Time and memory are bounded by the size of the file.

    Args:
        path: The file.

    Returns:
        What was saved, usually a state dict, with read-only NumPy arrays for tensors, dicts for
        ordered ones, and `plain_pickle.Stateful`, whose `state` is a dict, for flags.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not such a file, is damaged, or holds anything else.
    """
    path = Path(os.path.expanduser(path))
    if not path.is_file():
        raise FileNotFoundError(f"Expected a file of tensors. Received: path={str(path)!r}")
    with open(path, "rb") as file:
        try:
            return _read_zip(file) if zipfile.is_zipfile(file) else _read_legacy(file)
        # A pickle that is damaged or made to harm can raise any kind.
        except Exception as error:
            raise ValueError(
                "Expected a file of tensors that torch.save wrote, and nothing else in it. "
                f"Received: {path} ({type(error).__name__}: {brief(error)})"
            ) from error


def _read_zip(file):
    """One folder: `data.pkl`, and beside it `data/KEY` with the raw numbers of each storage."""
    file.seek(-22, os.SEEK_END)
    signature, directory = struct.unpack("<4s8xI6x", file.read())
    if signature != b"PK\5\6" or directory > _MAX_DIRECTORY:
        raise ValueError("a zip file that torch.save does not write")
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        (pickled,) = (name for name in names if name.count("/") == 1 and name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        if len(set(names)) != len(names):
            raise ValueError("two entries of one name")
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise ValueError("compressed entries")
        if folder + "byteorder" in names and archive.read(folder + "byteorder") != b"little":
            raise ValueError("numbers in big-endian order")

        def content(key, size):
            entry = archive.getinfo(f"{folder}data/{key}")
            if entry.file_size != size:
                raise ValueError(f"{entry.file_size} bytes in the place of {size}")
            return archive.read(entry)

        return _Reader(_size(file), content).load(io.BytesIO(archive.read(pickled)))


def _read_legacy(file):
    """Pickles of a number, a version, the machine, the value, the keys; then raw numbers."""
    size = _size(file)
    file.seek(0)
    header = PlainUnpickler({})
    if header.load(file) != _LEGACY_MAGIC:
        raise ValueError("no number that torch.save begins a file with")
    _version, machine = header.load(file), header.load(file)
    if machine["little_endian"] is not True:
        raise ValueError("numbers in big-endian order")
    reader = _Reader(size)
    value = reader.load(file)
    keys = header.load(file)
    if len(keys) != len(reader.storages) or set(keys) != set(reader.storages):
        raise ValueError("other storages than the tensors need")
    for key in keys:
        array = reader.storages[key].array
        if int.from_bytes(file.read(8), "little") != array.size:
            raise ValueError("a storage of another size than its tensors say")
        # The tensors are views of it.
        array[:] = np.frombuffer(file.read(array.nbytes), array.dtype)
    return value


def _size(file):
    return file.seek(0, os.SEEK_END)


class _Storage:
    """Numbers that tensors are views of. Only the reader makes any."""

    def __init__(self, array):
        self.array = array


class _Reader(PlainUnpickler):
    """Makes tensors read-only arrays over storages.

    Args:
        size: Bytes of the file, and so of all storages together.
        content: Function of a storage's key and bytes; without one they stay to be filled.
    """

    def __init__(self, size, content=None):
        names = {
            ("collections", "OrderedDict"): plain_dict,
            ("argparse", "Namespace"): Stateful,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): self._parameter,
            # Under which Lightning saves the state of the callback.
            ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"): "ModelCheckpoint",
        }
        super().__init__(names | {("torch", name): self._no_call for name in _DTYPES}, self._load)
        self.storages = {}
        self._room = size
        self._room_for_tensors = 4 * size  # those that share a storage count each
        self._content = content

    def _load(self, identity):
        kind, dtype, key, _device, size, *view = identity
        if kind != "storage" or type(dtype) is not Name or any(v is not None for v in view):
            raise ValueError("an object outside the pickle that is no storage")
        if type(key) is not str or type(size) is not int or size < 0:
            raise ValueError("a storage without a key or a size")
        dtype = np.dtype(_DTYPES[dtype.name])
        if key not in self.storages:
            self._room -= size * dtype.itemsize
            if self._room < 0:
                raise ValueError("storages larger than the file")
            if self._content is None:
                array = np.zeros(size, dtype)
            else:
                array = np.frombuffer(self._content(key, size * dtype.itemsize), dtype)
            self.storages[key] = _Storage(array)
        storage = self.storages[key]
        if (storage.array.dtype, storage.array.size) != (dtype, size):
            raise ValueError("one storage of two types or sizes")
        return storage

    def _no_call(self, *_):
        raise ValueError("a call of a type")

    def _tensor(self, storage, offset, shape, strides, _grad=False, _hooks=None, further=None):
        # as_strided checks nothing: a view must not reach out of its storage, nor repeat it.
        if type(storage) is not _Storage or further:
            raise ValueError("a tensor without a storage, or of a kind that is not known")
        array, numbers = storage.array, [offset, *shape, *strides]
        if (
            len(shape) != len(strides)
            or len(shape) > 32
            or any(type(number) is not int or not 0 <= number < 2**60 for number in numbers)
            or math.prod(shape) > array.size
            or (0 not in shape and offset + _reach(shape, strides) >= array.size)
        ):
            raise ValueError(
                f"a tensor of shape {brief(shape)}, strides {brief(strides)} at "
                f"{brief(offset)} in a storage of {array.size}"
            )
        self._room_for_tensors -= math.prod(shape) * array.itemsize
        if self._room_for_tensors < 0:
            raise ValueError("tensors that together are far larger than the file")
        if 0 in shape:
            return np.zeros(shape, array.dtype)
        strides = [stride * array.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(array[offset:], shape, strides, writeable=False)

    def _parameter(self, tensor, *_):
        if not isinstance(tensor, np.ndarray):
            raise ValueError("a parameter that is no tensor")
        return tensor


def _reach(shape, strides):
    return sum((length - 1) * stride for length, stride in zip(shape, strides))
