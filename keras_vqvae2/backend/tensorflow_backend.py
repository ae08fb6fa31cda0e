"""TensorFlow: `tf.GradientTape` steps, `tf.distribute` replicas."""

import contextlib

import keras
import tensorflow as tf

from keras_vqvae2.backend.even_batches import even_batches
from keras_vqvae2.backend.guarded import Update, gradient_norm, keep_scale, poison, scales_loss

COMPILES_STEPS = True
SPLITS_WEIGHTS = False
# What `keras.Model.export` writes here, and the packages that it takes.
EXPORT_FORMATS = {"tf_saved_model": (), "onnx": ("tf2onnx",), "litert": ()}


def export_options(format):
    if format != "litert":
        return {}
    # Keras would let operations in that only a runtime with TensorFlow inside has.
    return {"target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}}


def replica_count():
    return tf.distribute.get_strategy().num_replicas_in_sync


def replica_index():
    context = tf.distribute.get_replica_context()
    return 0 if context is None else context.replica_id_in_sync_group


def replica_sum(x):
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return x
    return context.all_reduce(tf.distribute.ReduceOp.SUM, x)


def _tasks():
    """This process' number among those of `TF_CONFIG`, the chief first, and how many they are."""
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    cluster = resolver.cluster_spec().as_dict()
    tasks = [(kind, i) for kind in ("chief", "worker") for i in range(len(cluster.get(kind, ())))]
    return tasks.index((resolver.task_type, resolver.task_id)) if tasks else 0, len(tasks) or 1


def process_count():
    return _tasks()[1]


def process_index():
    return _tasks()[0]


def start_replicas(devices, join):
    if join and process_count() == 1:
        raise ValueError("Expected the processes of the job in the environment variable TF_CONFIG.")
    if process_count() > 1:
        if devices is not None:
            raise ValueError(
                "Expected devices=None: with TF_CONFIG a process uses all that it sees "
                f"(CUDA_VISIBLE_DEVICES). Received: devices={devices}"
            )
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        return strategy.num_replicas_in_sync, strategy.scope
    names = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    devices = len(names) if devices is None else devices
    if devices > len(names):
        raise ValueError(f"Expected at most {len(names)} devices. Received: devices={devices}")
    if devices == 1:
        return 1, contextlib.nullcontext
    strategy = tf.distribute.MirroredStrategy([device.name for device in names[:devices]])
    return devices, strategy.scope


def distribute_dataset(dataset, devices):
    if process_count() == 1:
        return even_batches(dataset, devices)  # whose batches Keras splits over the devices
    here = devices // process_count()
    first = next(iter(dataset.take(1)), None)
    if first is None:
        raise ValueError("Expected at least one batch. Received: an empty data set")
    # A device takes an element, so elements are made as small as a device's part of a batch.
    part = dataset.rebatch(keras.tree.flatten(first)[0].shape[0] // here)
    strategy = tf.distribute.get_strategy()
    return strategy.distribute_datasets_from_function(lambda _: part)


def alone():
    return contextlib.nullcontext()  # outside the strategy's scope already


def any_process(flag, model=None):
    if process_count() == 1:
        return flag
    # Callbacks run outside of the strategy's scope; their model knows it.
    strategy = tf.distribute.get_strategy() if model is None else model.distribute_strategy
    flags = strategy.run(lambda: tf.constant(float(flag)))
    return bool(strategy.reduce(tf.distribute.ReduceOp.SUM, flags, axis=None) > 0)


def batch_multiple():
    return 1


def split_batch(tensors):
    return tensors


def map_range(function, count):
    return keras.ops.map(function, keras.ops.arange(count, dtype="int32"))


def scan(function, carry, inputs, length):
    # Arrays, whose gradients are put side by side; those of slices would be padded and added.
    read = [
        tf.TensorArray(x.dtype, length, element_shape=x.shape[1:]).unstack(x)
        for x in tf.nest.flatten(inputs)
    ]

    def at(i):
        return tf.nest.pack_sequence_as(inputs, [array.read(i) for array in read])

    # Traced once beforehand: a loop must know what its turns give.
    traced = tf.function(lambda carry, first: function(carry, first)[1])
    first = tf.nest.map_structure(lambda x: x[0], inputs)
    specs = traced.get_concrete_function(carry, first).structured_outputs
    arrays = [
        tf.TensorArray(x.dtype, length, element_shape=x.shape) for x in tf.nest.flatten(specs)
    ]

    def turn(i, carry, arrays):
        carry, outputs = function(carry, at(i))
        return i + 1, carry, [a.write(i, x) for a, x in zip(arrays, tf.nest.flatten(outputs))]

    # XLA's gradient must know how many turns there can be.
    _, carry, arrays = tf.while_loop(
        lambda i, *_: i < length, turn, (0, carry, arrays), maximum_iterations=length
    )
    return carry, tf.nest.pack_sequence_as(specs, [array.stack() for array in arrays])


def variables_lock():
    return contextlib.nullcontext()  # Keras leaves variables where they are


def compile_function(function, variables):
    # Of a loop of small steps the executor's bookkeeping takes a third of the time; XLA has none.
    return tf.function(function, jit_compile=True)


def argmax(x):
    # Keras' has bits turned so that -0.0 comes behind 0.0, which LiteRT and ONNX do not know.
    return tf.argmax(x, axis=-1, output_type="int32")


def attention(queries, keys, values, is_causal):
    return keras.ops.dot_product_attention(queries, keys, values, scale=1.0, is_causal=is_causal)


def matmul_float32(a, b, offsets=None):
    product = _matmul_float32(a, b)
    return product if offsets is None else product + offsets


def _matmul_float32(a, b):
    gpus = tf.config.list_logical_devices("GPU")
    if not gpus or not tf.config.experimental.tensor_float_32_execution_enabled():
        return tf.matmul(a, b)
    # TensorFloat-32 is on by default, and a switch of the whole process: it keeps ten bits. Each
    # factor as a sum of two numbers of that kind makes three products that lose none that matter.
    (a, a_rest), (b, b_rest) = _ten_bits(a), _ten_bits(b)
    return tf.matmul(a, b) + (tf.matmul(a, b_rest) + tf.matmul(a_rest, b))


def _ten_bits(x):
    """`x` as what TensorFloat-32 holds of it, and the rest."""
    held = tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(x, tf.int32), ~0x1FFF), tf.float32)
    return held, x - held


