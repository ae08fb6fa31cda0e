"""The one place that imports tensorflow, jax or torch.

Everything else in the package is `keras.ops`. Each backend module offers the same names:

- `GuardedTrainer`: the `train_step` and `test_step` of a model, in the backend's own signature.
- `replica_count`, `replica_index`, `replica_sum`: where this program stands among its replicas.
- `compile_function`: of tensors and of variables that are listed; a program if the backend has any.
- `map_range`: a function of 0, 1, ... one after the other, its results stacked.
- `matmul_float32`: a product that stays float32 on hardware that likes to round its inputs.
- `scan`: a loop with a carry over the leading axis of tensors, its outputs stacked.
- `segment_sum`: sums of rows that share an index, without a copy of the rows.
- `sum_squared_error`: of two matrices, without a third in memory. Gradients do not pass.
- `sync_training_state`: makes a model's variables current while `fit` runs.
"""

import importlib

import keras

_NAMES = ("tensorflow", "jax", "torch")
_name = keras.backend.backend()
if _name not in _NAMES:
    raise ImportError(
        f"keras_vqvae2 runs on the Keras backends {', '.join(_NAMES)}. "
        f"Received: keras.backend.backend()={_name!r}"
    )
_backend = importlib.import_module(f"keras_vqvae2.backend.{_name}_backend")

GuardedTrainer = _backend.GuardedTrainer
compile_function = _backend.compile_function
map_range = _backend.map_range
matmul_float32 = _backend.matmul_float32
replica_count = _backend.replica_count
replica_index = _backend.replica_index
replica_sum = _backend.replica_sum
scan = _backend.scan
segment_sum = _backend.segment_sum
sum_squared_error = _backend.sum_squared_error
sync_training_state = _backend.sync_training_state
