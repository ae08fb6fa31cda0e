"""What codes, labels and configurations may look like where they enter a prior."""

import numpy as np
from keras import ops

from keras_vqvae2.checks import check_positive
from keras_vqvae2.models.source_checks import first_batch


def check_config(code_shape, level, condition_factors, upsampling, **sizes):
    """Raises `ValueError` unless a prior can be built."""
    if len(code_shape) != 2 or any(int(s) != s or s < 1 for s in code_shape):
        raise ValueError(
            f"Expected positive integers (rows, columns). Received: code_shape={code_shape}"
        )
    check_positive(**sizes)
    for name, factor in condition_factors.items():
        fits = int(factor) == factor and factor >= 1
        if name in (level, "label") or not fits or any(s % factor for s in code_shape):
            raise ValueError(
                f"Expected levels other than {level!r}, each with an integer that divides "
                f"code_shape={code_shape}. Received: condition_factors={condition_factors}"
            )
    if upsampling not in ("nearest", "learned"):
        raise ValueError(f"Expected 'nearest' or 'learned'. Received: upsampling={upsampling!r}")


def check_batch(prior, batch, partial=()):
    """Raises `ValueError` unless a dict of codes and labels is what a prior takes.

    Args:
        prior: The `PixelSnailPrior`.
        batch: Dict of arrays; what the prior does not take passes.
        partial: Levels in which -1 may stand for an unknown code.
    """
    expected = {name: tensor.shape[1:] for name, tensor in prior.input.items()}
    if not isinstance(batch, dict) or not set(expected) <= set(batch):
        received = sorted(batch) if isinstance(batch, dict) else type(batch).__name__
        raise ValueError(f"Expected a dict with the keys {tuple(expected)}. Received: {received}")
    arrays = {name: ops.convert_to_numpy(batch[name]) for name in expected}
    for name, array in arrays.items():
        if array.shape[1:] != expected[name] or not np.issubdtype(array.dtype, np.integer):
            raise ValueError(
                f"Expected integers of shape {('batch', *expected[name])} for {name!r}. "
                f"Received: shape {array.shape}, dtype {array.dtype}"
            )
        low = -1 if name in partial else 0
        high = prior.num_classes if name == "label" else prior.num_embeddings
        if array.size and (array.min() < low or array.max() >= high):
            what = "labels" if name == "label" else "codes"
            raise ValueError(
                f"Expected {what} in [{low}, {high}) for {name!r}. Received: from {array.min()} to "
                f"{array.max()}"
            )
    sizes = {name: len(array) for name, array in arrays.items()}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        raise ValueError(f"Expected as many of each, and at least one. Received: {sizes}")


def check_source(prior, source):
    """Checks what `fit`, `evaluate` or `predict` is given, as far as it can be seen up front."""
    batch = first_batch(source)
    if batch is not None:
        check_batch(prior, batch)


def check_request(prior, num_samples, labels, condition, codes, **integers):
    """The inputs of all samples that `generate` is asked for.

    Args:
        prior: The `PixelSnailPrior`.
        num_samples: Their number, N.
        labels: None, an integer or integers `(N,)`.
        condition: None or a dict of codes.
        codes: None or int codes `(N, rows, columns)`, -1 where unknown.
        **integers: Further arguments by name: minimum and value.

    Returns:
        Dict of int32 arrays of N rows, for each of the prior's inputs.

    Raises:
        ValueError: If something is missing, too much, out of range or of the wrong shape.
    """
    integers = {"num_samples": (1, num_samples), **integers}
    for name, (low, value) in integers.items():
        if not isinstance(value, (int, np.integer)) or value < low:
            raise ValueError(f"Expected an integer of at least {low}. Received: {name}={value!r}")
    condition = condition or {}
    coarser = set(prior.condition_factors)
    if not coarser <= set(condition):
        raise ValueError(
            f"Expected codes for the levels {sorted(coarser)}. Received: condition for "
            f"{sorted(condition)}"
        )
    if (labels is None) != (prior.num_classes is None):
        wanted = "no labels" if prior.num_classes is None else f"labels below {prior.num_classes}"
        raise ValueError(f"Expected {wanted}. Received: labels={labels}")
    request = {name: condition[name] for name in prior.condition_factors}
    if codes is None:
        codes = np.full((num_samples, *prior.code_shape), -1, "int32")
    request[prior.level] = codes
    if labels is not None:
        labels = ops.convert_to_numpy(labels)
        request["label"] = np.full(num_samples, labels) if labels.ndim == 0 else labels
    check_batch(prior, request, partial=(prior.level,))
    sizes = {name: len(value) for name, value in request.items()}
    if set(sizes.values()) != {num_samples}:
        raise ValueError(f"Expected num_samples={num_samples} of each. Received: {sizes}")
    return {name: ops.convert_to_numpy(value).astype("int32") for name, value in request.items()}
