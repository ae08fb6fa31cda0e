"""A `VQVAE2` as a codec: images to bytes, and back."""

import math
from collections.abc import Mapping

import numpy as np

from keras_vqvae2.compression import prior_coder
from keras_vqvae2.compression.bit_packing import bits_of, pack, unpack
from keras_vqvae2.compression.container import (
    BY_PRIORS,
    MOST_LANES,
    PACKED,
    Header,
    Reader,
    codes_checksum,
    damaged,
    number,
    open_sealed,
    seal,
)
from keras_vqvae2.hints import Codes, Labels, Tensor
from keras_vqvae2.models.image_generator import HierarchicalImageGenerator, label_indices
from keras_vqvae2.models.vqvae2 import VQVAE2
from keras_vqvae2.validation import check_positive

Model = VQVAE2 | HierarchicalImageGenerator


def compress(
    model: Model, images: Tensor, labels: Labels | None = None, batch_size: int = 32
) -> bytes:
    """Images as few bytes.

    Of a `VQVAE2` each code takes `ceil(log2 K)` bits. Of a `HierarchicalImageGenerator` whose
    priors draw in raster order, a code that they find likely takes few bits and an unlikely one
    more, on average their likelihood: what `evaluation.evaluate_likelihood` reports. This takes a
    step of the prior for each code, and so does `decompress`, with the same model on the same
    backend and kind of machine: another one rounds probabilities in another way, and is told so by
    an error.

    Args:
        model: `VQVAE2`, for images of any size that it takes; or `HierarchicalImageGenerator`, for
            images of its size.
        images: Array of shape `(N, H, W, C)`, floats in `[0, 1]` or uint8.
        labels: None, or for a generator with classes a name, an index, or N of them. By default
            each image gets the label under which it takes the fewest bits, which costs a pass of
            the priors for each class.
        batch_size: Positive integer up to 1024, images at a time. `decompress` takes as many.

    Returns:
        The bytes of a `.vqc` file.

    Raises:
        ValueError: If images or labels do not fit, or a prior does not draw in raster order.

    Example:

    ```python
    import keras_vqvae2

    vqvae = keras_vqvae2.VQVAE2.from_preset("vqvae2_clothing_64")
    images = keras_vqvae2.data.sample_photographs(64)[:1]
    data = keras_vqvae2.compression.compress(vqvae, images)
    print(len(data), images.nbytes)  # 381 12288
    reconstructions = keras_vqvae2.compression.decompress(vqvae, data)  # (1, 64, 64, 3)
    ```
    """
    vqvae, _ = _parts(model)
    return compress_codes(model, vqvae.encode(images, batch_size), labels, batch_size)


def decompress(model: Model, data: bytes, batch_size: int = 32) -> np.ndarray:
    """The reconstructions of images that were compressed.

    Args:
        model: The one of `compress`; for packed codes a generator with its `VQVAE2` will do.
        data: What `compress` returned.
        batch_size: Positive integer, images that are decoded at a time.

    Returns:
        float32 images in `[0, 1]`, shape `(N, H, W, C)`: what `VQVAE2.decode` makes of the codes.

    Raises:
        ValueError: If the bytes are another file, damaged, of another model, or were written where
            probabilities are rounded in another way. Nothing in a file takes more memory or time
            than its size allows for.
    """
    vqvae, _ = _parts(model)
    return vqvae.decode(decompress_codes(model, data), batch_size)


def compress_codes(
    model: Model, codes: Mapping[str, Tensor], labels: Labels | None = None, batch_size: int = 32
) -> bytes:
    """As `compress`, of codes that there are already.

    Args:
        model: As in `compress`.
        codes: Dict from level to integer codes, as `VQVAE2.encode` returns it.
        labels: As in `compress`.
        batch_size: As in `compress`.

    Returns:
        The bytes of a `.vqc` file.

    Raises:
        ValueError: As `compress`.
    """
    vqvae, generator = _parts(model)
    check_positive(batch_size=batch_size)
    if not set(vqvae.levels) <= set(codes):
        raise ValueError(f"Expected codes of the levels {vqvae.levels}. Received: {tuple(codes)}")
    whole = vqvae._whole_codes({level: codes[level] for level in vqvae.levels})
    count, rows, columns = whole[vqvae.levels[0]].shape[:3]
    coding = PACKED if generator is None else BY_PRIORS
    header = Header(coding, bytes.fromhex(vqvae.fingerprint()), count, rows, columns)
    if generator is None:
        if labels is not None:
            raise ValueError(f"Expected no labels for a VQVAE2. Received: labels={labels}")
        flags = [pack(values, vqvae.code_sizes[level]) for level, values in whole.items()]
        return seal(header, np.packbits(np.concatenate(flags)).tobytes())
    prior_coder.check_priors(generator)
    _check_maps(generator, header)
    lanes = min(batch_size, count, MOST_LANES)
    if labels is None and generator.num_classes:
        indices = prior_coder.cheapest_labels(generator, whole, lanes)
    else:
        names, classes = generator.label_names, generator.num_classes
        indices = label_indices(labels, np.arange(count), classes, names)
    streams = prior_coder.encode_images(generator, whole, indices, lanes)
    numbers = [0] * count if indices is None else [int(label) + 1 for label in indices]
    sizes = [number(a) + number(len(stream)) for a, stream in zip(numbers, streams)]
    start = prior_coder.priors_fingerprint(generator) + number(lanes)
    return seal(header, b"".join([start, *sizes, *streams, codes_checksum(whole)]))


