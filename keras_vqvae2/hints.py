"""Names for what signatures take and return; shapes and units stand in the docstrings."""

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import keras
import numpy as np

T = TypeVar("T")

# A tensor of any backend, a `keras.KerasTensor`, or an array: they have no type in common.
Tensor: TypeAlias = Any
# Tensors in tuples, lists and dicts.
TensorTree: TypeAlias = Any
# A `tf.data.Dataset`, a `grain.IterDataset`, and whatever else `fit` takes.
Dataset: TypeAlias = Any
# Integers of shape `(N, rows, columns)` by level, coarse to fine.
Codes: TypeAlias = dict[str, np.ndarray]
# A name, an index, or one of them for each image.
Labels: TypeAlias = str | int | Sequence[str | int] | np.ndarray
# One value for all levels, or one by level.
PerLevel: TypeAlias = T | dict[str, T]
# From float32 images in `[0, 1]` to probabilities of shape `(batch, outputs)`.
Classifier: TypeAlias = Callable[[np.ndarray], Tensor]

# From images and reconstructions to a loss of each, shape `(batch,)`.
Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]

# One number for height and width, or both.
Size: TypeAlias = int | Sequence[int]
Shape: TypeAlias = tuple[Any, ...]  # with None for what is not known
DTypePolicy: TypeAlias = str | keras.DTypePolicy | None
Config: TypeAlias = dict[str, Any]
FilePath: TypeAlias = str | os.PathLike[str]
