"""Codes to bytes and back, and what happens to bytes that are not what they say."""

import math
import re
import zlib

import numpy as np
import pytest

from keras_vqvae2 import (
    VQVAE2,
    HierarchicalImageGenerator,
    MaskedTransformerPrior,
    PixelSnailPrior,
    TransformerPrior,
)
from keras_vqvae2.compression import compress, compress_codes, decompress, decompress_codes
from keras_vqvae2.compression.container import number
from keras_vqvae2.data import sample_photographs
from keras_vqvae2.layers import (
    LookupFreeQuantizer,
    ResidualVectorQuantizer,
    VectorQuantizerEMA,
)

TINY = {"hidden_units": 8, "residual_units": 4, "residual_blocks": 0}


def vqvae_of(**kwargs):
    options = {"downsample_factors": (2, 2), **TINY}
    if "quantizer" not in kwargs:
        options |= {"num_embeddings": 16, "embedding_dim": 4}
    vqvae = VQVAE2((8, 8, 3), **{**options, **kwargs})
    rng = np.random.default_rng(0)
    for quantizer in () if "quantizer" in kwargs else vqvae.quantizers.values():
        quantizer.ema_sums.assign(rng.normal(scale=0.3, size=quantizer.codebook.shape))
    return vqvae


@pytest.fixture(scope="module")
def vqvae():
    return vqvae_of()


@pytest.fixture(scope="module")
def generator(vqvae):
    """Two kinds of priors, one of which knows labels."""
    snail = {"hidden_units": 8, "residual_units": 8, "num_blocks": 1, "block_layers": 1}
    snail |= {"attention_heads": 2, "output_blocks": 0}
    top = PixelSnailPrior((2, 2), 16, "top", num_classes=3, **snail)
    bottom = TransformerPrior(
        (4, 4), 16, "bottom", {"top": 2}, hidden_units=16, num_layers=1, num_heads=2
    )
    rng = np.random.default_rng(1)
    for prior in (top, bottom):
        for variable in prior.trainable_variables:
            variable.assign(variable + rng.normal(scale=0.3, size=variable.shape))
    return HierarchicalImageGenerator(vqvae, [top, bottom], ["a", "b", "c"])


@pytest.fixture
def images(rng):
    return rng.uniform(size=(3, 8, 8, 3)).astype("float32")


@pytest.fixture
def codes(rng):
    return {
        "top": rng.integers(16, size=(3, 2, 2)).astype("int32"),
        "bottom": rng.integers(16, size=(3, 4, 4)).astype("int32"),
    }


def assert_same(found, codes):
    assert list(found) == list(codes)
    for level in codes:
        np.testing.assert_array_equal(found[level], codes[level])
        assert found[level].dtype == "int32"


# === Packed ===


def test_packed_codes_come_back(vqvae, images, codes):
    data = compress_codes(vqvae, codes)
    assert len(data) == 17 + 3 * (4 + 16) * 4 // 8 + 4
    assert_same(decompress_codes(vqvae, data), codes)
    assert compress(vqvae, images) == compress_codes(vqvae, vqvae.encode(images))
    reconstructions = decompress(vqvae, compress(vqvae, images))
    np.testing.assert_allclose(reconstructions, vqvae.decode(vqvae.encode(images)), atol=1e-6)


