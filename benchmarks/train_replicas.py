"""Trains a small model of either stage on several devices or processes of this machine.

    KERAS_BACKEND=jax python benchmarks/train_replicas.py --stage=1 --devices=2 --output=two.npz
    KERAS_BACKEND=torch python benchmarks/train_replicas.py --stage=2 --processes=2 --output=two.npz

The whole batches are the same however many devices there are. Devices are virtual ones of the CPU
(PyTorch has one device a process); processes speak over the loopback address. --output receives the
loss and the seconds of each step, the epoch's metrics, weights and codebooks. The tests and
benchmarks/scaling.py are made of this.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import measure
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_enum("stage", "1", ["1", "2"], "VQVAE2 or a prior.")
flags.DEFINE_integer("devices", 1, "Virtual devices of a process.", lower_bound=1)
flags.DEFINE_integer("processes", 1, "Processes.", lower_bound=1)
flags.DEFINE_integer("steps", 20, "Training steps.", lower_bound=1)
flags.DEFINE_integer("batch_size", 8, "Examples of all devices together.", lower_bound=1)
flags.DEFINE_integer("units", 8, "Width of the model.", lower_bound=4)
flags.DEFINE_integer("size", 32, "Height and width of images, four times that of codes.")
flags.DEFINE_string("precision", "float32", "Dtype policy.")
flags.DEFINE_float("dropout", 0.0, "Quantizer dropout of stage 1, dropout of stage 2.")
flags.DEFINE_enum(
    "prior", "pixelsnail", ["pixelsnail", "transformer", "masked_transformer"], "Of stage 2."
)
flags.DEFINE_enum(
    "quantizer",
    "ema",
    ["ema", "entropies", "residual", "kmeans", "gradients", "shared"],
    "Of stage 1: what replicas must sum.",
)
flags.DEFINE_integer("rest", 0, "Examples of a last batch that is not full, of one process.")
flags.DEFINE_integer("nan_at", -1, "Example of stage 1 that is not finite.")
flags.DEFINE_integer("die_at", -1, "Step at which the last process kills itself.")
flags.DEFINE_string("output", None, "File for what the run ends with.", required=True)


def virtual_devices(backend, count):
    """Makes the CPU look like several devices; before anything uses it."""
    if backend == "jax":
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={count}"
    if backend == "tensorflow":
        import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        parts = [tf.config.LogicalDeviceConfiguration()] * count
        tf.config.set_logical_device_configuration(cpu, parts)


def build(stage):
    """The compiled model and its whole training set, as a dict or an array."""
    import keras
    import numpy as np

    from keras_vqvae2 import VQVAE2, MaskedTransformerPrior, PixelSnailPrior, TransformerPrior
    from keras_vqvae2.layers import (
        BinarySphericalQuantizer,
        IndexBackpropagationQuantizer,
        LookupFreeQuantizer,
        ResidualVectorQuantizer,
        VectorQuantizer,
        VectorQuantizerEMA,
    )

    rng, count = np.random.default_rng(0), FLAGS.steps * FLAGS.batch_size + FLAGS.rest
    # A large epsilon: Adam turns rounding noise of tiny gradients into whole steps otherwise.
    optimizer = keras.optimizers.Adam(1e-3, epsilon=1e-3)
    if stage == "1":
        # The range of colours grows, so that codes die and restart on the way. The top has 128
        # vectors a batch for 32 codes: two codes that start on one vector would be a tie for
        # rounding to break.
        data = rng.uniform(size=(count, FLAGS.size, FLAGS.size, 3)).astype("float32")
        growth = np.linspace(0.1, 1, count - FLAGS.rest)
        growth = np.append(growth, np.ones(FLAGS.rest)).astype("float32")
        data *= growth[:, None, None, None]
        if FLAGS.nan_at >= 0:
            data[FLAGS.nan_at, 3, 3, 0] = np.nan
        ema = VectorQuantizerEMA(32, 4, decay=0.9, restart_threshold=0.3)
        quantizer = {
            "ema": ema,
            "entropies": {
                "top": LookupFreeQuantizer(5, temperature=1.0, logarithm="clipped"),
                "bottom": IndexBackpropagationQuantizer(32, 4, entropy_temperature=1.0),
            },
            "residual": {
                "top": VectorQuantizerEMA(16, 4, num_heads=2, similarity="cosine"),
                "bottom": ResidualVectorQuantizer(ema, 2, quantizer_dropout=0.5, seed=3),
            },
            "kmeans": {
                "top": VectorQuantizerEMA(32, 4, decay=0.9, kmeans_rounds=3),
                "bottom": VectorQuantizerEMA(32, 4, decay=0.9, sample_temperature=0.1, seed=3),
            },
            "gradients": {
                "top": VectorQuantizer(32, 4, decay=0.9, gradient="diveq"),
                "bottom": VectorQuantizerEMA(32, 4, decay=0.9, gradient="rotation"),
            },
            "shared": {
                "top": BinarySphericalQuantizer(5),
                # Restarted codes of two depths can be one vector, a tie as well.
                "bottom": ResidualVectorQuantizer(
                    VectorQuantizerEMA(32, 4, decay=0.9, restart_threshold=0.0),
                    2,
                    shared_codebook=True,
                ),
            },
        }[FLAGS.quantizer]
        model = VQVAE2(
            (FLAGS.size, FLAGS.size, 3),
            hidden_units=FLAGS.units,
            residual_units=FLAGS.units // 2,
            quantizer=quantizer,
            data_variance=0.1,
            quantizer_dropout=FLAGS.dropout,
            dtype=FLAGS.precision,
        )
    else:
        cells = FLAGS.size // 4
        data = {
            "top": rng.integers(32, size=(count, cells, cells), dtype="int32"),
            "label": rng.integers(4, size=count, dtype="int32"),
        }
        data["top"][:, 1:] = data["top"][:, :1]  # something to learn
        transformer = {
            "hidden_units": 4 * FLAGS.units,
            "num_layers": 2,
            "num_heads": 4,
            "feed_forward_units": 8 * FLAGS.units,
        }
        model_class, sizes = {
            "pixelsnail": (
                PixelSnailPrior,
                {
                    "hidden_units": FLAGS.units,
                    "residual_units": FLAGS.units,
                    "num_blocks": 1,
                    "block_layers": 2,
                    "attention_heads": 2,
                    "output_blocks": 1,
                },
            ),
            "transformer": (TransformerPrior, transformer),
            "masked_transformer": (MaskedTransformerPrior, transformer),
        }[FLAGS.prior]
        model = model_class(
            (cells, cells),
            num_embeddings=32,
            num_classes=4,
            dropout=FLAGS.dropout,
            dtype=FLAGS.precision,
            **sizes,
        )
    model.compile(optimizer=optimizer)
    return model, data


def train():
    import keras
    import numpy as np

    import keras_vqvae2

    parallel = keras_vqvae2.Replicas()
    import tensorflow as tf  # tf.data

    keras.utils.set_random_seed(1)
    with parallel.scope():
        model, data = build(FLAGS.stage)
    processes, index = parallel.num_processes, parallel.process_index
    share = FLAGS.batch_size // processes

    def mine(x):
        if processes == 1:
            return x
        return x.reshape(FLAGS.steps, processes, share, *x.shape[1:])[:, index].reshape(
            FLAGS.steps * share, *x.shape[1:]
        )

    dataset = tf.data.Dataset.from_tensor_slices(keras.tree.map_structure(mine, data))
    dataset = dataset.batch(share)
    losses, ends = [], []

    def note(step, logs):
        losses.append(float(logs["loss"]))
        ends.append(time.perf_counter())
        if step == FLAGS.die_at and index == processes - 1 > 0:
            os.kill(os.getpid(), 9)

    log = keras.callbacks.LambdaCallback(on_train_batch_end=note)
    history = model.fit(parallel.distribute(dataset), verbose=0, callbacks=[log]).history
    measured = model.evaluate(parallel.distribute(dataset), verbose=0, return_dict=True)
    if index == 0:
        np.savez(
            FLAGS.output,
            losses=losses,
            seconds=np.diff(ends),
            **{name: values[0] for name, values in history.items()},
            **{f"evaluated_{name}": value for name, value in measured.items()},
            **{
                f"codebook_{level}": keras.ops.convert_to_numpy(
                    model.get_layer(f"quantizer_{level}").codebook
                )
                for level in getattr(model, "levels", ())
            },
            **{
                f"weight_{i}": keras.ops.convert_to_numpy(v)
                for i, v in enumerate(model.trainable_variables)
            },
        )


def main(_):
    import keras

    backend = keras.backend.backend()
    started = {"tensorflow": "TF_CONFIG", "jax": "KERAS_DISTRIBUTION_PROCESS_ID", "torch": "RANK"}
    if FLAGS.processes > 1 and started[backend] not in os.environ:
        processes = measure.launch(sys.argv, backend, FLAGS.processes)
        with ThreadPoolExecutor() as pool:  # a full pipe would stop a process
            errors = list(pool.map(lambda process: process.communicate()[1], processes))
        for process, text in zip(processes, errors):
            if process.returncode:
                sys.exit(f"A process ended with {process.returncode}:\n{text[-3000:]}")
        return
    virtual_devices(backend, FLAGS.devices)
    train()


if __name__ == "__main__":
    app.run(main)
