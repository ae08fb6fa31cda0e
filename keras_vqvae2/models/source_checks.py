"""What of a source of data can be seen before any long work starts."""

import inspect

import keras


def first_batch(source):
    """What there is to check of a model's inputs: arrays as they are, a data set's first batch.

    Data sets are told without importing their package: a `tf.data.Dataset` by its `element_spec`,
    a `keras.utils.PyDataset` by its `num_batches`, Grain's by their module. Each can be read from
    its start again.

    Args:
        source: What `fit`, `evaluate` or `predict` was given.

    Returns:
        An array or a dict of arrays; of batches that are tuples, the inputs. None for what cannot
        be started again (generators), or not without a change of its order (PyTorch's loaders).

    Raises:
        ValueError: If a data set is empty.
    """
    if is_arrays(source):
        return source
    if hasattr(source, "element_spec") and hasattr(source, "take"):
        first = next(iter(source.take(1)), None)
    elif hasattr(source, "num_batches") and hasattr(source, "__getitem__"):
        first = source[0]
    elif is_grain(source):
        first = next(iter(source), None)
    else:
        return None
    if first is None:
        raise ValueError("Expected at least one batch. Received: an empty data set")
    return first[0] if isinstance(first, (tuple, list)) else first


def is_arrays(source):
    return isinstance(source, dict) or (hasattr(source, "shape") and hasattr(source, "dtype"))


def is_grain(source):
    names = {"MapDataset", "IterDataset", "DataLoader"}
    parents = type(source).__mro__
    return any(c.__name__ in names and c.__module__.split(".")[0] == "grain" for c in parents)


def check_weights(method, x, args, kwargs):
    """Raises `ValueError` for weights of arrays that Keras would drop: those without a `y`.

    Args:
        method: `"fit"` or `"evaluate"`.
        x: Its first argument.
        args: Its further arguments.
        kwargs: Its keywords.
    """
    signature = inspect.signature(getattr(keras.Model, method))
    given = signature.bind(None, x, *args, **kwargs).arguments
    weighted = {"y=None": (x, given.get("y"), given.get("sample_weight"))}
    validation = given.get("validation_data")
    if isinstance(validation, (tuple, list)) and len(validation) == 3:
        weighted["y=None in validation_data"] = validation
    for received, (source, y, weights) in weighted.items():
        if is_arrays(source) and y is None and weights is not None:
            raise ValueError(
                "Expected a y beside the sample weights: without one Keras drops them. The model "
                f"does not look at it, zeros will do. Received: {received}"
            )