def segment_sum(rows, indices, num_segments):
    return tf.math.unsorted_segment_sum(rows, indices, num_segments)


def sum_squared_error(a, b, chunks=8):
    total, rows = tf.zeros(()), tf.shape(a)[0]
    for i in range(chunks):
        # Left to itself, the executor starts all chunks at once, and all are in memory.
        with tf.control_dependencies([total]):
            start, stop = rows * i // chunks, rows * (i + 1) // chunks
            total += tf.reduce_sum(tf.math.squared_difference(a[start:stop], b[start:stop]))
    return total


def sync_training_state(model):
    """Nothing to do: TensorFlow updates variables in place."""


def training_state(model, training):
    """Nothing to do: variables hold their values while Keras' loops run."""
    return contextlib.nullcontext()


def metrics_over_processes(model, result):
    return result()


def _reducible(logs):
    """Logs as Keras wants them: over several processes it takes means along a first axis."""
    several = isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy)
    return {name: value[None] for name, value in logs.items()} if several else logs


def build_optimizer(model):
    # Of several processes Keras would reduce the first batch to build by it, which fails for dicts.
    if model.optimizer is not None and not model.optimizer.built:
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)


def train_step(model, data):
    model.train_batch(*keras.utils.unpack_x_y_sample_weight(data))
    return _reducible(model.get_metrics_result())


def test_step(model, data):
    model.test_batch(*keras.utils.unpack_x_y_sample_weight(data))
    return _reducible(model.test_logs())


def guarded_update(forward, variables, optimizer, state=(), finite=True):
    if not optimizer.built:
        with tf.init_scope():
            optimizer.build(variables)
    before = [tf.identity(v.value) for v in state]
    with tf.GradientTape() as tape:
        loss, outputs = forward()
        scaled_loss = optimizer.scale_loss(loss)
    gradients = tape.gradient(scaled_loss, variables)
    # The gradient of a table that was gathered from comes sparse.
    gradients = [g if g is None else tf.convert_to_tensor(g) for g in gradients]

    # Global means, so that every replica reaches the same verdict. The optimizer sums over
    # replicas, hence the division.
    replicas = replica_count()
    gradients = [g if g is None else replica_sum(g) / replicas for g in gradients]
    finite_loss = replica_sum(tf.cast(tf.math.is_finite(loss), tf.float32)) >= replicas
    norm = gradient_norm(optimizer, gradients)
    finite = tf.reduce_all([finite, finite_loss, tf.math.is_finite(norm)])
    gradients = [g if g is None else g / replicas for g in gradients]
    if scales_loss(optimizer):
        optimizer.apply(poison(gradients, finite), variables)
        _across_replicas(lambda: keep_scale(optimizer))
    else:
        _apply_if(finite, optimizer, gradients, variables)
    for variable, old in zip(state, before):
        variable.assign(tf.where(finite, variable.value, old))
    return Update(loss, outputs, norm, finite)


def gradient_with_aux(function, x, variables=()):
    x = tf.stop_gradient(x)
    forgotten = keras.StatelessScope(state_mapping=[(v, v.value) for v in variables])
    with forgotten, tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        total, aux = function(x)
    return aux, tape.gradient(total, x)


def _across_replicas(function):
    """Once for all replicas, as a variable asks that is not aggregated over them."""
    if replica_count() == 1:
        function()
    else:
        tf.distribute.get_replica_context().merge_call(lambda _: function())


def _apply_if(finite, optimizer, gradients, variables):
    def apply(gradients, variables):
        optimizer.apply(gradients, variables)

    if replica_count() == 1:
        tf.cond(finite, lambda: apply(gradients, variables), lambda: None)
        return

    # A branch that merges replicas is only allowed across replicas.
    def across_replicas(strategy, finite, gradients):
        verdict = strategy.experimental_local_results(finite)[0]

        def update():
            strategy.extended.call_for_each_replica(apply, args=(gradients, variables))

        tf.cond(verdict, update, lambda: None)

    tf.distribute.get_replica_context().merge_call(across_replicas, args=(finite, gradients))
