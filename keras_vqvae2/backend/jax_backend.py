"""JAX: pure steps over the state; under `keras.distribution` arrays are global already."""

import contextlib
import os

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.experimental import multihost_utils

from keras_vqvae2.backend.step_contract import StepContract, poison
from keras_vqvae2.hints import Tensor, TensorTree

SPLITS_WEIGHTS = True


def replica_count():
    return 1


def replica_index():
    return 0


def replica_sum(x):
    return x


def process_count():
    return jax.process_count()


def process_index():
    return jax.process_index()


def start_replicas(devices, join):
    announced = {f"KERAS_DISTRIBUTION_{name}" for name in ("JOB_ADDRESSES", "NUM_PROCESSES")}
    if join or (join is None and announced & set(os.environ)):
        keras.distribution.initialize()
    names = keras.distribution.list_devices()  # those of all processes
    if process_count() > 1 and devices is not None:
        raise ValueError(
            "Expected devices=None: of several processes each uses all devices that it sees. "
            f"Received: devices={devices}"
        )
    devices = len(names) if devices is None else devices
    if devices > len(names):
        raise ValueError(f"Expected at most {len(names)} devices. Received: devices={devices}")
    if devices > 1:
        distribution = keras.distribution.DataParallel(
            devices=names[:devices], auto_shard_dataset=False
        )
        keras.distribution.set_distribution(distribution)
    return devices, contextlib.nullcontext


def distribute_dataset(dataset, devices):
    here = devices // process_count()
    if here == 1 or not hasattr(dataset, "element_spec"):
        return dataset
    import tensorflow as tf  # a tf.data.Dataset, so it is installed

    # JAX splits arrays in equal parts only: what is left over in a last batch is cut off.
    def cut(*batch):
        even = keras.tree.map_structure(lambda x: x[: tf.shape(x)[0] // here * here], batch)
        return even if len(even) > 1 else even[0]

    def some(*batch):
        return tf.shape(keras.tree.flatten(batch)[0])[0] > 0

    return dataset.map(cut).filter(some)


@contextlib.contextmanager
def alone():
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def any_process(flag, model=None):
    if process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array(flag)).any())


def batch_multiple():
    distribution = keras.distribution.distribution()
    if distribution is None:
        return 1
    mesh = distribution.device_mesh
    return mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)]


def split_batch(tensors):
    distribution = keras.distribution.distribution()
    if distribution is None:
        return tensors
    return keras.tree.map_structure(
        lambda x: keras.distribution.distribute_tensor(x, distribution.get_data_layout(x.shape)),
        tensors,
    )


def map_range(function, count):
    return keras.ops.map(function, jnp.arange(count))


def scan(function, carry, inputs, length):
    return jax.lax.scan(function, carry, inputs, length)


def compile_function(function, variables):
    # The values are arguments, so that the program serves whatever they become.
    @jax.jit
    def pure(values, args):
        with keras.StatelessScope(state_mapping=zip(variables, values)):
            return function(*args)

    return lambda *args: pure([v.value for v in variables], args)


def matmul_float32(a, b):
    # The default rounds the inputs to bfloat16 on a TPU and to TensorFloat-32 on a GPU.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def segment_sum(rows, indices, num_segments):
    return jax.ops.segment_sum(rows, indices, num_segments)


def sum_squared_error(a, b):
    return jnp.sum(jnp.square(a - b))  # XLA fuses the three


def sync_training_state(model):
    """Writes the state that `fit` holds back into the model's variables."""
    model.jax_state_sync()


def _select(finite, new, old):
    return [jnp.where(finite, n, o) for n, o in zip(new, old)]


class GuardedTrainer(StepContract):
    """Training steps in which a batch that is not finite changes nothing."""

    def _loss_and_updates(self, trainable, non_trainable, optimizer_state, batch, training):
        x, y, sample_weight = batch
        mapping = [
            *zip(self.trainable_variables, trainable),
            *zip(self.non_trainable_variables, non_trainable),
        ]
        if training:
            mapping += zip(self.optimizer.variables, optimizer_state)
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
            outputs = self.step_outputs(x, training=training)
            loss = self.compute_loss(x, y, outputs, sample_weight, training=training)
            scaled_loss = self.optimizer.scale_loss(loss) if training else loss
        non_trainable = [scope.get_current_value(v) for v in self.non_trainable_variables]
        return scaled_loss, (loss, outputs, non_trainable)

    def train_step(
        self, state: TensorTree, data: TensorTree
    ) -> tuple[dict[str, Tensor], TensorTree]:
        trainable, non_trainable, optimizer_state, metrics_state = state
        batch = keras.utils.unpack_x_y_sample_weight(data)
        gradient = jax.grad(self._loss_and_updates, has_aux=True)
        gradients, (loss, outputs, new_non_trainable) = gradient(
            trainable, non_trainable, optimizer_state, batch, True
        )
        mapping = zip(self.optimizer.variables, optimizer_state)
        with keras.StatelessScope(state_mapping=mapping):
            norm = self.gradient_norm(gradients)
        finite = jnp.logical_and(jnp.isfinite(loss), jnp.isfinite(norm))
        if self.scales_loss():
            gradients = poison(gradients, finite)
        new_trainable, new_optimizer_state = self.optimizer.stateless_apply(
            optimizer_state, gradients, trainable
        )
        if not self.scales_loss():
            new_optimizer_state = _select(finite, new_optimizer_state, optimizer_state)
        new_trainable = _select(finite, new_trainable, trainable)
        new_non_trainable = _select(finite, new_non_trainable, non_trainable)

        mapping = zip(self.metrics_variables, metrics_state)
        with keras.StatelessScope(state_mapping=mapping) as scope:
            self.update_train_metrics(batch[0], outputs, loss, norm, finite)
            logs = self.get_metrics_result()
        metrics_state = [scope.get_current_value(v) for v in self.metrics_variables]
        return logs, (new_trainable, new_non_trainable, new_optimizer_state, metrics_state)

    def test_step(
        self, state: TensorTree, data: TensorTree
    ) -> tuple[dict[str, Tensor], TensorTree]:
        trainable, non_trainable, metrics_state = state
        batch = keras.utils.unpack_x_y_sample_weight(data)
        _, (loss, outputs, non_trainable) = self._loss_and_updates(
            trainable, non_trainable, None, batch, False
        )
        mapping = zip(self.metrics_variables, metrics_state)
        with keras.StatelessScope(state_mapping=mapping) as scope:
            self.update_step_metrics(batch[0], outputs, loss, jnp.ones(()))
            logs = self.without_train_only(self.get_metrics_result())
        metrics_state = [scope.get_current_value(v) for v in self.metrics_variables]
        return logs, (trainable, non_trainable, metrics_state)
