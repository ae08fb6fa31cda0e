"""What may enter a model: images, codes, labels, numbers. Errors before any long work starts."""

import inspect
import itertools
import math
import operator
import types
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2.hints import Dataset, Shape, Size, Tensor
from keras_vqvae2.image_batches import to_numpy

SLICE = 64  # images at a time whose range is looked at: a whole array is not copied


def check_positive(**values: Any) -> None:
    """Raises `ValueError` that names the first value that is not a positive integer."""
    for name, value in values.items():
        check_integer(name, value, 1, "a positive integer")


def check_integer(name: str, value: Any, low: int, what: str | None = None) -> None:
    """Raises `ValueError` unless `value` is an integer of at least `low`."""
    try:
        fits = operator.index(value) >= low
    except TypeError:
        fits = False
    if not fits:
        what = what or f"an integer of at least {low}"
        raise ValueError(f"Expected {what}. Received: {name}={value!r}")


def check_non_negative(**values: Any) -> None:
    """Raises `ValueError` that names the first value that is negative, or not a number."""
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"Expected a non-negative number. Received: {name}={value!r}")


def check_share(name: str, value: Any) -> None:
    """Raises `ValueError` unless `value` is in `[0, 1)`."""
    if not 0 <= value < 1:
        raise ValueError(f"Expected a number in [0, 1). Received: {name}={value!r}")


# === Images ===


def check_image_shape(
    shape: Shape, channels: int, stride: int = 1, argument: str = "images"
) -> None:
    """Raises `ValueError` unless `shape` is `(batch, H, W, channels)` and `stride` divides H, W.

    Sizes that are `None` pass.
    """
    shape = tuple(shape)
    if len(shape) != 4 or shape[-1] not in (channels, None):
        raise ValueError(
            f"Expected images of shape (batch, height, width, {channels}). "
            f"Received: {argument} of shape {shape}"
        )
    if any(size is not None and (size == 0 or size % stride) for size in shape[1:3]):
        raise ValueError(
            f"Expected a height and a width that are multiples of {stride}, the model's "
            f"downsampling. Received: {argument} of shape {shape}"
        )


def check_images(
    images: Tensor,
    channels: int,
    stride: int = 1,
    argument: str = "images",
    nan_passes: bool = False,
) -> None:
    """Raises `ValueError` unless `images` is a batch of pixels that a model can take.

    Args:
        images: Array of shape `(batch, H, W, channels)`: floats in `[0, 1]`, or uint8.
        channels: Expected number of channels.
        stride: Number that must divide height and width.
        argument: Name of the argument in the message.
        nan_passes: Whether pixels may be NaN: training counts and skips such a batch.
    """
    check_image_shape(images.shape, channels, stride, argument)
    if images.shape[0] == 0:
        raise ValueError(
            f"Expected at least one image. Received: {argument} of shape {tuple(images.shape)}"
        )
    kind = keras.backend.standardize_dtype(images.dtype)
    if kind == "uint8":
        return
    if "float" not in kind:
        raise ValueError(
            f"Expected floats in [0, 1] or uint8 in [0, 255]. Received: {argument} of dtype {kind}"
        )
    low, high = math.inf, -math.inf
    for i in range(0, images.shape[0], SLICE):
        part = to_numpy(images[i : i + SLICE]).astype("float32", copy=False)
        low = np.fmin(low, np.fmin.reduce(part, axis=None))
        high = np.fmax(high, np.fmax.reduce(part, axis=None))
    # 1e-3 allows for resizing with overshoot.
    if low < -1e-3 or high > 1 + 1e-3:
        raise ValueError(
            "Expected pixels in [0, 1], or uint8 in [0, 255] (scaled here). "
            f"Received: {argument} with pixels from {low:.4g} to {high:.4g}"
        )
    if not nan_passes:
        check_numbers(images, argument)


def check_numbers(images: Tensor, argument: str = "images") -> None:
    """Raises `ValueError` if a pixel is NaN."""
    count = images.shape[0]
    parts = (to_numpy(images[i : i + SLICE]) for i in range(0, count, SLICE))
    nans = sum(int(np.isnan(part).any(axis=(1, 2, 3)).sum()) for part in parts)
    if nans:
        raise ValueError(
            "Expected numbers for pixels. "
            f"Received: {argument} with NaN in {nans} of {count} images"
        )


# === Codes ===


