import math

import keras

from keras_vqvae2.backend.step_contract import zero_unless
from keras_vqvae2.hints import Tensor, TensorTree


class PriorMetrics:
    """What `fit` and `evaluate` of `PixelSnailPrior` report beside the loss."""

    def _make_trackers(self):
        self.bits_per_code_tracker = keras.metrics.Mean(name="bits_per_code")
        self.bits_per_dim_tracker = None
        if self.image_shape is not None:
            self.bits_per_dim_tracker = keras.metrics.Mean(name="bits_per_dim")
        self.gradient_norm_tracker = keras.metrics.Mean(name="gradient_norm")
        self.skipped_steps_tracker = keras.metrics.Sum(name="skipped_steps")

    def update_step_metrics(
        self, x: TensorTree, outputs: TensorTree, loss: Tensor, weight: Tensor
    ) -> None:
        super().update_step_metrics(x, outputs, loss, weight)
        weight = self.loss_weight(x, weight)
        bits = zero_unless(weight, loss) / math.log(2.0)
        self.bits_per_code_tracker.update_state(bits, sample_weight=weight)
        if self.bits_per_dim_tracker is not None:
            codes_a_dim = math.prod(self.code_shape) / math.prod(self.image_shape)
            self.bits_per_dim_tracker.update_state(bits * codes_a_dim, sample_weight=weight)
