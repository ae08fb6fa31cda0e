import math
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.backend.guarded import Update
from keras_vqvae2.hints import Config, Dataset, Tensor, TensorTree
from keras_vqvae2.validation import bind_arguments, check_sample_weight


class GuardedModel(keras.Model):
    """A model whose training steps change nothing where a batch is not finite.

    A training step is: outputs, loss, gradients, one test for finite numbers, the update, the
    metrics. A subclass says what it computes in `step_outputs` and `compute_loss`, what it reports
    in `update_step_metrics`, and what data it takes in `_check_data`. A subclass with several
    optimizers overrides `train_batch`, with a `backend.guarded_update` for each.

    Beside the metrics of the subclass there are `loss`, `gradient_norm` and `skipped_steps`. Of an
    epoch without a step that counts, `loss` is NaN.

    Attributes:
        most_skipped_steps: After how many skipped steps in a row `fit` ends with an error, 100. The
            loss scale of float16 starts at 2^15 and halves to 1 in 15 of them.
        validation_freq: That of the last `fit`.
    """

    most_skipped_steps = 100
    validation_freq: int | list[int] = 1
    _evaluating = False
    _replicas = 1

    def _make_trackers(self):
        self.gradient_norm_tracker = MeanOfSome(name="gradient_norm")
        self.skipped_steps_tracker = keras.metrics.Sum(name="skipped_steps")

    # === What a subclass says ===

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

    def _check_data(self, x, with_loss):
        """Raises `ValueError` for data that the model cannot take; returns what Keras is to see.

        Args:
            x: What `fit`, `evaluate` or `predict` was given.
            with_loss: False for `predict`.
        """
        return x

    # === Steps ===

    def train_batch(self, x: TensorTree, y: Tensor | None, sample_weight: Tensor | None) -> None:
        """One training step: updates weights, state and metrics from a batch."""

        def forward():
            outputs = self.step_outputs(x, training=True)
            return self.compute_loss(x, y, outputs, sample_weight, training=True), outputs

        update = backend.guarded_update(
            forward, self.trainable_variables, self.optimizer, self.non_trainable_variables
        )
        self.update_train_metrics(x, update)

    def test_batch(self, x: TensorTree, y: Tensor | None, sample_weight: Tensor | None) -> None:
        """Updates the metrics from a batch."""
        outputs = self.step_outputs(x, training=False)
        loss = self.compute_loss(x, y, outputs, sample_weight, training=False)
        self.update_step_metrics(x, outputs, loss, ops.ones(()))

    def update_train_metrics(self, x: TensorTree, update: Update) -> None:
        """Updates all metrics after `backend.guarded_update`."""
        weight = ops.cast(update.finite, "float32")
        self.update_step_metrics(x, update.outputs, update.loss, weight)
        self.gradient_norm_tracker.update_state(
            zero_unless(weight, update.gradient_norm), sample_weight=weight
        )
        # All replicas skip a step together, and what they count is added up.
        self._replicas = backend.replica_count()
        self.skipped_steps_tracker.update_state((1.0 - weight) / self._replicas)

    @staticmethod
    def loss_weight(x: TensorTree, weight: Tensor) -> Tensor:
        """Weight of a batch's mean in a mean over examples: the last batch may be a small one."""
        return weight * ops.cast(ops.shape(keras.tree.flatten(x)[0])[0], "float32")

    def train_step(self, *args: Any) -> Any:
        return backend.train_step(self, *args)

    def test_step(self, *args: Any) -> Any:
        return backend.test_step(self, *args)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # The models are built by their constructors; only the optimizer may be left.
        backend.build_optimizer(self)

    def _run_through_graph(self, *args, **options):
        if getattr(options.get("operation_fn"), "__module__", "").endswith("models.cloning"):
            # Keras would hand out a bare graph, without the methods of this class.
            name = type(self).__name__
            raise TypeError(
                f"Expected {name}.from_config(model.get_config()), which makes a {name} with "
                "weights of its own. Received: keras.models.clone_model(model)"
            )
        return super()._run_through_graph(*args, **options)

    # === Logs ===

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """What `evaluate` leaves out stands last: `metrics_names` are the names of its list."""
        metrics, last = super().metrics, self.train_only_metrics()
        return [m for m in metrics if m not in last] + [m for m in metrics if m in last]

    def train_only_metrics(self) -> list[keras.metrics.Metric]:
        """The metrics that mean nothing in `evaluate`."""
        return [self.gradient_norm_tracker, self.skipped_steps_tracker]

    def own_metrics_result(self) -> dict[str, Tensor]:
        """The metrics of this process."""
        return super().get_metrics_result()

    def get_metrics_result(self) -> dict[str, Tensor]:
        """The metrics over all processes.

        Keras takes these for the logs of an epoch if the last step's logs have the same names. It
        must: of several replicas the last step's logs are not the metrics of them all.
        """
        logs = backend.metrics_over_processes(self, super().get_metrics_result)
        return self.test_logs(logs) if self._evaluating else logs

    def test_logs(self, logs: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Those of the metrics that mean something in `evaluate`."""
        logs = super().get_metrics_result() if logs is None else logs
        skip = {metric.name for metric in self.train_only_metrics()}
        return {name: value for name, value in logs.items() if name not in skip}

    # === Checked data ===

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Configures training, as `keras.Model.compile` does, but for losses and metrics.

        Args:
            optimizer: `keras.optimizers.Optimizer`, or its name.
            loss: None: the model has its own loss.
            loss_weights: None.
            metrics: None: the model has its own metrics.
            weighted_metrics: None.
            **kwargs: Further arguments of `keras.Model.compile`, such as `jit_compile`. PyTorch has
                no use for `jit_compile=True`: it warns, and trains without.

        Raises:
            ValueError: For a loss or metrics.
        """
        given = {
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
        }
        given = {name: value for name, value in given.items() if value is not None}
        if given:
            raise ValueError(
                f"Expected no loss or metrics: {type(self).__name__} has its own. "
                f"Received: {', '.join(f'{name}={value!r}' for name, value in given.items())}"
            )
        if kwargs.get("jit_compile") is True and not backend.COMPILES_STEPS:
            warnings.warn(
                "jit_compile=True: torch.compile cannot have the training step of "
                f"{type(self).__name__}. It trains without.",
                stacklevel=2,
            )
            kwargs["jit_compile"] = False
        super().compile(optimizer=optimizer, **kwargs)
        # Not an attribute that Keras tracks: it would stand among the metrics a second time.
        object.__setattr__(self, "_loss_tracker", MeanOfSome(name="loss"))

    def compile_from_config(self, config: Config) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(
        self, x: Tensor | Dataset | None = None, *args: Any, **kwargs: Any
    ) -> keras.callbacks.History:
        """Trains as `keras.Model.fit` does, on `x` alone: the model does not look at labels `y`.

        Args:
            x: What the class docstring says of the model's data: arrays, or any data set of
                batches that Keras takes.
            *args: Further arguments of `keras.Model.fit`.
            **kwargs: Further arguments of `keras.Model.fit`.

        Raises:
            ValueError: Before the first step, if shapes, dtypes or ranges of the data or of
                `validation_data` (of a data set, of its first batch) do not fit, or there are
                none; or if `sample_weight` comes without a `y`, where Keras would drop it.
            ImportError: If weights that the loss needs are not installed.
            FloatingPointError: When `most_skipped_steps` steps in a row were skipped, before
                callbacks keep anything of their epoch. Weights are those before.
        """
        given = bind_arguments("fit", x, args, kwargs)
        given["x"] = self._check_data(x, with_loss=True)
        check_sample_weight(given.get("sample_weight"))
        held_out = given.get("validation_data")
        if isinstance(held_out, (tuple, list)):
            checked = self._check_data(held_out[0], with_loss=True)
            check_sample_weight(held_out[2] if len(held_out) > 2 else None)
            given["validation_data"] = (checked, *held_out[1:])
        elif held_out is not None:
            given["validation_data"] = self._check_data(held_out, with_loss=True)
        self.validation_freq = given.get("validation_freq", 1)
        callbacks = given.get("callbacks") or []
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = [*callbacks] if isinstance(callbacks, (list, tuple)) else [callbacks]
            self._tell_what_is_better(callbacks)
            given["callbacks"] = [_EndsWithoutProgress(self), *callbacks]
        with backend.training_state(self, training=True):
            return super().fit(**given)

    def _tell_what_is_better(self, callbacks):
        """Keras' own callbacks look at the metrics of `compile` only, of which there are none."""
        better = {m.name: getattr(m, "_direction", None) for m in self.metrics}
        for callback in callbacks:
            direction = better.get(str(getattr(callback, "monitor", None)).removeprefix("val_"))
            if getattr(callback, "mode", None) == "auto" and direction is not None:
                callback.mode = {"up": "max", "down": "min"}[direction]
            if isinstance(callback, keras.callbacks.ModelCheckpoint) and callback.best is None:
                # It would take a first NaN for the best, and nothing is better than that.
                callback.best = -math.inf if callback.mode == "max" else math.inf

    def evaluate(self, x: Tensor | Dataset | None = None, *args: Any, **kwargs: Any) -> Any:
        """Computes the metrics, as `keras.Model.evaluate` does; arguments and checks of `fit`."""
        given = bind_arguments("evaluate", x, args, kwargs)
        if not given.get("_use_cached_eval_dataset"):  # fit has looked at it
            given["x"] = self._check_data(x, with_loss=True)
            check_sample_weight(given.get("sample_weight"))
        with self._variables_lock:
            self._evaluating = True
            try:
                with backend.training_state(self, training=False):
                    return super().evaluate(**given)
            finally:
                self._evaluating = False

    def predict(self, x: Tensor | Dataset, *args: Any, **kwargs: Any) -> np.ndarray:
        """Outputs for `x`, as `keras.Model.predict` does; data are checked as in `fit`."""
        x = self._check_data(x, with_loss=False)
        with self._variables_lock, backend.training_state(self, training=False):
            return super().predict(x, *args, **kwargs)

    @property
    def _variables_lock(self):
        """While it is held, Keras may have taken the variables out of this model."""
        return self.__dict__.setdefault("_lock_of_variables", backend.variables_lock())


class _EndsWithoutProgress(keras.callbacks.Callback):
    """Ends training by `FloatingPointError` after `most_skipped_steps` skipped steps in a row.

    It looks at the logs that Keras fetches anyway. It stands before all other callbacks, so that
    none of them keeps anything of an epoch that ends this way.
    """

    async_safe = True  # steps are counted in another thread then, and may come out of order

    def __init__(self, model):
        super().__init__()
        self._guarded = model  # `self.model` would make JAX write its state back in each step
        self._in_a_row = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._seen, self._skipped = epoch, -1, 0.0

    def on_train_batch_begin(self, batch, logs=None):
        self._check()

    def on_train_batch_end(self, batch, logs=None):
        steps = batch - self._seen
        if steps < 1:
            return
        total = logs["skipped_steps"] * self._guarded._replicas
        all_skipped = round(total - self._skipped) >= steps
        self._in_a_row = self._in_a_row + steps if all_skipped else 0
        self._seen, self._skipped = batch, total

    def on_epoch_end(self, epoch, logs=None):
        self._check()

    def _check(self):
        if self._in_a_row < self._guarded.most_skipped_steps:
            return
        backend.sync_training_state(self._guarded)
        raise FloatingPointError(
            f"Expected a finite loss and finite gradients. Received: {self._in_a_row} steps in a "
            f"row without, up to step {self._seen + 1} of epoch {self._epoch + 1}. The weights are "
            "those before; look at the data, lower the learning rate or clip gradients "
            "(global_clipnorm)"
        )


class MeanOfSome(keras.metrics.Mean):
    """A mean that is NaN where nothing was counted, in place of Keras' 0; lower is better."""

    _direction = "down"  # for EarlyStopping and the like

    def result(self) -> Tensor:
        return ops.where(self.count > 0, super().result(), float("nan"))


def zero_unless(weight: Tensor, value: Tensor) -> Tensor:
    """`value` where `weight` is not 0, else 0: a plain product would keep a NaN."""
    value = ops.cast(value, "float32")
    return ops.where(weight > 0, value, ops.zeros_like(value))


def track(tracker: keras.metrics.Metric, values: Tensor, weight: Tensor) -> None:
    """Adds values of shape `(batch,)`, or nothing for a weight of 0."""
    weights = ops.broadcast_to(weight, ops.shape(values))
    tracker.update_state(zero_unless(weights, values), sample_weight=weights)


def track_error(tracker: keras.metrics.Metric, a: Tensor, b: Tensor, weight: Tensor) -> None:
    """Adds the mean squared error of each example, of two tensors `(batch, H, W, C)`."""
    error = ops.square(ops.cast(a, "float32") - ops.cast(b, "float32"))
    track(tracker, ops.mean(error, axis=(1, 2, 3)), weight)
