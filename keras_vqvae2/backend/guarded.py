"""The guarded update: what is the same in `backend.guarded_update` of the three backends.

`guarded_update(forward, variables, optimizer, state=(), finite=True)` is the body of a training
step: a forward pass, its gradients, one test for finite numbers, the update. It runs inside of
`GuardedModel.train_batch`, once for each optimizer.

Args:
    forward: Function without arguments that returns `(loss, outputs)`: float32 of shape `()`, and
        any tensors, without gradients afterwards.
    variables: The trainable variables of this update.
    optimizer: What updates them. Where there are several, their variables are those of
        `model.optimizer`, which Keras hands around (`tests/models/test_guarded_model.py`).
    state: Variables that the forward pass moves, such as sums of codebooks: they get their old
        values back if the step does not count.
    finite: Boolean of shape `()`, a further condition, such as that of the update before.

Returns:
    `Update`. The loss is that of this replica; gradients are means over all.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import keras
from keras import ops

from keras_vqvae2.hints import Tensor, TensorTree

# A forward pass: `(loss, outputs)`, the loss of shape `()`.
Forward: TypeAlias = Callable[[], tuple[Tensor, TensorTree]]


class Update(NamedTuple):
    """What `guarded_update` has done.

    Attributes:
        loss: float32 of shape `()`.
        outputs: What the forward pass returned beside it.
        gradient_norm: Euclidean norm of all gradients of the unscaled loss, of shape `()`.
        finite: Boolean of shape `()`: whether loss and gradients were finite on every replica, so
            that anything was changed.
    """

    loss: Tensor
    outputs: TensorTree
    gradient_norm: Tensor
    finite: Tensor


def scales_loss(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether the optimizer scales the loss, and so skips steps that overflow itself."""
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


def keep_scale(optimizer: keras.optimizers.Optimizer) -> None:
    """Holds the scale of a loss at 1 or above.

    Each step that is not finite halves it. A scale of 1 is none: a step that overflows with it is
    not the scale's fault, and a scale that fell on would end at 0, where every gradient is 0.
    """
    scale = optimizer.dynamic_scale
    scale.assign(ops.maximum(scale, 1.0))


def gradient_norm(
    optimizer: keras.optimizers.Optimizer, gradients: Sequence[Tensor | None]
) -> Tensor:
    """Euclidean norm over all gradients of the unscaled loss, float32 of shape `()`."""
    squares = [ops.sum(ops.square(ops.cast(g, "float32"))) for g in gradients if g is not None]
    norm = ops.sqrt(sum(squares, ops.zeros(())))
    # scale_loss multiplies by the current scale, so it also tells it.
    return norm / optimizer.scale_loss(ops.ones(())) if scales_loss(optimizer) else norm


def poison(gradients: Sequence[Tensor | None], finite: Tensor) -> list[Any]:
    """Gradients that are NaN unless `finite`, for an optimizer that skips such steps itself."""
    return [
        g if g is None else ops.where(finite, g, ops.full_like(g, float("nan"))) for g in gradients
    ]