def check_codes(
    codes: Tensor,
    num_embeddings: int,
    shape: tuple[int, ...] | None = None,
    argument: str = "codes",
    low: int = 0,
    what: str = "codes",
) -> np.ndarray:
    """Raises `ValueError` unless `codes` are maps of codes.

    Args:
        codes: Integers in `[low, num_embeddings)`, shape `(batch, rows, columns)`.
        num_embeddings: Number of codes.
        shape: `(rows, columns)`, or None for any; `()` for one integer an example.
        argument: Name of the argument in the message.
        low: 0, or -1 where codes may be unknown.
        what: What they are, in the message.

    Returns:
        The codes, a NumPy array.
    """
    codes = to_numpy(codes)
    wanted = ("rows", "columns") if shape is None else tuple(shape)
    fits = codes.ndim == 1 + len(wanted) and codes.dtype.kind in "iu"
    if not fits or (shape is not None and codes.shape[1:] != wanted) or not codes.size:
        described = ", ".join(map(str, ("batch", *wanted)))
        raise ValueError(
            f"Expected integer {what} of shape ({described}), at least one. "
            f"Received: {argument} of shape {codes.shape}, dtype {codes.dtype}"
        )
    if codes.min() < low or codes.max() >= num_embeddings:
        raise ValueError(
            f"Expected {what} in [{low}, {num_embeddings}). "
            f"Received: {argument} from {codes.min()} to {codes.max()}"
        )
    return codes


def labels_of_all(labels: Any, num_classes: int | None, count: int) -> np.ndarray | None:
    """Labels of so many examples, of one for all or one each; None without classes.

    Raises:
        ValueError: If they are missing, or there are no classes.
    """
    if (labels is None) != (num_classes is None):
        wanted = "no labels" if num_classes is None else f"labels below {num_classes}"
        raise ValueError(f"Expected {wanted}. Received: labels={labels}")
    if labels is None:
        return None
    labels = keras.ops.convert_to_numpy(labels)
    return np.full(count, labels) if labels.ndim == 0 else labels


def side_by_side(codes: Tensor) -> Tensor:
    """Maps of several codes a position as maps of one, in which they stand side by side.

    Args:
        codes: Shape `(batch, rows, columns)` or `(batch, rows, columns, depth)`.

    Returns:
        Shape `(batch, rows, columns)` or `(batch, rows, columns * depth)`.
    """
    if len(codes.shape) != 4:
        return codes
    _, rows, columns, depth = codes.shape
    reshape = np.reshape if isinstance(codes, np.ndarray) else keras.ops.reshape
    return reshape(codes, (-1, rows, columns * depth))


# === Sources of data ===


def both_axes(size: Size) -> tuple[int, int]:
    """`(rows, columns)` of what is one integer for both, or a pair."""
    rows, columns = size if isinstance(size, Sequence) else (size, size)
    return int(rows), int(columns)


def divides(factor: Any, code_shape: Sequence[int]) -> bool:
    """Whether a positive integer, or one for each axis, divides the size of a map."""
    factors = factor if isinstance(factor, Sequence) else (factor, factor)
    pairs = zip(factors, code_shape, strict=False)
    return len(factors) == 2 and all(f == int(f) and f >= 1 and not n % f for f, n in pairs)


def coarser_shape(code_shape: Sequence[int], factor: Size) -> tuple[int, ...]:
    """`(rows, columns)` of a map that is so many times smaller."""
    return tuple(n // f for n, f in zip(code_shape, both_axes(factor), strict=True))


def height_and_width(image_size: Any) -> tuple[int, int]:
    """What an integer for both, or `(height, width)`, stands for.

    Raises:
        ValueError: If it is not one or two positive integers.
    """
    try:
        sizes = image_size if np.ndim(image_size) else (image_size, image_size)
        height, width = (operator.index(size) for size in sizes)
        fits = min(height, width) >= 1
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            f"Expected a positive integer or (height, width). Received: image_size={image_size!r}"
        )
    return height, width


def is_arrays(source: Any) -> bool:
    return isinstance(source, dict) or (hasattr(source, "shape") and hasattr(source, "dtype"))


