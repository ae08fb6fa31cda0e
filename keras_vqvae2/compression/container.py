"""The bytes of a `.vqc` file.

magic           4   93 56 51 43 ("\\x93VQC")
version         1   1
coding          1   0: packed, 1: by priors
fingerprint     8   of the VQVAE2 whose codes these are
images          v   N, at least 1; v: 7 bits a byte, the lowest first, the last below 128
rows, columns   v v of the coarsest level's map; the other maps follow
packed          for each level, coarse to fine, each image: the codes in raster order, each as
                ceil(log2 K) bits (one at least), the highest first; zeros fill the last byte
by priors       4   fingerprint of the priors and the backend
                v   images that were coded side by side
                for each image: v label + 1 (0: none), v bytes of its stream
                the streams
                4   CRC-32 of the codes, int32, little endian, level by level
checksum        4   CRC-32 of all before, big endian
"""

import zlib
from typing import NamedTuple

import numpy as np

MAGIC = b"\x93VQC"
VERSION = 1
PACKED, BY_PRIORS = 0, 1
MOST_LANES = 1024


class Header(NamedTuple):
    """What stands before the codes."""

    coding: int
    fingerprint: bytes
    images: int
    rows: int
    columns: int


class Reader:
    """Bytes that are read from the start, and never beyond the end.

    Args:
        data: The bytes.
    """

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes.

        Raises:
            ValueError: If there are fewer.
        """
        if count > len(self.data) - self.place:
            raise damaged("it ends early")
        self.place += count
        return self.data[self.place - count : self.place]

    def number(self) -> int:
        """The next number, below `2^32`."""
        value = 0
        for shift in range(0, 35, 7):
            (byte,) = self.take(1)
            value |= (byte & 127) << shift
            if byte < 128:
                if value >> 32:
                    break
                return value
        raise damaged("a number is too large")

    def end(self) -> None:
        """Raises `ValueError` if anything is left."""
        if self.place != len(self.data):
            raise damaged(f"{len(self.data) - self.place} bytes are left over")


def number(value: int) -> bytes:
    """A number below `2^32` as `Reader.number` reads it."""
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def damaged(what: str) -> ValueError:
    return ValueError(f"Expected a whole .vqc file. Received: a damaged one, {what}")


def seal(header: Header, body: bytes) -> bytes:
    """Header, body and checksum."""
    sizes = b"".join(number(n) for n in (header.images, header.rows, header.columns))
    data = MAGIC + bytes([VERSION, header.coding]) + header.fingerprint + sizes + body
    return data + zlib.crc32(data).to_bytes(4, "big")


def open_sealed(data: bytes) -> tuple[Header, Reader]:
    """The header of bytes that `seal` made, and a reader of the body.

    Raises:
        ValueError: If it is another file, of another version, or damaged.
    """
    try:
        data = bytes(memoryview(data))
    except TypeError:
        raise ValueError(
            "Expected the bytes of a .vqc file, as Path(file).read_bytes() gives them. "
            f"Received: a {type(data).__name__}"
        ) from None
    if data[:4] != MAGIC:
        raise ValueError(f"Expected a .vqc file. Received: bytes that start with {data[:4]!r}")
    if data[4:5] != bytes([VERSION]):
        raise ValueError(
            f"Expected a .vqc file of version {VERSION}. Received: version {data[4:5].hex() or '?'}"
        )
    content = data[:-4]
    if len(content) < 18 or zlib.crc32(content).to_bytes(4, "big") != data[-4:]:
        raise damaged("whose checksum is another")
    reader = Reader(content)
    reader.take(5)
    (coding,) = reader.take(1)
    header = Header(coding, reader.take(8), reader.number(), reader.number(), reader.number())
    if coding not in (PACKED, BY_PRIORS) or not min(header[2:]):
        raise damaged(f"whose header is {header[2:]} with coding {coding}")
    return header, reader


def codes_checksum(codes: dict[str, np.ndarray]) -> bytes:
    """CRC-32 of codes, coarse to fine."""
    value = 0
    for values in codes.values():
        value = zlib.crc32(np.ascontiguousarray(values.astype("<i4")).tobytes(), value)
    return value.to_bytes(4, "big")
