"""Trains a small prior on one device and on meshes of four, and saves what each ends with.

    python tests/models/train_sharded.py PRIOR FOLDER [BATCHxMODEL ...]

JAX, on four virtual CPU devices. For each mesh FOLDER/BATCHxMODEL.npz has losses, weights, the
shape of each weight's and momentum's piece on a device, and codes drawn before and after a round
trip through a preset; 1x1 is a run without distribution.
"""

import contextlib
import os
import sys
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import keras  # noqa: E402
import numpy as np  # noqa: E402

from keras_vqvae2 import (  # noqa: E402
    MaskedTransformerPrior,
    PixelSnailPrior,
    TransformerPrior,
)

TRANSFORMER = {"hidden_units": 32, "num_layers": 2, "num_heads": 4, "feed_forward_units": 64}
TRANSFORMER |= {"condition_blocks": 1, "dropout": 0.0}
PRIORS = {
    "pixelsnail": (
        PixelSnailPrior,
        {
            "hidden_units": 8,
            "residual_units": 16,
            "num_blocks": 1,
            "block_layers": 1,
            "kernel_size": 3,
            "attention_heads": 4,
            "row_context": True,
            "condition_blocks": 1,
            "condition_kernel_size": 3,
            "upsampling": "learned",
            "output_blocks": 1,
            "dropout": 0.1,
        },
    ),
    "transformer": (TransformerPrior, TRANSFORMER),
    "masked_transformer": (MaskedTransformerPrior, TRANSFORMER),
}
STEPS, BATCH = 5, 4
rng = np.random.default_rng(0)
codes = {
    "bottom": rng.integers(16, size=(STEPS * BATCH, 4, 8)),
    "top": rng.integers(16, size=(STEPS * BATCH, 2, 4)),
    "label": rng.integers(3, size=STEPS * BATCH),
}


def piece(variable):
    return np.array(variable.value.addressable_shards[0].data.shape)


def train():
    keras.utils.set_random_seed(1)
    prior = prior_class(
        (4, 8),
        num_embeddings=16,
        level="bottom",
        condition_factors={"top": 2},
        num_classes=3,
        **sizes,
    )
    # A large epsilon: Adam turns rounding noise of tiny gradients into whole steps otherwise.
    prior.compile(keras.optimizers.Adam(1e-2, epsilon=1e-3))
    losses = []
    log = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda step, logs: losses.append(logs["loss"])
    )
    prior.fit(codes, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[log])
    return prior, losses


def draw(prior):
    given = {"labels": codes["label"][:4], "condition": {"top": codes["top"][:4]}}
    return prior.generate(4, batch_size=4, seed=1, verbose=0, **given)


prior_class, sizes = PRIORS[sys.argv[1]]
folder = Path(sys.argv[2])
for name in sys.argv[3:]:
    shape = tuple(int(size) for size in name.split("x"))
    scope = contextlib.nullcontext()
    if shape != (1, 1):
        mesh = keras.distribution.DeviceMesh(shape, ("batch", "model"))
        layout_map = prior_class.get_layout_map(mesh)
        scope = keras.distribution.ModelParallel(layout_map=layout_map).scope()
    with scope:
        prior, losses = train()
        drawn = draw(prior)
        prior.save_to_preset(folder / f"preset_{name}")
        loaded = prior_class.from_preset(folder / f"preset_{name}")
        result = {"losses": losses, "drawn": drawn, "drawn_loaded": draw(loaded)}
        for variable, again in zip(prior.trainable_variables, loaded.trainable_variables):
            result[f"weight:{variable.path}"] = keras.ops.convert_to_numpy(variable)
            result[f"piece:{variable.path}"] = piece(variable)
            result[f"loaded_piece:{variable.path}"] = piece(again)
        for variable in prior.optimizer.variables:
            result[f"optimizer_piece:{variable.path}"] = piece(variable)
    np.savez(folder / f"{name}.npz", **result)