def first_batch(source: Any) -> tuple[Any, Any]:
    """What there is to check of a model's inputs: arrays as they are, a data set's first batch.

    Data sets are told without importing their package: a `tf.data.Dataset` by its `element_spec`,
    a `keras.utils.PyDataset` by its `num_batches`, Grain's by their module. Each can be read from
    its start again; of a generator the batch is put back.

    Args:
        source: What `fit`, `evaluate` or `predict` was given.

    Returns:
        A tuple `(batch, source)`. The batch is an array or a dict of arrays; of batches that are
        tuples, the inputs. Of PyTorch's loaders, whose order a look would change, it is made of the
        first examples of their data set; None if there is none to look at. The source is what is to
        be read from now on.

    Raises:
        ValueError: If a data set is empty, or the source is a list.
    """
    if is_arrays(source):
        return source, source
    if isinstance(source, (list, tuple)):
        raise ValueError(
            "Expected an array, a dict of arrays, or a data set of batches. "
            f"Received: a {type(source).__name__} of {len(source)}; numpy.stack makes an array of "
            "arrays of one shape"
        )
    if hasattr(source, "element_spec") and hasattr(source, "take"):
        first = next(iter(source.take(1)), None)
    elif hasattr(source, "num_batches") and hasattr(source, "__getitem__"):
        first = source[0]
    elif is_grain(source):
        first = next(iter(source), None)
    elif hasattr(source, "batch_sampler") and callable(getattr(source, "collate_fn", None)):
        if source.batch_sampler is None or not hasattr(source.dataset, "__len__"):
            return None, source  # batches made elsewhere, or a stream
        count = min(getattr(source.batch_sampler, "batch_size", None) or 1, len(source.dataset))
        examples = [source.dataset[i] for i in range(count)]
        first = source.collate_fn(examples) if examples else None
    elif isinstance(source, types.GeneratorType):
        first = next(source, None)
        source = _put_back(first, source)
    else:
        return None, source
    if first is None:
        raise ValueError("Expected at least one batch. Received: an empty data set")
    return first[0] if isinstance(first, (tuple, list)) else first, source


def _put_back(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield from itertools.chain([first], rest)  # a generator, as Keras wants it


def is_grain(source: Dataset) -> bool:
    names = {"MapDataset", "IterDataset", "DataLoader"}
    parents = type(source).__mro__
    return any(c.__name__ in names and c.__module__.split(".")[0] == "grain" for c in parents)


def bind_arguments(method: str, x: Any, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `keras.Model.fit` or `evaluate` by name.

    Args:
        method: `"fit"` or `"evaluate"`.
        x: Its first argument.
        args: Its further arguments.
        kwargs: Its keywords.

    Raises:
        ValueError: For weights of arrays that Keras would drop: those without a `y`.
    """
    signature = inspect.signature(getattr(keras.Model, method))
    given = dict(signature.bind(None, x, *args, **kwargs).arguments)
    given.pop("self")
    given |= given.pop("kwargs", {})
    weighted: dict[str, Any] = {"y=None": (x, given.get("y"), given.get("sample_weight"))}
    validation = given.get("validation_data")
    if isinstance(validation, (tuple, list)) and len(validation) == 3:
        weighted["y=None in validation_data"] = validation
    for received, (source, y, weights) in weighted.items():
        if is_arrays(source) and y is None and weights is not None:
            raise ValueError(
                "Expected a y beside the sample weights: without one Keras drops them. The model "
                f"does not look at it, zeros will do. Received: {received}"
            )
    if given.get("class_weight") is not None and is_arrays(x) and given.get("y") is None:
        raise ValueError("Expected a y that class_weight can weigh. Received: y=None")
    return given


def check_sample_weight(sample_weight: Any) -> None:
    """Raises `ValueError` unless it is None, or of shape `(batch,)` or `(batch, 1)`."""
    if sample_weight is None:
        return
    # A list has none, and a tensor of a graph is no array.
    shape = tuple(
        sample_weight.shape if hasattr(sample_weight, "shape") else np.shape(sample_weight)
    )
    if len(shape) != 1 and shape[1:] != (1,):
        raise ValueError(
            f"Expected sample weights of shape (batch,). Received: sample_weight of shape {shape}"
        )


def weigh_examples(values: Tensor, sample_weight: Tensor | None) -> Tensor:
    """Values of shape `(batch,)` times weights, None or one for each: `(batch,)`, `(batch, 1)`."""
    if sample_weight is None:
        return values
    check_sample_weight(sample_weight)
    return values * ops.cast(ops.reshape(sample_weight, (-1,)), "float32")