def decompress_codes(model: Model, data: bytes) -> Codes:
    """The codes of images that were compressed: exactly those that went in.

    Args:
        model: As in `decompress`.
        data: As in `decompress`.

    Returns:
        Dict from level to int32 codes, coarse to fine, as `VQVAE2.encode` returns it.

    Raises:
        ValueError: As `decompress`.
    """
    vqvae, generator = _parts(model)
    header, reader = open_sealed(data)
    if header.fingerprint.hex() != vqvae.fingerprint():
        raise ValueError(
            f"Expected a file of the VQVAE2 with the fingerprint {vqvae.fingerprint()}. "
            f"Received: one of {header.fingerprint.hex()}"
        )
    if header.coding == PACKED:
        return _packed_codes(vqvae, header, reader)
    if generator is None:
        raise ValueError(
            "Expected the HierarchicalImageGenerator that the file was written with: its codes are "
            "coded by priors. Received: a VQVAE2"
        )
    prior_coder.check_priors(generator)
    _check_maps(generator, header)
    return _coded_codes(generator, header, reader)


def _parts(model):
    if isinstance(model, HierarchicalImageGenerator):
        return model.vqvae, model
    if isinstance(model, VQVAE2):
        return model, None
    raise ValueError(
        "Expected a VQVAE2 or a HierarchicalImageGenerator. "
        f"Received: model of type {type(model).__name__}"
    )


def _shapes(vqvae, header):
    unit = vqvae.downsampling
    return vqvae.code_shapes((header.rows * unit, header.columns * unit))


def _array_shapes(vqvae, header):
    maps, axes = _shapes(vqvae, header), vqvae.code_axes
    return {level: (header.images, *shape, *axes[level]) for level, shape in maps.items()}


def _check_maps(generator, header):
    wanted = generator.vqvae.code_shapes()
    if _shapes(generator.vqvae, header) != wanted:
        raise ValueError(
            f"Expected images of {generator.vqvae.image_shape[:2]}, the size of the priors' maps. "
            f"Received: maps of {_shapes(generator.vqvae, header)}"
        )


def _packed_codes(vqvae: VQVAE2, header: Header, reader: Reader) -> Codes:
    shapes = _array_shapes(vqvae, header)
    positions = {level: math.prod(shape[:3]) for level, shape in shapes.items()}
    sizes = {
        level: positions[level] * sum(map(bits_of, of_codes))
        for level, of_codes in vqvae.code_sizes.items()
    }
    total = sum(sizes.values())
    body = reader.take(-(-total // 8))
    reader.end()
    flags = np.unpackbits(np.frombuffer(body, "uint8"))
    if flags[total:].any():
        raise damaged("with bits behind its codes")
    codes, place = {}, 0
    for level, shape in shapes.items():
        values = unpack(flags[place : place + sizes[level]], vqvae.code_sizes[level])
        place += sizes[level]
        if (values.max(axis=0) >= vqvae.code_sizes[level]).any():
            raise damaged(f"with a code {values.max()} of {level!r}")
        codes[level] = values.astype("int32").reshape(shape)
    return codes


def _coded_codes(generator: HierarchicalImageGenerator, header: Header, reader: Reader) -> Codes:
    if reader.take(4) != prior_coder.priors_fingerprint(generator):
        raise ValueError(
            "Expected a file that was written with the same priors on the same backend. "
            "Received: one of others"
        )
    lanes = reader.number()
    if not 1 <= lanes <= min(header.images, MOST_LANES):
        raise damaged(f"with {lanes} of {header.images} images side by side")
    labels, sizes = [], []
    for _ in range(header.images):
        labels.append(reader.number() - 1)
        sizes.append(reader.number())
    classes = generator.num_classes
    known = range(-1, 0) if classes is None else range(classes)
    if any(label not in known for label in labels) or not min(sizes):
        raise damaged("with a label that there is not, or an image without bytes")
    streams = [reader.take(size) for size in sizes]
    checksum = reader.take(4)
    reader.end()
    indices = None if classes is None else np.array(labels, "int32")
    codes = prior_coder.decode_images(generator, streams, indices, lanes)
    if codes_checksum(codes) != checksum:
        raise ValueError(
            "Expected the probabilities that the file was written with. Received: other codes than "
            "it names: it is damaged, or was written on another kind of machine or by other "
            "versions of the backend"
        )
    shapes = _array_shapes(generator.vqvae, header)
    return {level: values.reshape(shapes[level]) for level, values in codes.items()}