def test_any_size_and_number_of_codes(rng):
    vqvae = vqvae_of(num_levels=1, num_embeddings=5, downsample_factors=(2,))
    for shape in ((1, 1, 1), (2, 3, 200), (1, 1, 129)):
        codes = {"bottom": rng.integers(5, size=shape).astype("int32")}
        data = compress_codes(vqvae, codes)
        assert_same(decompress_codes(vqvae, data), codes)
    assert len(data) == 18 + -(-129 * 3 // 8) + 4


# === By priors ===


def test_coded_codes_come_back(generator, codes):
    data = compress_codes(generator, codes, ["a", 2, "b"], batch_size=2)
    assert_same(decompress_codes(generator, data), codes)
    images = decompress(generator, data)
    np.testing.assert_allclose(images, generator.vqvae.decode(codes), atol=1e-6)


def test_bytes_are_the_likelihood(generator, codes):
    labels = np.array([2, 0, 1], "int32")
    nats = sum(
        prior.nats({**codes, "label": labels}).sum(axis=(1, 2))
        for prior in generator.priors.values()
    )
    data = compress_codes(generator, codes, labels)
    frame = 17 + 4 + 1 + 3 * 2 + 4 + 4
    bits = nats / np.log(2)
    assert (bits > 50).all()
    assert bits.sum() / 8 - 3 <= len(data) - frame <= bits.sum() / 8 + 3 * 1.5


def test_the_label_of_the_fewest_bits_is_taken(generator, codes):
    top = generator.priors["top"]
    nats = [top.nats({**codes, "label": np.full(3, k)}).sum(axis=(1, 2)) for k in range(3)]
    labels = np.argmin(nats, axis=0)
    assert compress_codes(generator, codes) == compress_codes(generator, codes, labels)
    assert compress_codes(generator, codes) != compress_codes(generator, codes, (labels + 1) % 3)


def test_several_codes_a_position_come_back(rng):
    quantizer = ResidualVectorQuantizer(VectorQuantizerEMA(16, 4), num_quantizers=2)
    vqvae = vqvae_of(quantizer=quantizer, num_levels=1, downsample_factors=(2,))
    codes = {"bottom": rng.integers(16, size=(2, *vqvae.code_shapes()["bottom"], 2))}
    codes["bottom"] = codes["bottom"].astype("int32")
    data = compress_codes(vqvae, codes)
    assert len(data) == 17 + codes["bottom"].size // 2 + 4
    assert_same(decompress_codes(vqvae, data), codes)
    shape = vqvae.token_shapes()["bottom"]
    prior = TransformerPrior(shape, 16, "bottom", hidden_units=8, num_layers=1, num_heads=2)
    generator = HierarchicalImageGenerator(vqvae, [prior])
    assert_same(decompress_codes(generator, compress_codes(generator, codes)), codes)


def test_codes_of_several_sizes_take_the_bits_of_each(rng):
    quantizer = LookupFreeQuantizer(6, factorized_bits=(2, 4))
    vqvae = vqvae_of(quantizer=quantizer, num_levels=1, downsample_factors=(2,))
    shape = (2, *vqvae.code_shapes()["bottom"])
    codes = np.stack([rng.integers(4, size=shape), rng.integers(16, size=shape)], axis=-1)
    codes = {"bottom": codes.astype("int32")}
    data = compress_codes(vqvae, codes)
    assert len(data) == 17 + math.prod(shape) * 6 // 8 + 4
    assert_same(decompress_codes(vqvae, data), codes)
    codes["bottom"][0, 0, 0] = 4, 4
    with pytest.raises(ValueError, match=r"codes below \(4, 16\).*Received: codes up to \(4, 15\)"):
        compress_codes(vqvae, codes)


def test_a_generator_reads_packed_codes(generator, vqvae, codes):
    assert_same(decompress_codes(generator, compress_codes(vqvae, codes)), codes)


@pytest.mark.slow
@pytest.mark.compiled
def test_a_bundled_generator():
    generator = HierarchicalImageGenerator.from_preset("clothing_64")
    images = sample_photographs(64)
    packed = compress(generator.vqvae, images)
    data = compress(generator, images)
    assert_same(decompress_codes(generator, data), generator.vqvae.encode(images))
    assert len(packed) == 17 + 8 * 360 + 4
    assert len(data) < 0.8 * len(packed)


# === Refused ===


def refused(message, call, *args):
    with pytest.raises(ValueError, match=re.escape(message)):
        call(*args)


def test_files_of_other_models_are_refused(vqvae, generator, codes):
    other = vqvae_of()
    other.trainable_variables[0].assign(other.trainable_variables[0] + 1)
    message = f"Expected a file of the VQVAE2 with the fingerprint {other.fingerprint()}"
    refused(message, decompress_codes, other, compress_codes(vqvae, codes))
    data = compress_codes(generator, codes, 0)
    refused("Expected the HierarchicalImageGenerator", decompress_codes, vqvae, data)
    retrained = generator.priors["bottom"].trainable_variables[0]
    before = retrained.numpy() if hasattr(retrained, "numpy") else np.array(retrained)
    retrained.assign(retrained + 1)
    refused("the same priors on the same backend", decompress_codes, generator, data)
    retrained.assign(before)
    assert_same(decompress_codes(generator, data), codes)


def test_what_cannot_be_coded_is_refused(vqvae, generator, codes):
    refused("Expected codes of the levels", compress_codes, vqvae, {"top": codes["top"]})
    refused("Expected codes in [0, 16)", compress_codes, vqvae, {**codes, "top": codes["top"] - 1})
    refused("Expected no labels for a VQVAE2", compress_codes, vqvae, codes, 1)
    refused("Expected a label in [0, 3)", compress_codes, generator, codes, 3)
    refused("batch_size=0", compress_codes, vqvae, codes, None, 0)
    refused("Expected a VQVAE2 or a HierarchicalImageGenerator", compress_codes, None, codes)
    wide = {level: np.concatenate([values] * 2, axis=2) for level, values in codes.items()}
    refused("the size of the priors' maps", compress_codes, generator, wide, 0)
    masked = MaskedTransformerPrior((4, 4), 16, "bottom", hidden_units=8, num_layers=1, num_heads=2)
    unlike = HierarchicalImageGenerator(vqvae, {**generator.priors, "bottom": masked})
    refused("Expected priors in raster order", compress_codes, unlike, codes, 0)


def sealed(content):
    return content + zlib.crc32(content).to_bytes(4, "big")


@pytest.mark.parametrize("by_priors", [False, True])
def test_damaged_bytes_are_one_error(vqvae, generator, codes, by_priors, rng):
    model = generator if by_priors else vqvae
    data = compress_codes(model, codes, 0 if by_priors else None)
    for length in range(len(data)):
        with pytest.raises(ValueError, match="Expected a"):
            decompress_codes(model, data[:length])
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(ValueError, match="Expected a"):
            decompress_codes(model, bytes(flipped))
    refused("damaged", decompress_codes, model, data + b"\0")


@pytest.mark.parametrize("data", ["picture.vqc", None, 10**9])
def test_what_is_no_bytes_is_named(vqvae, data):
    refused("Expected the bytes of a .vqc file", decompress_codes, vqvae, data)


def test_hostile_bytes_are_one_error(vqvae, generator, codes):
    packed, coded = compress_codes(vqvae, codes), compress_codes(generator, codes, 0)
    many = number(2**32 - 1)
    body = packed[17:-4]
    for sizes in (many * 3, many + b"\1\1", b"\1" + many * 2, b"\0\1\1", b"\x80" * 9, b"\3\1\2"):
        refused("damaged", decompress_codes, vqvae, sealed(packed[:14] + sizes + body))
    refused("damaged", decompress_codes, vqvae, sealed(packed[:-4] + b"\0"))
    refused("damaged", decompress_codes, vqvae, sealed(packed[:5] + b"\2" + packed[6:-4]))
    # Of three images, as many as the priors' maps have: other lanes, labels, sizes.
    start, lanes, rest = coded[:21], coded[21:22], coded[22:-4]
    assert lanes == b"\3"
    for wrong in (b"\0", b"\4", many):
        refused("damaged", decompress_codes, generator, sealed(start + wrong + rest))
    for wrong in (b"\0\1" * 3, b"\5\1" * 3, b"\1\0" * 3, b"\1" + many * 5):
        refused("damaged", decompress_codes, generator, sealed(start + lanes + wrong + rest[6:]))
    refused("damaged", decompress_codes, generator, sealed(coded[:14] + many + coded[15:-4]))
    # Streams that say other codes than those of the checksum.
    noise = bytes(255 - byte for byte in rest[6:-4])
    for stream in (noise, bytes(len(noise))):
        content = start + lanes + rest[:6] + stream + rest[-4:]
        refused("other codes than it names", decompress_codes, generator, sealed(content))


def test_codes_beyond_the_codebook_are_refused(rng):
    vqvae = vqvae_of(num_levels=1, num_embeddings=5, downsample_factors=(2,))
    data = compress_codes(vqvae, {"bottom": np.full((1, 1, 1), 4)})
    assert data[17] == 0b1000_0000
    refused("with a code 7", decompress_codes, vqvae, sealed(data[:17] + b"\xe0"))
    refused("bits behind its codes", decompress_codes, vqvae, sealed(data[:17] + b"\x90"))
