# %% [markdown]
# # Scale up, and halve the precision
#
# What changes when a model is trained on several devices, in half precision, in parts of a batch,
# or in several sittings? The aim is: nothing but the time. This page checks it on a CPU, which is
# made to look like two devices, and ends with the commands for real ones.
#
# JAX and TensorFlow split a CPU; PyTorch runs one process a device, so that with it this page shows
# one device.

# %%
import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"  # JAX: two devices of a CPU

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_vqvae2

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], halves)

QUICK = "KERAS_VQVAE2_QUICK" in os.environ  # set by the tests: as little as shows that it runs
STEPS = 4 if QUICK else 40
photographs = keras_vqvae2.data.sample_photographs()


def batches(size=8, start_step=0):
    """Random crops of the bundled photographs, from any step on the same ones."""
    return keras_vqvae2.data.images_from_arrays(
        photographs,
        image_size=32,
        batch_size=size,
        resize=48,
        crop="random",
        flip=True,
        shuffle=True,
        repeat=True,
        start_step=start_step,
    )


def build(dtype="float32"):
    """A small model, the same weights whenever it is built."""
    keras.utils.set_random_seed(0)
    model = keras_vqvae2.VQVAE2(
        (32, 32, 3),
        num_embeddings=64,
        embedding_dim=16,
        hidden_units=32,
        residual_units=16,
        data_variance=0.06,
        dtype=dtype,
    )
    # With a large epsilon Adam does not blow rounding noise up to whole steps.
    model.compile(optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-3))
    return model


def train(model, images, steps, **options):
    """The loss of each step."""
    losses = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda step, logs: losses.append(float(logs["loss"]))
    )
    callbacks = [note, *options.pop("callbacks", [])]
    model.fit(images, steps_per_epoch=steps, callbacks=callbacks, verbose=0, **options)
    return losses


def largest_difference(model, other):
    """Over all weights, codebooks included."""
    pairs = zip(model.get_weights(), other.get_weights())
    return max(np.abs(a.astype("float64") - b).max() for a, b in pairs)


# %% [markdown]
# ## Half precision
#
# `dtype="mixed_bfloat16"` is all it takes, for a new model or a preset. Convolutions then run in
# bfloat16; codebooks, distances, losses and reconstructions stay float32, whatever the policy,
# because sums of thousands of vectors in 8 bits of mantissa would let the codes drift.

# %%
half = keras_vqvae2.VQVAE2.from_preset("vqvae2_clothing_64", dtype="mixed_bfloat16")
full = keras_vqvae2.VQVAE2.from_preset("vqvae2_clothing_64")
print("convolutions:", half.get_layer("encoder_top").compute_dtype)
print("codebook:    ", half.quantizers["top"].codebook.dtype)

codes, expected = half.encode(photographs), full.encode(photographs)
for level in codes:
    print(f"{level}: {(codes[level] == expected[level]).mean():.1%} of the codes are float32's")
for name, model in (("mixed_bfloat16", half), ("float32", full)):
    psnr = keras_vqvae2.metrics.PeakSignalNoiseRatio()
    psnr.update_state(photographs / 255.0, model.decode(model.encode(photographs)))
    print(f"{name}: {float(psnr.result()):.2f} dB")

# %% [markdown]
# More than nine of ten codes should agree, and the PSNR to within a few hundredths of a decibel:
# the codes that differ were as near as no matter. Training takes the same turn:

# %%
single = build()
losses = {"float32": train(single, batches(), STEPS)}
losses["mixed_bfloat16"] = train(build("mixed_bfloat16"), batches(), STEPS)
_, axis = plt.subplots(figsize=(6, 3), layout="constrained")
for name, values in losses.items():
    axis.plot(range(1, STEPS + 1), values, label=name)
axis.set(xlabel="step", ylabel="mean loss of the epoch so far")
axis.legend()
axis.grid(alpha=0.3)
plt.show()
print("losses at the end:", {name: round(values[-1], 4) for name, values in losses.items()})

# %% [markdown]
# *Both curves on the same batches: one hides the other.*
#
# Whether it is faster depends on the hardware: GPUs, TPUs and CPUs with bfloat16 arithmetic gain,
# others lose. `mixed_float16` works too and needs a loss scale, which Keras keeps; a step that
# overflows changes nothing and is counted in `skipped_steps`. Details: [Half
# precision](../precision_and_replicas.md).
#
# ## Go on after a kill
#
# `TrainingCheckpoint` saves model and optimizer after each epoch, and on SIGTERM in the middle of
# one. The data sources start at any step (`start_step`) with the very batches that would have come.
# So a run in two sittings ends like one that was never stopped:

