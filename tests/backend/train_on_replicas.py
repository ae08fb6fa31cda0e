"""Trains a small VQVAE2 for 20 steps as one or as two replicas and saves what it ends with.

    python tests/backend/train_on_replicas.py RESULT.npz REPLICAS [RANK PORT]

The same 20 batches either way. TensorFlow: MirroredStrategy on two logical CPUs. JAX: DataParallel
on two CPU devices. PyTorch: two processes with gloo, each run with its RANK.
"""

import os
import sys

result, replicas = sys.argv[1], int(sys.argv[2])
rank, port = (int(a) for a in sys.argv[3:5]) if len(sys.argv) > 3 else (0, 0)
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={replicas}"

import contextlib  # noqa: E402

import keras  # noqa: E402
import numpy as np  # noqa: E402

STEPS, BATCH = 20, 8
backend = keras.backend.backend()
scope = contextlib.nullcontext()
if replicas > 1 and backend == "tensorflow":
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    halves = [tf.config.LogicalDeviceConfiguration()] * replicas
    tf.config.set_logical_device_configuration(cpu, halves)
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    scope = tf.distribute.MirroredStrategy(devices).scope()
elif replicas > 1 and backend == "jax":
    keras.distribution.set_distribution(keras.distribution.DataParallel())
elif replicas > 1 and backend == "torch":
    import torch

    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", address, rank=rank, world_size=replicas)

from keras_vqvae2 import VQVAE2  # noqa: E402

rng = np.random.default_rng(0)
# The range of colours grows, so that codes die and restart on the way. The top has 128 vectors a
# batch for 32 codes: two codes that start on one vector would be a tie for rounding to break.
images = (
    rng.uniform(size=(STEPS * BATCH, 32, 32, 3))
    * np.linspace(0.1, 1, STEPS * BATCH)[:, None, None, None]
)
nan_at = int(os.environ.get("NAN_AT", -1))
if nan_at >= 0:
    images[nan_at, 3, 3, 0] = np.nan
batch = BATCH
if backend == "torch":
    batch = BATCH // replicas
    images = images.reshape(STEPS, replicas, batch, 32, 32, 3)[:, rank].reshape(-1, 32, 32, 3)

keras.utils.set_random_seed(1)
with scope:
    model = VQVAE2(
        (32, 32, 3),
        hidden_units=8,
        residual_units=4,
        num_embeddings=32,
        embedding_dim=4,
        decay=0.9,
        restart_threshold=0.3,
        data_variance=0.1,
    )
    # A large epsilon: Adam turns rounding noise of tiny gradients into whole steps otherwise.
    model.compile(optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-3))
losses = []
log = keras.callbacks.LambdaCallback(
    on_train_batch_end=lambda step, logs: losses.append(logs["loss"])
)
history = model.fit(images, batch_size=batch, shuffle=False, verbose=0, callbacks=[log]).history

if rank == 0:
    np.savez(
        result,
        losses=losses,
        skipped=history["skipped_steps"],
        norm=history["gradient_norm"],
        **{
            f"codebook_{level}": keras.ops.convert_to_numpy(
                model.get_layer(f"quantizer_{level}").codebook
            )
            for level in model.levels
        },
        **{
            f"weight_{i}": keras.ops.convert_to_numpy(v)
            for i, v in enumerate(model.trainable_variables)
        },
    )
