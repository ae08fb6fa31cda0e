"""The sharper decoder of `vqvae2_cartoonset_128`: LPIPS and a PatchGAN, codes frozen.

Command:    python examples/finetune_decoder.py --data=cartoonset/train \\
                --recipe=examples/recipes/finetune_cartoonset_128.py \\
                --validation=cartoonset/validation --preset=runs/cartoonset_128/preset \\
                --output=runs/cartoonset_128_sharp
            then again, from runs/cartoonset_128_sharp/preset into another --output, with
                --steps=3000 --steps_per_epoch=300 --precision=mixed_bfloat16
Hardware:   one of 2 CPU cores, TensorFlow backend without XLA, float32; the 3,000 steps on one
            with AVX-512-BF16
Wall time:  40 minutes beside much other work, and 21 minutes
Reached:    LPIPS 0.063, then 0.053, in place of 0.158, PSNR 21.51 dB, then 21.67, in place of
            22.53, on the test images

`--laptop` stops after 60 steps.
"""

import keras

import keras_vqvae2
from keras_vqvae2.losses import AbsoluteError, LPIPSDistance


def recipe(laptop=False):
    """What to train and how; `laptop=True` is the same in small, minutes on two cores."""
    steps = 60 if laptop else 600
    return {
        "reconstruction_losses": {
            "absolute_error": (AbsoluteError(), 1.0),
            "lpips": (LPIPSDistance("alexnet"), 1.0),
        },
        "discriminator": (
            keras_vqvae2.PatchDiscriminator,
            {"filters": 24, "num_layers": 3, "normalization": "group"},
        ),
        "adversarial": {"weight": 0.5, "start": steps // 8, "ramp": steps // 8},
        "data": {"flip": False},
        "batch_size": 12,
        "steps": steps,
        "steps_per_epoch": steps // 10,
        "optimizer": keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(4e-4, steps, alpha=0.05), beta_1=0.5, beta_2=0.9
        ),
        "discriminator_optimizer": keras.optimizers.Adam(3e-4, beta_1=0.5, beta_2=0.9),
        "jit_compile": False,
    }
