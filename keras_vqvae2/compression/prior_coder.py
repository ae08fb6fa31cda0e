"""Codes in as many bits as their priors say."""

import hashlib
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.compression.range_coder import (
    FREQUENCY_BITS,
    RangeDecoder,
    RangeEncoder,
    frequencies,
)
from keras_vqvae2.hints import Codes
from keras_vqvae2.models.code_prior import AutoregressivePrior
from keras_vqvae2.models.image_generator import HierarchicalImageGenerator
from keras_vqvae2.validation import side_by_side

MOST_CODES = 1 << (FREQUENCY_BITS - 4)


def check_priors(generator: HierarchicalImageGenerator) -> None:
    """Raises `ValueError` unless each prior tells the probability of a code before it is known."""
    for level, prior in generator.priors.items():
        if not isinstance(prior, AutoregressivePrior):
            raise ValueError(
                "Expected priors in raster order, such as PixelSnailPrior or TransformerPrior. "
                f"Received: a {type(prior).__name__} of {level!r}"
            )
        if prior.num_embeddings > MOST_CODES:
            raise ValueError(
                f"Expected at most {MOST_CODES} codes. Received: {prior.num_embeddings} codes of "
                f"{level!r}"
            )


def priors_fingerprint(generator: HierarchicalImageGenerator) -> bytes:
    """4 bytes of a hash of the priors' weights, and of backend and policy: each rounds its way."""
    digest = hashlib.sha256(keras.backend.backend().encode())
    for prior in generator.priors.values():
        backend.sync_training_state(prior)
        digest.update(prior.dtype_policy.name.encode())
        for variable in prior.weights:
            digest.update(np.ascontiguousarray(ops.convert_to_numpy(variable)).tobytes())
    return digest.digest()[:4]


def cheapest_labels(
    generator: HierarchicalImageGenerator, codes: Codes, batch_size: int
) -> np.ndarray:
    """The label of each image under which its codes take the fewest bits: int32 `(N,)`."""
    count, classes = len(codes[generator.vqvae.levels[0]]), generator.num_classes or 0
    nats = np.zeros((classes, count))
    for label in range(classes):
        batch = {**codes, "label": np.full(count, label, "int32")}
        for prior in generator.priors.values():
            if prior.num_classes:
                nats[label] += np.asarray(prior.nats(batch, batch_size)).sum(axis=(1, 2))
    return nats.argmin(axis=0).astype("int32")


def encode_images(
    generator: HierarchicalImageGenerator, codes: Codes, labels: np.ndarray | None, lanes: int
) -> list[bytes]:
    """A stream of bytes for each image.

    Args:
        generator: The generator.
        codes: By level, coarse to fine, as `VQVAE2.encode` returns them.
        labels: None, or int32 of shape `(N,)`.
        lanes: Positive integer, images that are coded side by side.
    """
    count = len(codes[generator.vqvae.levels[0]])
    codes = {level: side_by_side(values) for level, values in codes.items()}
    streams = []
    for start in range(0, count, lanes):
        places = _places(start, lanes, count)
        encoders = [RangeEncoder() for _ in range(lanes)]
        part = {level: values[places] for level, values in codes.items()}
        for level, prior in generator.priors.items():
            raster = part[level].reshape(lanes, -1)
            known = {name: part[name] for name in prior.condition_factors}
            positions = _positions(prior, known, _labels(prior, labels, places), lanes)
            logits = next(positions)
            for symbols in raster.T:
                ends = _checked(logits, level)
                first = np.take_along_axis(ends, symbols[:, None], axis=1)[:, 0].tolist()
                last = np.take_along_axis(ends, symbols[:, None] + 1, axis=1)[:, 0].tolist()
                for encoder, low, high in zip(encoders, first, last):
                    encoder.encode(low, high - low)
                logits = _send(positions, symbols)
        streams += [encoder.finish() for encoder in encoders[: count - start]]
    return streams


def decode_images(
    generator: HierarchicalImageGenerator,
    streams: Sequence[bytes],
    labels: np.ndarray | None,
    lanes: int,
) -> Codes:
    """The codes of what `encode_images` returned, given the same arguments: maps as priors see
    them, several codes of a position side by side."""
    count = len(streams)
    parts = []
    for start in range(0, count, lanes):
        places = _places(start, lanes, count)
        decoders = [RangeDecoder(streams[i]) for i in places]
        part: Codes = {}
        for level, prior in generator.priors.items():
            known = {name: part[name] for name in prior.condition_factors}
            positions = _positions(prior, known, _labels(prior, labels, places), lanes)
            logits = next(positions)
            raster = np.empty((lanes, int(np.prod(prior.code_shape))), "int32")
            for symbols in raster.T:
                for i, (decoder, ends) in enumerate(zip(decoders, _checked(logits, level))):
                    symbol = int(np.searchsorted(ends, decoder.target(), side="right")) - 1
                    decoder.advance(int(ends[symbol]), int(ends[symbol + 1] - ends[symbol]))
                    symbols[i] = symbol
                logits = _send(positions, symbols)
            part[level] = raster.reshape(lanes, *prior.code_shape)
        parts.append({level: values[: count - start] for level, values in part.items()})
    return {level: np.concatenate([part[level] for part in parts]) for level in parts[0]}


def _places(start, lanes, count):
    """The last batch is filled up: both ways the programs see batches of one size."""
    return np.minimum(np.arange(start, start + lanes), count - 1)


def _labels(prior, labels, places):
    return labels[places] if prior.num_classes else None


def _positions(prior, known, labels, lanes):
    features = None
    if known:
        known = {name: ops.convert_to_tensor(values) for name, values in known.items()}
        features = prior._compiled_features(known)
    return prior._position_decoder.positions(lanes, prior.code_shape, features, labels)


def _send(positions, symbols):
    try:
        return positions.send(symbols)
    except StopIteration:
        return None


def _checked(logits, level):
    if not np.isfinite(logits).all():
        raise ValueError(
            f"Expected finite logits of the prior of {level!r}. Received: some that are not"
        )
    return frequencies(logits)
