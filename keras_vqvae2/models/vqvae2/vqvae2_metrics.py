import keras
from keras import ops

from keras_vqvae2.hints import Tensor, TensorTree
from keras_vqvae2.metrics import CodebookPerplexity, CodebookUsage, PeakSignalNoiseRatio


class VQVAE2Metrics:
    """What `fit` and `evaluate` of `VQVAE2` report beside the loss."""

    def _make_trackers(self):
        self.reconstruction_tracker = keras.metrics.Mean(name="reconstruction_error")
        self.psnr_tracker = PeakSignalNoiseRatio(name="psnr")
        self.level_trackers = {
            level: {
                "commitment": keras.metrics.Mean(name=f"commitment_{level}"),
                "perplexity": CodebookPerplexity(self.num_embeddings, name=f"perplexity_{level}"),
                "usage": CodebookUsage(self.num_embeddings, name=f"usage_{level}"),
            }
            for level in self.levels
        }
        if self.perceptual_weight:
            self.perceptual_tracker = keras.metrics.Mean(name="lpips")
        self.gradient_norm_tracker = keras.metrics.Mean(name="gradient_norm")
        self.skipped_steps_tracker = keras.metrics.Sum(name="skipped_steps")

    def update_step_metrics(
        self, x: Tensor, outputs: TensorTree, loss: Tensor, weight: Tensor
    ) -> None:
        super().update_step_metrics(x, outputs, loss, weight)
        images, reconstruction = outputs["images"], outputs["reconstruction"]
        self._track_error(self.reconstruction_tracker, images, reconstruction, weight)
        if self.perceptual_weight:
            self._track(self.perceptual_tracker, outputs["lpips"], weight)
        self.psnr_tracker.update_state(images, reconstruction, sample_weight=weight)
        for level, trackers in self.level_trackers.items():
            vectors, quantized = outputs["vectors"][level], outputs["quantized"][level]
            self._track_error(trackers["commitment"], vectors, quantized, weight)
            trackers["perplexity"].update_state(outputs["codes"][level], sample_weight=weight)
            trackers["usage"].update_state(outputs["codes"][level], sample_weight=weight)

    def _track_error(self, tracker, a, b, weight):
        error = ops.square(ops.cast(a, "float32") - ops.cast(b, "float32"))
        self._track(tracker, ops.mean(error, axis=(1, 2, 3)), weight)

    @staticmethod
    def _track(tracker, values, weight):
        keep = ops.broadcast_to(weight, ops.shape(values))
        values = ops.where(keep > 0, values, ops.zeros_like(values))
        tracker.update_state(values, sample_weight=keep)
