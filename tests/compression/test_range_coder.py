import numpy as np
import pytest

from keras_vqvae2.compression.bit_packing import bits_of, pack, unpack
from keras_vqvae2.compression.range_coder import RangeDecoder, RangeEncoder, frequencies


def write(logits, symbols):
    encoder = RangeEncoder()
    for ends, symbol in zip(frequencies(logits).tolist(), symbols):
        encoder.encode(ends[symbol], ends[symbol + 1] - ends[symbol])
    return encoder.finish()


def read(logits, data):
    decoder = RangeDecoder(data)
    for ends in frequencies(logits):
        symbol = int(np.searchsorted(ends, decoder.target(), side="right")) - 1
        decoder.advance(int(ends[symbol]), int(ends[symbol + 1] - ends[symbol]))
        yield symbol


@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0, 200.0])
@pytest.mark.parametrize("codes", [1, 2, 512])
def test_symbols_come_back(codes, scale, rng):
    for count in (1, 2, 300):
        logits = rng.normal(scale=scale, size=(count, codes)).astype("float32")
        for symbols in (
            rng.integers(codes, size=count),
            logits.argmax(axis=-1),
            logits.argmin(axis=-1),  # as unlikely as can be
            np.zeros(count, int),
            np.full(count, codes - 1),
        ):
            data = write(logits, symbols.tolist())
            assert list(read(logits, data)) == symbols.tolist()
            assert data


def test_carries_pass_through_many_bytes():
    # The interval stays around one half, so that settled bytes are 127 or 128 until the end.
    for last in (0, 1):
        encoder = RangeEncoder()
        symbols = [(2**23 - 1, 2)] * 40 + [(0, 1) if not last else (2**24 - 1, 1)]
        for start, frequency in symbols:
            encoder.encode(start, frequency)
        decoder = RangeDecoder(encoder.finish())
        for start, frequency in symbols:
            assert start <= decoder.target() < start + frequency
            decoder.advance(start, frequency)


def test_bytes_are_what_probabilities_say(rng):
    logits = rng.normal(scale=3.0, size=(5000, 64)).astype("float32")
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    p = weights / weights.sum(-1, keepdims=True)
    symbols = (p.cumsum(-1) > rng.uniform(size=(5000, 1))).argmax(-1)
    bits = -np.log2(p[np.arange(5000), symbols]).sum()
    assert bits / 8 <= len(write(logits, symbols.tolist())) < bits / 8 * 1.0005 + 8


def test_parts_are_at_least_one_wide(rng):
    logits = rng.normal(scale=1e4, size=(3, 1000)).astype("float32")
    ends = frequencies(logits)
    assert (np.diff(ends) >= 1).all() and (ends[:, 0] == 0).all() and (ends[:, -1] == 2**24).all()


@pytest.mark.parametrize("codes, bits", [(1, 1), (2, 1), (3, 2), (512, 9), (513, 10), (2**18, 18)])
def test_packed_codes_come_back(codes, bits, rng):
    assert bits_of(codes) == bits
    values = np.append(rng.integers(codes, size=99), codes - 1)
    flags = pack(values, [codes])
    assert flags.shape == (100 * bits,)
    np.testing.assert_array_equal(
        unpack(np.unpackbits(np.packbits(flags))[: len(flags)], [codes])[:, 0], values
    )
    assert np.packbits(pack(np.array([5, 1]), [16])).tolist() == [0b0101_0001]