# %%
half_way = STEPS // 2
straight = build()
train(straight, batches(), half_way, epochs=2)

checkpoint = keras_vqvae2.callbacks.TrainingCheckpoint("run")
train(build(), batches(), half_way, callbacks=[checkpoint])  # ... and here the machine is lost

resumed, epoch, step = keras_vqvae2.callbacks.TrainingCheckpoint.restore("run")
print(f"restored after {epoch} epoch(s) and {step} steps of the next")
left = batches(start_step=epoch * half_way + step)
train(resumed, left, half_way, initial_epoch=epoch, epochs=2)
print(f"largest difference of all weights: {largest_difference(resumed, straight):.1e}")

# %% [markdown]
# Zero on a CPU. The scripts do this with `--resume`.
#
# ## Large batches in parts
#
# Is the batch too large for the memory? Keras' optimizers add up the gradients of `k` parts before
# they update: eight batches of 8 in parts of 4 are 16 steps and 8 updates. Here it is a prior's
# turn, whose loss is a mean over examples and nothing else:


# %%
def train_prior(batch_size, parts):
    keras.utils.set_random_seed(0)
    prior = keras_vqvae2.PixelSnailPrior(
        (8, 8),
        num_embeddings=64,
        hidden_units=16,
        residual_units=16,
        num_blocks=1,
        block_layers=1,
        attention_heads=2,
        output_blocks=0,
        dropout=0.0,
    )
    adam = keras.optimizers.Adam(1e-3, epsilon=1e-3, gradient_accumulation_steps=parts)
    prior.compile(optimizer=adam)
    maps = np.random.default_rng(0).integers(64, size=(64, 8, 8)).astype("int32")
    prior.fit({"top": maps}, batch_size=batch_size, shuffle=False, verbose=0)
    return prior


difference = largest_difference(train_prior(8, None), train_prior(4, 2))
print(f"largest difference of all weights: {difference:.1e}")

# %% [markdown]
# Rounding. In stage 1 the gradients add up in the same way, while the codebooks move with every
# part.
#
# ## Several devices
#
# `Replicas` stands for `keras.distribution` on JAX, `tf.distribute` on TensorFlow and
# `torch.distributed` on PyTorch. Models are built, compiled and loaded in its scope, and `fit`
# takes what `distribute` returns. The batch size is that of all devices together.

# %%
parallel = keras_vqvae2.Replicas()  # all devices; Replicas(devices=1) for one
with parallel.scope():
    shared = build()
losses["several devices"] = train(shared, parallel.distribute(batches()), STEPS)
print(f"{parallel.num_replicas} device(s), {parallel.num_processes} process(es)")
for step in range(0, STEPS, max(1, STEPS // 5)):
    print(
        f"step {step + 1:2}: one device {losses['float32'][step]:.6f}, "
        f"several {losses['several devices'][step]:.6f}"
    )
print(f"largest difference of all weights: {largest_difference(shared, single):.1e}")

# %% [markdown]
# The gradients, the sums behind the codebooks and the metrics are those of the whole batch, so that
# losses agree to about 1e-6, and so do the weights, as long as no vector lies so near the middle
# between two codes that rounding decides. [What stays the same](../scaling.md#what-stays-the-same)
# has the table over 50 steps, with two and four devices and processes, on three backends.
#
# Two halves of a CPU are no faster than the whole. On real devices nothing in this page changes but
# the two lines at its top, which are left out.
#
# ## Commands for real devices
#
# One machine, all its GPUs or TPU cores, JAX or TensorFlow: start the script.
#
#     KERAS_BACKEND=jax python examples/train_vqvae2.py --data=photographs --output=runs/mine
#
# PyTorch starts one process a device:
#
#     KERAS_BACKEND=torch torchrun --nproc-per-node=8 \
#         examples/train_vqvae2.py --data=photographs --output=runs/mine
#
# Several machines that share a folder, TensorFlow; `index` is the machine's number:
#
#     TF_CONFIG='{"cluster": {"worker": ["host0:1234", "host1:1234"]},
#                 "task": {"type": "worker", "index": 0}}' KERAS_BACKEND=tensorflow \
#         python examples/train_vqvae2.py --data=photographs --output=/shared/run
#
# A TPU pod, JAX: the same command on every host; `--join` lets JAX find the others.
#
#     KERAS_BACKEND=jax python examples/train_vqvae2.py --join \
#         --data=photographs --output=/shared/run --precision=mixed_bfloat16
#
# Scripts take `--accumulate_steps=k` for large batches in parts, `--resume` to go on, and
# `--batch_size` for the batch of all devices together. Costs, limits and the splitting of weights
# over devices are in [Scaling up](../scaling.md).
