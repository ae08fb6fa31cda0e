"""JAX: pure steps over the state; under `keras.distribution` arrays are global already."""

import contextlib
import contextvars
import os
import threading
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.experimental import multihost_utils

from keras_vqvae2.backend.even_batches import even_batches
from keras_vqvae2.backend.guarded import Update, gradient_norm, keep_scale, poison, scales_loss

COMPILES_STEPS = True
SPLITS_WEIGHTS = True
# What `keras.Model.export` writes here, and the packages that it takes.
EXPORT_FORMATS = {"tf_saved_model": ("tensorflow",), "onnx": ("jax2onnx",)}


def export_options(format):
    return {}


_variables_of_step: contextvars.ContextVar[Sequence[keras.Variable]] = contextvars.ContextVar(
    "variables_of_step", default=()
)


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
    return even_batches(dataset, devices // process_count())


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


def variables_lock():
    return threading.RLock()


def compile_function(function, variables):
    # The values are arguments, so that the program serves whatever they become.
    @jax.jit
    def pure(values, args):
        with keras.StatelessScope(state_mapping=zip(variables, values)):
            return function(*args)

    return lambda *args: pure([v.value for v in variables], args)


def argmax(x):
    return jnp.argmax(x, axis=-1).astype("int32")


def attention(queries, keys, values, is_causal):
    dtype = queries.dtype
    if dtype == "float16" and jax.default_backend() == "cpu":
        # XLA has no product of float16 there whose sums are float32.
        queries, keys, values = (x.astype("float32") for x in (queries, keys, values))
    attended = keras.ops.dot_product_attention(
        queries, keys, values, scale=1.0, is_causal=is_causal
    )
    return attended.astype(dtype)


def matmul_float32(a, b, offsets=None):
    # The default rounds the inputs to bfloat16 on a TPU and to TensorFloat-32 on a GPU.
    product = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
    return product if offsets is None else product + offsets


def segment_sum(rows, indices, num_segments):
    return jax.ops.segment_sum(rows, indices, num_segments)


def sum_squared_error(a, b):
    return jnp.sum(jnp.square(a - b))  # XLA fuses the three


def sync_training_state(model):
    """Writes the state that `fit` holds back into the model's variables."""
    model.jax_state_sync()


@contextlib.contextmanager
def training_state(model, training):
    """Keras' loops take the values out of a model's variables: an exception puts them back."""
    model.jax_state_sync()
    variables = [*model.variables, *model.metrics_variables]
    variables += getattr(getattr(model, "optimizer", None), "variables", [])
    if training:
        # `use_ema` ends a fit with the averages' own arrays as weights. A step takes both over, and
        # it can take over an array but once.
        seen = set()
        for variable in variables:
            if id(variable.value) in seen:
                variable.assign(jnp.copy(variable.value))
            seen.add(id(variable.value))
    values = [variable.value for variable in variables]
    try:
        yield
    except BaseException:
        model.jax_state_sync()  # what the last step returned
        for variable, value in zip(variables, values):
            if variable._value is None and not value.is_deleted():
                variable.assign(value)
        raise


def metrics_over_processes(model, result):
    return result()


def build_optimizer(model):
    """Nothing to do: Keras builds it before the first step."""


def train_step(model, state, data):
    variables = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    return _step(variables, state, lambda: _logs(model.train_batch, data, model.get_metrics_result))


def test_step(model, state, data):
    variables = (model.trainable_variables, model.non_trainable_variables, model.metrics_variables)
    return _step(variables, state, lambda: _logs(model.test_batch, data, model.test_logs))


def _logs(step, data, logs):
    step(*keras.utils.unpack_x_y_sample_weight(data))
    return logs()


def _step(variables, state, function):
    """What a function returns, and what it makes of variables whose values are `state`."""
    mapping = [pair for group in zip(variables, state) for pair in zip(*group)]
    token = _variables_of_step.set([v for v, _ in mapping])
    try:
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
            result = function()
    finally:
        _variables_of_step.reset(token)
    return result, tuple([scope.get_current_value(v) for v in group] for group in variables)


def guarded_update(forward, variables, optimizer, state=(), finite=True):
    # A scope within a scope sees nothing of the outer one: its variables are handed on.
    known = [(v, v.value) for v in _variables_of_step.get()]

    def loss_of(values):
        mapping = [*known, *zip(variables, values)]
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
            loss, outputs = forward()
            scaled_loss = optimizer.scale_loss(loss)
        return scaled_loss, (loss, outputs, [scope.get_current_value(v) for v in state])

    old = [v.value for v in variables]
    old_optimizer = [v.value for v in optimizer.variables]
    gradients, (loss, outputs, new_state) = jax.grad(loss_of, has_aux=True)(old)
    norm = gradient_norm(optimizer, gradients)
    finite = jnp.logical_and(finite, jnp.isfinite(loss) & jnp.isfinite(norm))
    if scales_loss(optimizer):
        gradients = poison(gradients, finite)
    new, new_optimizer = optimizer.stateless_apply(old_optimizer, gradients, old)
    _assign(variables, new, old, finite)
    _assign(state, new_state, [v.value for v in state], finite)
    # An optimizer that scales the loss lowers its scale: what it does then is its own affair.
    _assign(optimizer.variables, new_optimizer, old_optimizer, finite | scales_loss(optimizer))
    if scales_loss(optimizer):
        keep_scale(optimizer)
    return Update(loss, outputs, norm, finite)


def gradient_with_aux(function, x, variables=()):
    known = [(v, v.value) for v in variables]

    def scoped(x):
        with keras.StatelessScope(state_mapping=known):
            return function(x)

    gradient, aux = jax.grad(scoped, has_aux=True)(jax.lax.stop_gradient(x))
    return aux, gradient


def _assign(variables, new, old, finite):
    for variable, a, b in zip(variables, new, old):
        variable.assign(jnp.where(finite, a, b))
