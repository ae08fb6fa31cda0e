import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_vqvae2.hints import Dataset, Tensor
from keras_vqvae2.image_batches import to_numpy
from keras_vqvae2.models.image_generator import HierarchicalImageGenerator
from keras_vqvae2.validation import check_codes, check_positive, side_by_side


def evaluate_likelihood(
    generator: HierarchicalImageGenerator,
    data: Tensor | Dataset,
    labels: Tensor | None = None,
    train_codes: Mapping[str, Tensor] | None = None,
    batch_size: int = 32,
) -> dict[str, Any]:
    """Measures how likely a generator's priors find the codes of images, in nats.

    ```
    log p(codes | label) = sum over levels of log p(level's codes | label, coarser levels)
    ```

    It is the likelihood of codes, not of pixels: what the decoder leaves out is not counted, so
    `bits_per_dim` compares with the bits of another such model of equal reconstructions, and not
    with that of a model of pixels.

    Args:
        generator: `HierarchicalImageGenerator`.
        data: Images of shape `(N, H, W, C)`, floats in `[0, 1]` or uint8; or a dict of their codes,
            as `VQVAE2.encode` makes it; or batches of either, alone or in pairs with labels, such
            as a `tf.data.Dataset`. Dicts may hold the labels, as `"label"`.
        labels: Integers of shape `(N,)`, for a generator with classes and `data` without labels
            that comes at once.
        train_codes: None, or a dict of codes of training images, for the baseline that knows only
            positions, see `position_nats`.
        batch_size: Positive integer, images at a time.

    Returns:
        Dict: `images`, their number N; `levels`, a dict from level to the floats `nats_per_code`,
        `uniform` (the same if all codes were equally likely) and, with `train_codes`,
        `position_only`; `nats_per_image`, the sum over codes and levels, mean over images;
        `bits_per_dim`, that in bits over the image's pixels and channels.

    Raises:
        ValueError: If there is no data, or labels, images or codes do not fit the generator, or a
            prior has no exact likelihood.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    vqvae = keras_vqvae2.VQVAE2((16, 16, 3), hidden_units=8, residual_units=4, num_levels=1)
    prior = keras_vqvae2.PixelSnailPrior(
        (4, 4), level="bottom", hidden_units=8, residual_units=8, num_blocks=1, block_layers=1,
        attention_heads=2, output_blocks=0,
    )
    generator = keras_vqvae2.HierarchicalImageGenerator(vqvae, [prior])
    images = np.random.default_rng(0).uniform(size=(4, 16, 16, 3))
    measured = keras_vqvae2.evaluation.evaluate_likelihood(generator, images)
    print(round(measured["levels"]["bottom"]["uniform"], 3))  # 6.238
    ```

    Reference:
        - Razavi, van den Oord, Vinyals 2019, arXiv 1906.00446, section 5.2.1, table 1.
    """
    check_positive(batch_size=batch_size)
    priors, vqvae = generator.priors, generator.vqvae
    nats = dict.fromkeys(priors, 0.0)
    baseline = dict.fromkeys(priors, 0.0)
    tables = {}
    if train_codes is not None:
        if not set(priors) <= set(train_codes):
            raise ValueError(
                f"Expected train_codes of {tuple(priors)}. Received: {tuple(train_codes)}"
            )
        tables = {
            level: _position_table(train_codes[level], prior.num_embeddings)
            for level, prior in priors.items()
        }
    count = 0
    for codes in _code_batches(generator, data, labels, batch_size):
        for level, prior in priors.items():
            each = prior.nats(codes, batch_size)  # (B, rows, columns)
            if each is None:
                raise ValueError(
                    "Expected priors that have an exact likelihood. "
                    f"Received: {type(prior).__name__} of {level!r}, which has none"
                )
            nats[level] += float(each.sum(dtype="float64"))
            if tables:
                baseline[level] += _table_nats(tables[level], codes[level])
        count += len(each)
    if not count:
        raise ValueError("Expected images or codes. Received: none")
    levels = {}
    for level, prior in priors.items():
        codes_in_all = count * math.prod(prior.code_shape)
        levels[level] = {
            "nats_per_code": nats[level] / codes_in_all,
            "uniform": math.log(prior.num_embeddings),
        }
        if tables:
            levels[level]["position_only"] = baseline[level] / codes_in_all
    nats_per_image = sum(nats.values()) / count
    return {
        "images": count,
        "levels": levels,
        "nats_per_image": nats_per_image,
        "bits_per_dim": nats_per_image / math.log(2) / math.prod(vqvae.image_shape),
    }


def position_nats(train_codes: Tensor, codes: Tensor, num_embeddings: int) -> float:
    """Cross-entropy of codes under the frequencies that training codes have at each position.

    The baseline of a prior: it knows where a code stands and nothing of the codes around it. Each
    count is one more than was seen, so that a code that was not seen is not impossible.

    Args:
        train_codes: Integers in `[0, num_embeddings)`, shape `(N, rows, columns)`.
        codes: Likewise, shape `(M, rows, columns)`.
        num_embeddings: Positive integer, number of codes.

    Returns:
        Float, nats a code.

    Raises:
        ValueError: If there are none of either, sizes differ, or a code is out of range.

    Example:

    ```python
    import numpy as np
    from keras_vqvae2.evaluation.likelihood import position_nats

    codes = np.zeros((6, 1, 1), "int32")
    print(round(position_nats(codes, codes, num_embeddings=2), 4))  # -log(7 / 8) = 0.1335
    ```
    """
    table = _position_table(train_codes, num_embeddings)
    return _table_nats(table, codes) / np.size(codes)


def _position_table(codes, num_embeddings):
    """Nats of every code at every position, shape `(rows, columns, num_embeddings)`."""
    codes = check_codes(side_by_side(to_numpy(codes)), num_embeddings)
    counts = np.ones((*codes.shape[1:], num_embeddings))
    rows, columns = np.indices(codes.shape[1:])
    for one in codes:
        counts[rows, columns, one] += 1  # no place twice in one map
    return np.log(counts.sum(axis=-1, keepdims=True)) - np.log(counts)


def _table_nats(table, codes):
    """Sum over all codes of their nats."""
    codes = check_codes(side_by_side(to_numpy(codes)), table.shape[-1], table.shape[:2])
    rows, columns = np.indices(codes.shape[1:])
    return float(table[rows, columns, codes].sum())


def _code_batches(generator, data, labels, batch_size):
    """Dicts of codes, with labels if there are classes."""
    if isinstance(data, dict) or hasattr(data, "shape"):
        data = [data if labels is None else (data, labels)]
    elif labels is not None:
        raise ValueError("Expected labels beside each batch of data. Received: labels apart")
    for batch in data:
        batch, labels = batch if isinstance(batch, (tuple, list)) else (batch, None)
        if isinstance(batch, dict):
            codes = {name: to_numpy(value) for name, value in batch.items()}
        else:
            codes = generator.vqvae.encode(batch, batch_size)
        if labels is not None:
            codes["label"] = to_numpy(labels)
        if generator.num_classes and "label" not in codes:
            raise ValueError(f"Expected labels below {generator.num_classes}. Received: none")
        yield codes
