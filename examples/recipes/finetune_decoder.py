"""Sharper decoders at 64x64 and 128x128: LPIPS and a PatchGAN, codes frozen.

Command:    python examples/finetune_decoder.py --preset=runs/stage_1/preset \\
                --data=images/train --validation=images/validation --output=runs/sharp \\
                --precision=mixed_bfloat16

The discriminator learns for 200 steps before it counts, and counts fully 200 steps later.
`--laptop` stops after 60 steps.
"""

import keras

import keras_vqvae2
from keras_vqvae2.losses import AbsoluteError, LPIPSDistance


def recipe(laptop=False):
    """What to train and how; `laptop=True` is the same in small, minutes on two cores."""
    steps = 60 if laptop else 1500
    return {
        "reconstruction_losses": {
            "absolute_error": (AbsoluteError(), 1.0),
            "lpips": (LPIPSDistance("alexnet", dtype="bfloat16"), 1.0),
        },
        "discriminator": (
            keras_vqvae2.PatchDiscriminator,
            {"filters": 48, "num_layers": 3, "normalization": "group"},
        ),
        "adversarial": {"weight": 0.5, "start": steps // 8, "ramp": steps // 8},
        "data": {"flip": False},
        "batch_size": 16,
        "steps": steps,
        "steps_per_epoch": steps // 10,
        "optimizer": keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(3e-4, steps, alpha=0.1), beta_1=0.5, beta_2=0.9
        ),
        "discriminator_optimizer": keras.optimizers.Adam(3e-4, beta_1=0.5, beta_2=0.9),
        # bfloat16 products are fast on this kind of processor without XLA only.
        "jit_compile": False,
    }
