"""A range coder: symbols in about as many bits as their probabilities say, integers throughout."""

import numpy as np

FREQUENCY_BITS = 24
CODE_BITS = 48
_TOTAL = 1 << FREQUENCY_BITS
_WHOLE = 1 << CODE_BITS
_LOW = 1 << (CODE_BITS - 8)  # below, a byte is settled


class RangeEncoder:
    """Writes symbols, each as its part of `[0, 2^24)`.

    The interval of all that is still possible shrinks to a symbol's part of it; leading bytes that
    are settled are written. It is at least `2^40` wide before a symbol, so rounding costs less than
    `2^-16` of a bit.

    Reference:
        - Martin 1979, "Range encoding: an algorithm for removing redundancy from a digitised
          message".
    """

    def __init__(self) -> None:
        self.low, self.range = 0, _WHOLE
        self.out = bytearray()

    def encode(self, start: int, frequency: int) -> None:
        """Writes the symbol whose part is `[start, start + frequency)`, at least 1 wide."""
        unit = self.range >> FREQUENCY_BITS
        self.low += unit * start
        self.range = unit * frequency
        while self.range < _LOW:
            self._settle(self.low >> (CODE_BITS - 8))
            self.low = (self.low << 8) & (_WHOLE - 1)
            self.range <<= 8

    def finish(self) -> bytes:
        """All that was written, at least a byte; behind it, a reader takes zeros."""
        for count in range(1, CODE_BITS // 8 + 1):
            rest = CODE_BITS - 8 * count
            rounded = -(-self.low >> rest)  # upwards
            if rounded << rest < self.low + self.range:
                break
        self._settle(rounded >> (8 * (count - 1)))
        self.out += (rounded & ((1 << 8 * (count - 1)) - 1)).to_bytes(count - 1, "big")
        while len(self.out) > 1 and not self.out[-1]:
            del self.out[-1]
        return bytes(self.out)

    def _settle(self, value):
        """Appends a byte; a carry above it goes to those before."""
        place = len(self.out) - 1
        while value >> 8:
            self.out[place] = (self.out[place] + 1) & 255
            value = (value & 255) | (0 if self.out[place] else 256)
            place -= 1
        self.out.append(value)


class RangeDecoder:
    """Reads what a `RangeEncoder` wrote.

    Args:
        data: What `finish` returned.
    """

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, CODE_BITS // 8
        self.code = int.from_bytes(data[: self.place].ljust(self.place, b"\0"), "big")
        self.range = _WHOLE

    def target(self) -> int:
        """A number in `[0, 2^24)` within the part of the next symbol."""
        return min(self.code // (self.range >> FREQUENCY_BITS), _TOTAL - 1)

    def advance(self, start: int, frequency: int) -> None:
        """Goes on behind the symbol that `target` was found in."""
        unit = self.range >> FREQUENCY_BITS
        self.code -= unit * start
        self.range = unit * frequency
        while self.range < _LOW:
            following = self.data[self.place] if self.place < len(self.data) else 0
            self.code = (self.code << 8) & (_WHOLE - 1) | following
            self.range <<= 8
            self.place += 1


def frequencies(logits: np.ndarray) -> np.ndarray:
    """Where each symbol's part ends, of probabilities that are rounded to integers.

    Args:
        logits: float32 of shape `(batch, K)`, K at most `2^20`.

    Returns:
        int64 of shape `(batch, K + 1)`, from 0 to `2^24`; each part is at least 1 wide.
    """
    logits = logits.astype("float64")
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    share = weights / weights.sum(axis=-1, keepdims=True)
    parts = np.floor(share * (_TOTAL - logits.shape[-1])).astype("int64") + 1
    # What rounding left goes to the most probable.
    best = parts.argmax(axis=-1)
    parts[np.arange(len(parts)), best] += _TOTAL - parts.sum(axis=-1)
    return np.concatenate([np.zeros((len(parts), 1), "int64"), parts.cumsum(axis=-1)], axis=-1)
