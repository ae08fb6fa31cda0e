import functools
import math
from typing import Any, Self

import keras
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Config, FilePath, Tensor, TensorTree
from keras_vqvae2.image_batches import to_unit_floats
from keras_vqvae2.losses.adversarial import ADVERSARIAL_LOSSES, LeCAM, adaptive_weight
from keras_vqvae2.models.adversarial.optimizer_group import OptimizerGroup
from keras_vqvae2.models.guarded_model import GuardedModel, MeanOfSome, zero_unless
from keras_vqvae2.models.vqvae2.vqvae2 import VQVAE2
from keras_vqvae2.models.vqvae2.vqvae2_layers import to_pixels
from keras_vqvae2.validation import check_integer

_METRICS = (
    "generator_loss",
    "discriminator_loss",
    "adversarial_weight",
    "logits_real",
    "logits_fake",
)


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class AdversarialVQVAE2(GuardedModel):
    """Trains a `VQVAE2` and a discriminator that tells its reconstructions from images.

    ```
    decoder:       L + w d G,   G = generator loss of D(reconstruction)
    discriminator: discriminator loss of D(image), D(reconstruction)  [+ lecam_weight LeCAM]
    d = |gradient of the reconstruction losses| / |gradient of G|, at the decoder's last kernel
    ```

    with `L` the loss of the `VQVAE2`. With `freeze_codes`, the default, only what decodes is
    trained: images keep their codes, and priors stay valid (`VQVAE2.fingerprint` does not change).

    A discriminator that starts to count before it knows anything ruins reconstructions. Here it
    learns from the first step; its weight `w` is 0 until step `start`, and then rises for `ramp`
    steps to `weight`. A step that is not finite changes neither of the two.

    Metrics are those of the `VQVAE2`, and `generator_loss`, `discriminator_loss`,
    `adversarial_weight` (`w d`), `logits_real` and `logits_fake`; `evaluate` has the first ones.

    Args:
        vqvae: `VQVAE2`. It is trained in place: save it, or this model's `save_to_preset`, which
            does just that.
        discriminator: Model from images in `[0, 1]` to float32 logits of any shape, such as
            `PatchDiscriminator`.
        freeze_codes: Whether encoder and codebooks stay as they are.
        weight: Non-negative float. Defaults to 0.8.
        adaptive: Whether `d` is computed, or 1.
        loss: `"hinge"`, `"vanilla"` or `"non_saturating"`.
        start: Non-negative integer, steps before the discriminator counts. Defaults to 500.
        ramp: Positive integer, steps in which its weight rises. Defaults to 500.
        lecam_weight: Non-negative float. Defaults to 0.001; 0.05 in SEED-Voken.
        **kwargs: `name`.

    Raises:
        ValueError: If a number is out of range or the loss unknown.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_vqvae2

    vqvae = keras_vqvae2.VQVAE2((32, 32, 3), hidden_units=8, residual_units=4)
    discriminator = keras_vqvae2.PatchDiscriminator((32, 32, 3), filters=8, num_layers=2)
    model = keras_vqvae2.AdversarialVQVAE2(vqvae, discriminator, start=1, ramp=2)
    model.compile("adam", discriminator_optimizer=keras.optimizers.Adam(1e-4, beta_1=0.5))
    model.fit(np.random.default_rng(0).uniform(size=(4, 32, 32, 3)), batch_size=2, verbose=0)
    model.save_to_preset("sharper")
    ```

    Reference:
        - Esser, Rombach, Ommer 2021, "Taming Transformers for High-Resolution Image Synthesis",
          arXiv 2012.09841, section 3.1.
        - Tseng et al. 2021, arXiv 2104.03310, for LeCAM.
    """

    def __init__(
        self,
        vqvae: VQVAE2,
        discriminator: keras.Model,
        freeze_codes: bool = True,
        weight: float = 0.8,
        adaptive: bool = True,
        loss: str = "hinge",
        start: int = 500,
        ramp: int = 500,
        lecam_weight: float = 0.001,
        **kwargs: Any,
    ) -> None:
        images = keras.Input(vqvae.input.shape[1:], name="images")
        super().__init__(images, vqvae(images), dtype=vqvae.dtype_policy, **kwargs)
        if loss not in ADVERSARIAL_LOSSES:
            raise ValueError(
                f"Expected one of {sorted(ADVERSARIAL_LOSSES)}. Received: loss={loss!r}"
            )
        for name, value in (("weight", weight), ("lecam_weight", lecam_weight)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"Expected a number of at least 0. Received: {name}={value}")
        check_integer("start", start, 0)
        check_integer("ramp", ramp, 1)
        self.vqvae = vqvae
        self.discriminator = discriminator
        self.freeze_codes = freeze_codes
        self.weight = weight
        self.adaptive = adaptive
        self.adversarial_loss = loss
        self.start = start
        self.ramp = ramp
        self.lecam_weight = lecam_weight
        self.lecam = LeCAM(name="lecam")
        self._make_trackers()

    def _make_trackers(self):
        super()._make_trackers()
        self.adversarial_trackers = {name: MeanOfSome(name=name) for name in _METRICS}

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "adam",
        *args: Any,
        discriminator_optimizer: str | keras.optimizers.Optimizer = "adam",
        **kwargs: Any,
    ) -> None:
        """Configures training.

        Args:
            optimizer: `keras.optimizers.Optimizer` of the `VQVAE2`, or its name.
            *args: None: the model has its own loss and metrics.
            discriminator_optimizer: As `optimizer`, of the discriminator; another one.
            **kwargs: Further arguments of `keras.Model.compile`, such as `jit_compile`.

        Raises:
            ValueError: For a loss or metrics, or one optimizer for both.
        """
        if optimizer is discriminator_optimizer and not isinstance(optimizer, str):
            raise ValueError("Expected two optimizers. Received: one for both models")
        pair = []
        for given, model in (
            (optimizer, self.vqvae),
            (discriminator_optimizer, self.discriminator),
        ):
            given = keras.optimizers.get(given)
            scaled = isinstance(given, keras.optimizers.LossScaleOptimizer)
            if model.dtype_policy.compute_dtype == "float16" and not scaled:
                given = keras.optimizers.LossScaleOptimizer(given)
            pair.append(given)
        group = OptimizerGroup(
            {
                "vqvae": (pair[0], self.variables_to_train()),
                "discriminator": (pair[1], self.discriminator.trainable_variables),
            }
        )
        super().compile(group, *args, auto_scale_loss=False, **kwargs)

    def get_compile_config(self) -> Config:
        optimizer, of_discriminator = self.optimizer.members.values()
        serialize = keras.saving.serialize_keras_object
        given = self._compile_config.config
        return {
            **{name: given[name] for name in ("run_eagerly", "steps_per_execution", "jit_compile")},
            "optimizer": serialize(optimizer),
            "discriminator_optimizer": serialize(of_discriminator),
        }

    def variables_to_train(self) -> list[keras.Variable]:
        """Those of the `VQVAE2` that are trained: all, or what codes do not depend on."""
        fixed = {id(v) for v in self.vqvae.encoder.variables} if self.freeze_codes else set()
        return [v for v in self.vqvae.trainable_variables if id(v) not in fixed]

    # === Steps ===

    def call(
        self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None
    ) -> Tensor:
        return self.vqvae(inputs, training=training and not self.freeze_codes)

    def step_outputs(self, x: Tensor, training: bool) -> TensorTree:
        return self.vqvae.step_outputs(x, training=training and not self.freeze_codes)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.vqvae.compute_loss(*args, **kwargs)

    def train_batch(self, x: Tensor, y: Tensor | None, sample_weight: Tensor | None) -> None:
        optimizer, of_discriminator = self.optimizer.members.values()
        weight = self.weight * ops.clip(
            (ops.cast(optimizer.iterations, "float32") - self.start) / self.ramp, 0.0, 1.0
        )

        def reconstruct():
            return self._reconstruct(x, sample_weight, weight)

        update = backend.guarded_update(
            reconstruct,
            self.variables_to_train(),
            optimizer,
            () if self.freeze_codes else self.vqvae.non_trainable_variables,
        )

        def tell_apart():
            real = self.discriminator(update.outputs["images"], training=True)
            fake = ops.stop_gradient(update.outputs["reconstruction"])
            fake = self.discriminator(fake, training=True)
            loss = ADVERSARIAL_LOSSES[self.adversarial_loss][0](real, fake)
            regularizer = self.lecam(real, fake, training=True)
            means = {"logits_real": ops.mean(real), "logits_fake": ops.mean(fake)}
            return loss + self.lecam_weight * regularizer, means

        judged = backend.guarded_update(
            tell_apart,
            self.discriminator.trainable_variables,
            of_discriminator,
            [*self.discriminator.non_trainable_variables, *self.lecam.variables],
            finite=update.finite,
        )
        self.update_train_metrics(x, update)
        values = {
            **update.outputs["adversarial"],
            **judged.outputs,
            "discriminator_loss": judged.loss,
        }
        counts = self.loss_weight(x, ops.cast(judged.finite, "float32"))
        for name, tracker in self.adversarial_trackers.items():
            tracker.update_state(zero_unless(counts, values[name]), sample_weight=counts)

    def _reconstruct(self, x, sample_weight, weight):
        """The loss, and gradients as if it had been computed in one piece.

        What judges reconstructions is differentiated at the reconstructions, once each: `d` needs
        the gradients apart, and the decoder is then passed but once.
        """
        outputs = self._forward(x)
        images, reconstruction = outputs["images"], outputs["reconstruction"]

        def error(reconstruction):
            terms = self.vqvae.reconstruction_terms(images, reconstruction)
            return self.vqvae.reconstruction_error(terms, sample_weight), terms

        def judge(reconstruction):
            logits = self.discriminator(reconstruction, training=True)
            return ADVERSARIAL_LOSSES[self.adversarial_loss][1](logits), ()

        fixed = ops.stop_gradient(reconstruction)
        loss, terms, slope = gradient_at(fixed, error)
        generator_loss, _, adversarial_slope = gradient_at(
            fixed, judge, self.discriminator.variables
        )
        if self.adaptive:
            features = ops.stop_gradient(outputs["features"])
            weight = weight * adaptive_weight(
                self._kernel_gradient(features, slope),
                self._kernel_gradient(features, adversarial_slope),
            )
        slope = ops.stop_gradient(slope + weight * adversarial_slope)
        moved = ops.sum(slope * reconstruction)
        loss = ops.stop_gradient(loss + weight * generator_loss - moved) + moved
        if not self.freeze_codes:
            loss = loss + sum(outputs["quantizer_losses"].values())
        adversarial = {"generator_loss": generator_loss, "adversarial_weight": weight}
        return loss, {**outputs, "reconstruction_losses": terms, "adversarial": adversarial}

    def _forward(self, x):
        """As `VQVAE2.step_outputs`, without losses, and with what the last kernel reads."""
        images = to_unit_floats(ops.convert_to_tensor(x))
        outputs = self._to_known(images, training=not self.freeze_codes)
        decoder = self.vqvae.get_layer("pixel_decoder")
        features = decoder.features(outputs.pop("known"))
        reconstruction = to_pixels(decoder.last(features))
        return {
            **outputs,
            "images": images,
            "features": features,
            "reconstruction": reconstruction,
        }

    @functools.cached_property
    def _to_known(self):
        maps = {name: dict(tensors) for name, tensors in self.vqvae._graph_tensors.items()}
        return keras.Model(self.vqvae.input, {**maps, "known": self.vqvae._known})

    def _kernel_gradient(self, features, slope):
        """Mean over replicas of the last kernel's gradient, where `slope` is that at the pixels."""
        decoder = self.vqvae.get_layer("pixel_decoder")

        def pixels(kernel):
            return ops.sum(to_pixels(decoder.last_product(features, kernel)) * slope), ()

        # The same whatever the kernel is: pixels are linear in it.
        kernel = ops.zeros(decoder.last.kernel.shape, features.dtype)
        _, _, gradient = gradient_at(kernel, pixels)
        return backend.replica_sum(gradient) / backend.replica_count()

    # === Metrics, data, config ===

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        # Keras leaves out those of a model within a model.
        return [*super().metrics, *self.vqvae.reconstruction_metrics()]

    def update_step_metrics(
        self, x: Tensor, outputs: TensorTree, loss: Tensor, weight: Tensor
    ) -> None:
        super().update_step_metrics(x, outputs, loss, weight)
        self.vqvae.update_reconstruction_metrics(outputs, weight)

    def train_only_metrics(self) -> list[keras.metrics.Metric]:
        return [*super().train_only_metrics(), *self.adversarial_trackers.values()]

    def _check_data(self, x, with_loss):
        return self.vqvae._check_data(x, with_loss)

    def save_to_preset(self, directory: FilePath, **options: Any) -> None:
        """Saves the `VQVAE2`; see `VQVAE2.save_to_preset`."""
        self.vqvae.save_to_preset(directory, **options)

    def get_config(self) -> Config:
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "vqvae": serialize(self.vqvae),
            "discriminator": serialize(self.discriminator),
            "freeze_codes": self.freeze_codes,
            "weight": self.weight,
            "adaptive": self.adaptive,
            "loss": self.adversarial_loss,
            "start": self.start,
            "ramp": self.ramp,
            "lecam_weight": self.lecam_weight,
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        read = keras.saving.deserialize_keras_object
        models = {name: read(config[name]) for name in ("vqvae", "discriminator")}
        return cls(**{**config, **models})


def gradient_at(x, function, variables=()):
    """`(value, aux, gradient)` at `x` of a function to `(scalar, aux)`, in float16's range."""
    # Means over all pixels have slopes that half precision cannot hold.
    size = ops.cast(math.prod(x.shape[1:]), "float32")

    def scaled(x):
        value, aux = function(x)
        return size * value, (value, aux)

    (value, aux), gradient = backend.gradient_with_aux(scaled, x, variables)
    return value, aux, ops.cast(gradient, "float32") / size
