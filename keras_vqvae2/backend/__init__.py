"""The one place that imports tensorflow, jax or torch.

Everything else in the package is `keras.ops`. Each backend module offers the same names:

- `argmax`: int32 index of the largest along the last axis, the first of equals, in one operation.
- `attention`: Keras' fused attention of scaled queries `(batch, length, heads, d)`.
- `guarded_update`: a forward pass, its gradients, and the optimizer's update, in which a batch that
  is not finite changes nothing; the body of every training step.
- `gradient_with_aux(function, x, variables)`: `((value, aux), gradient)` at a tensor of a function
  to `(scalar, (value, aux))`; what it does to `variables` is forgotten. For use in a forward pass.
- `train_step`, `test_step`: `train_batch` and `test_batch` of a model, in the backend's signature.
- `build_optimizer`: for where Keras would reduce a batch over processes to build it.
- `metrics_over_processes`: a model's metrics over all processes of the job.
- `COMPILES_STEPS`: whether `jit_compile=True` can have a training step. Inductor needs minutes for
  that of a small model, and stops at what it cannot trace.
- `EXPORT_FORMATS`: dict from a format that `keras.Model.export` writes to the packages it takes.
- `export_options`: its further arguments for a format.
- `SPLITS_WEIGHTS`: whether `keras.distribution` can split a model's weights over devices.
- `replica_count`, `replica_index`, `replica_sum`: where this program stands among its replicas.
- `process_count`, `process_index`: where this process stands among those of its job.
- `start_replicas`: joins the job's processes. Returns the number of devices and a scope for models.
- `distribute_dataset`: a process' part of the batches, as `fit` wants it.
- `alone`: a scope in which what is built belongs to this process.
- `any_process`: whether a flag is set in one process at least; all must ask.
- `batch_multiple`: what the size of a batch must be a multiple of, so that devices can share it.
- `compile_function`: of tensors and of variables that are listed; a program if the backend has any.
- `map_range`: a function of 0, 1, ... one after the other, its results stacked.
- `matmul_float32`: a product of matrices, plus a row that is given, that stays float32 on hardware
  that likes to round its inputs.
- `scan`: a loop with a carry over the leading axis of tensors, its outputs stacked.
- `segment_sum`: sums of rows that share an index, without a copy of the rows.
- `split_batch`: tensors whose leading axis is the batch, each device with its part.
- `sum_squared_error`: of two matrices, without a third in memory. Gradients do not pass.
- `training_state`: a scope for `fit`, `evaluate` and `predict`, which an exception leaves with the
  model as it was.
- `variables_lock`: held while Keras takes variables out of a model, so that a second thread waits.
- `sync_training_state`: makes a model's variables current while `fit` runs.

And one of all backends, in `backend/plain_operations.py`:

- `plain_operations`: a scope for what is traced to run elsewhere, without loops and bit tricks.
"""

import importlib

import keras

from keras_vqvae2.backend.plain_operations import plain_inside
from keras_vqvae2.backend.plain_operations import plain_operations as plain_operations

_NAMES = ("tensorflow", "jax", "torch")
_name = keras.backend.backend()
if _name not in _NAMES:
    raise ImportError(
        f"keras_vqvae2 runs on the Keras backends {', '.join(_NAMES)}. "
        f"Received: keras.backend.backend()={_name!r}"
    )
_backend = importlib.import_module(f"keras_vqvae2.backend.{_name}_backend")

COMPILES_STEPS = _backend.COMPILES_STEPS
EXPORT_FORMATS = _backend.EXPORT_FORMATS
SPLITS_WEIGHTS = _backend.SPLITS_WEIGHTS
alone = _backend.alone
any_process = _backend.any_process
argmax = _backend.argmax
attention = _backend.attention
batch_multiple = _backend.batch_multiple
build_optimizer = _backend.build_optimizer
compile_function = _backend.compile_function
distribute_dataset = _backend.distribute_dataset
export_options = _backend.export_options
gradient_with_aux = _backend.gradient_with_aux
guarded_update = _backend.guarded_update
map_range = plain_inside(
    lambda function, count: keras.ops.stack([function(i) for i in range(count)]),
    _backend.map_range,
)
matmul_float32 = plain_inside(
    lambda a, b, offsets=None: (
        keras.ops.matmul(a, b) if offsets is None else keras.ops.matmul(a, b) + offsets
    ),
    _backend.matmul_float32,
)
metrics_over_processes = _backend.metrics_over_processes
process_count = _backend.process_count
process_index = _backend.process_index
replica_count = _backend.replica_count
replica_index = _backend.replica_index
replica_sum = _backend.replica_sum
scan = _backend.scan
segment_sum = _backend.segment_sum
split_batch = _backend.split_batch
start_replicas = _backend.start_replicas
sum_squared_error = _backend.sum_squared_error
sync_training_state = _backend.sync_training_state
test_step = _backend.test_step
train_step = _backend.train_step
training_state = _backend.training_state
variables_lock = _backend.variables_lock
