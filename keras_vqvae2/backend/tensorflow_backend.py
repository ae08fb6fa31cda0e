"""TensorFlow: `tf.GradientTape` steps, `tf.distribute` replicas."""

import keras
import tensorflow as tf

from keras_vqvae2.backend.step_contract import StepContract, poison


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


def map_range(function, count):
    return keras.ops.map(function, keras.ops.arange(count, dtype="int32"))


def scan(function, carry, inputs, length):
    def at(i):
        return tf.nest.map_structure(lambda x: x[i], inputs)

    # Traced once beforehand: a loop must know what its turns give.
    traced = tf.function(lambda carry, first: function(carry, first)[1])
    specs = traced.get_concrete_function(carry, at(0)).structured_outputs
    arrays = [
        tf.TensorArray(x.dtype, length, element_shape=x.shape) for x in tf.nest.flatten(specs)
    ]

    def turn(i, carry, arrays):
        carry, outputs = function(carry, at(i))
        return i + 1, carry, [a.write(i, x) for a, x in zip(arrays, tf.nest.flatten(outputs))]

    _, carry, arrays = tf.while_loop(lambda i, *_: i < length, turn, (0, carry, arrays))
    return carry, tf.nest.pack_sequence_as(specs, [array.stack() for array in arrays])


def compile_function(function, variables):
    # Of a loop of small steps the executor's bookkeeping takes a third of the time; XLA has none.
    return tf.function(function, jit_compile=True)


def matmul_float32(a, b):
    # TensorFloat-32 is a global switch of TensorFlow (tf.config.experimental).
    return tf.matmul(a, b)


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


class GuardedTrainer(StepContract):
    """Training steps in which a batch that is not finite changes nothing."""

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if not self.optimizer.built:
            with tf.init_scope():
                self.optimizer.build(self.trainable_variables)
        state = self.non_trainable_variables
        before = [tf.identity(v.value) for v in state]
        with tf.GradientTape() as tape:
            outputs = self.step_outputs(x, training=True)
            loss = self.compute_loss(x, y, outputs, sample_weight, training=True)
            scaled_loss = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled_loss, self.trainable_variables)
        # The gradient of a table that was gathered from comes sparse.
        gradients = [g if g is None else tf.convert_to_tensor(g) for g in gradients]

        # Global means, so that every replica reaches the same verdict. The optimizer sums over
        # replicas, hence the division.
        replicas = replica_count()
        gradients = [g if g is None else replica_sum(g) / replicas for g in gradients]
        finite_loss = replica_sum(tf.cast(tf.math.is_finite(loss), tf.float32)) >= replicas
        norm = self.gradient_norm(gradients)
        finite = tf.logical_and(finite_loss, tf.math.is_finite(norm))
        self._apply_guarded([g if g is None else g / replicas for g in gradients], finite)
        for variable, old in zip(state, before):
            variable.assign(tf.where(finite, variable.value, old))
        self.update_train_metrics(x, outputs, loss, norm, finite)
        return self.get_metrics_result()

    def _apply_guarded(self, gradients, finite):
        variables = self.trainable_variables
        if self.scales_loss():
            self.optimizer.apply(poison(gradients, finite), variables)
            return
        if replica_count() == 1:
            tf.cond(finite, lambda: self._apply(gradients, variables), lambda: None)
            return

        # A branch that merges replicas is only allowed across replicas.
        def across_replicas(strategy, finite, gradients):
            verdict = strategy.experimental_local_results(finite)[0]

            def update():
                strategy.extended.call_for_each_replica(self._apply, args=(gradients, variables))

            tf.cond(verdict, update, lambda: None)

        tf.distribute.get_replica_context().merge_call(across_replicas, args=(finite, gradients))

    def _apply(self, gradients, variables):
        self.optimizer.apply(gradients, variables)

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        outputs = self.step_outputs(x, training=False)
        loss = self.compute_loss(x, y, outputs, sample_weight, training=False)
        self.update_step_metrics(x, outputs, loss, tf.ones(()))
        return self.test_logs()
