"""The losses of 20 training steps from fixed weights and batches, which all backends must repeat.

KERAS_BACKEND=tensorflow python tests/backend/loss_curve.py --write
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np

from keras_vqvae2 import VQVAE2, backend

CURVE = Path(__file__).parents[1] / "golden" / "loss_curve.json"


def loss_curve(policy="float32", steps=20, learning_rate=3e-3, **kwargs):
    """Loss of each step, from weights and images that NumPy draws."""
    rng = np.random.default_rng(0)
    model = VQVAE2(
        (32, 32, 3),
        hidden_units=16,
        residual_units=8,
        num_embeddings=32,
        embedding_dim=8,
        data_variance=0.1,
        dtype=policy,
        **kwargs,
    )
    for variable in model.trainable_variables:
        shape = variable.shape
        scale = np.sqrt(1.0 / np.prod(shape[:-1])) if len(shape) > 1 else 0.0
        variable.assign(rng.normal(size=shape).astype("float32") * scale)
    model.compile(optimizer=keras.optimizers.Adam(learning_rate))
    # 16 smooth images, a coarse pattern of colours each, over and over.
    coarse = rng.uniform(size=(16, 4, 4, 3))
    images = np.kron(coarse, np.ones((1, 8, 8, 1))).astype("float32")
    images = np.tile(images, (steps // 2, 1, 1, 1))
    losses = []

    def reset(step, logs):
        backend.sync_training_state(model)
        model.reset_metrics()

    log = keras.callbacks.LambdaCallback(
        on_train_batch_begin=reset,
        on_train_batch_end=lambda step, logs: losses.append(float(logs["loss"])),
    )
    model.fit(images, batch_size=8, shuffle=False, verbose=0, callbacks=[log])
    return model, losses


if __name__ == "__main__":
    _, losses = loss_curve()
    if "--write" in sys.argv:
        CURVE.write_text(json.dumps(losses, indent=1) + "\n")
    print(losses)
