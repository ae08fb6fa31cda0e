"""Draws and completes images on so many virtual CPU devices of JAX and saves them.

python tests/models/generate_on_devices.py RESULT.npz DEVICES
"""

import os
import sys

result, devices = sys.argv[1], int(sys.argv[2])
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"

import keras  # noqa: E402
import numpy as np  # noqa: E402

if devices > 1:
    keras.distribution.set_distribution(keras.distribution.DataParallel())

from keras_vqvae2 import VQVAE2, HierarchicalImageGenerator, PixelSnailPrior  # noqa: E402

SMALL = {
    "num_embeddings": 12,
    "hidden_units": 8,
    "residual_units": 6,
    "num_blocks": 1,
    "block_layers": 1,
    "kernel_size": 3,
    "condition_blocks": 0,
    "output_blocks": 0,
    "num_classes": 2,
}


def prior(level, code_shape, **changes):
    model = PixelSnailPrior(code_shape, level=level, **SMALL, **changes)
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(0.3 * rng.normal(size=variable.shape))
    return model


keras.utils.set_random_seed(0)
vqvae = VQVAE2((16, 16, 3), num_embeddings=12, hidden_units=8, residual_units=4)
top = prior("top", (2, 2), attention_heads=2)
bottom = prior("bottom", (4, 4), attention_heads=0, condition_factors={"top": 2})
generator = HierarchicalImageGenerator(vqvae, [top, bottom])

# Six images, and batches of three: numbers that four devices do not share evenly.
images = generator.generate(6, seed=3, batch_size=3, verbose=0)
mask = np.zeros((16, 16), bool)
mask[8:] = True
completed = generator.complete(images, mask, labels=[0] * 6, batch_size=6, verbose=0)

condition = {"top": np.zeros((4, 2, 2), "int32")}
rows = bottom._row_decoder.rows
shapes = []


def rows_seen(*args):
    for codes, logits in rows(*args):
        shapes.append([shard.data.shape[:2] for shard in logits.addressable_shards])
        yield codes, logits


bottom._row_decoder.rows = rows_seen
bottom.generate(4, labels=0, condition=condition, verbose=0)
np.savez(result, images=images, completed=completed, shards=np.array(shapes))
