"""What a model owes `GuardedTrainer`, the same on every backend."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Tensor, TensorTree


class StepContract:
    """The backend-free half of `GuardedTrainer`.

    A training step is: outputs, loss, gradients, one test for finite numbers, the update, the
    metrics. Only the order in which a backend wants its variables handed around differs.
    """

    _evaluating = False

    def step_outputs(self, x: TensorTree, training: bool) -> TensorTree:
        """Returns what `compute_loss` and `update_step_metrics` need of one batch."""
        return self(x, training=training)

    def update_step_metrics(
        self, x: TensorTree, outputs: TensorTree, loss: Tensor, weight: Tensor
    ) -> None:
        """Updates the metrics that training and evaluation share.

        Args:
            x: The batch.
            outputs: What `step_outputs` returned.
            loss: Scalar of shape `()`.
            weight: Scalar, 1.0 for a batch that counts and 0.0 for one that was skipped. Metrics
                must stay finite for a weight of 0 although the batch is not.
        """
        weight = self.loss_weight(x, weight)
        self._loss_tracker.update_state(zero_unless(weight, loss), sample_weight=weight)

    @staticmethod
    def loss_weight(x: TensorTree, weight: Tensor) -> Tensor:
        """Weight of a batch's mean in a mean over examples: the last batch may be a small one."""
        return weight * ops.cast(ops.shape(keras.tree.flatten(x)[0])[0], "float32")

    def train_only_metrics(self) -> list[keras.metrics.Metric]:
        """The metrics that mean nothing in `evaluate`."""
        return [self.gradient_norm_tracker, self.skipped_steps_tracker]

    def update_train_metrics(
        self,
        x: TensorTree,
        outputs: TensorTree,
        loss: Tensor,
        gradient_norm: Tensor,
        finite: Tensor,
        replicas: int = 1,
    ) -> None:
        weight = ops.cast(finite, "float32")
        self.update_step_metrics(x, outputs, loss, weight)
        self.gradient_norm_tracker.update_state(
            zero_unless(weight, gradient_norm), sample_weight=weight
        )
        # All replicas skip a step together, and what they count is added up.
        self.skipped_steps_tracker.update_state((1.0 - weight) / replicas)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        self._evaluating = True
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self._evaluating = False

    def get_metrics_result(self) -> dict[str, Tensor]:
        """Keras takes these for the logs of an epoch if the last step's logs have the same names.

        It must: of several replicas the last step's logs are not the metrics of them all.
        """
        logs = super().get_metrics_result()
        return self.without_train_only(logs) if self._evaluating else logs

    def without_train_only(self, logs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        skip = {metric.name for metric in self.train_only_metrics()}
        return {name: value for name, value in logs.items() if name not in skip}

    def scales_loss(self) -> bool:
        """Whether the optimizer scales the loss, and so skips steps that overflow itself."""
        return isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)

    def gradient_norm(self, gradients: Sequence[Tensor | None]) -> Tensor:
        """Euclidean norm over all gradients of the unscaled loss, float32 of shape `()`."""
        squares = [ops.sum(ops.square(ops.cast(g, "float32"))) for g in gradients if g is not None]
        norm = ops.sqrt(sum(squares))
        # scale_loss multiplies by the current scale, so it also tells it.
        return norm / self.optimizer.scale_loss(ops.ones(())) if self.scales_loss() else norm


def zero_unless(weight, value):
    """`value` where `weight` is not 0, else 0: a plain product would keep a NaN."""
    value = ops.cast(value, "float32")
    return ops.where(weight > 0, value, ops.zeros_like(value))


def poison(gradients, finite):
    """Gradients that are NaN unless `finite`, for an optimizer that skips such steps itself."""
    return [
        g if g is None else ops.where(finite, g, ops.full_like(g, float("nan"))) for g in gradients
    ]
