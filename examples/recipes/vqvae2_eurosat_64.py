"""The bundled preset `vqvae2_eurosat_64`: two levels at 64x64, trained on satellite photographs.

Command:    python examples/train_vqvae2.py --recipe=examples/recipes/vqvae2_eurosat_64.py \\
                --data=eurosat/train --validation=eurosat/validation \\
                --output=runs/eurosat_64 --precision=mixed_bfloat16
            then examples/recipes/finetune_eurosat_64.py, for the decoder alone
Hardware:   one thread of 2 CPU cores with AVX-512-BF16, TensorFlow backend without XLA,
            mixed_bfloat16
Wall time:  15 minutes, beside other work
Reached:    PSNR 31.25 dB on the 1,350 validation images

`--laptop` stops after 300 steps, less than a minute.
"""

import keras

from keras_vqvae2.losses import SquaredError


def recipe(laptop=False):
    """What to train and how; `laptop=True` is the same in small, minutes on two cores."""
    steps = 300 if laptop else 6000
    return {
        "model": {
            "image_shape": (64, 64, 3),
            "num_levels": 2,
            # Maps of 4x4 and 8x8 codes.
            "downsample_factors": (2, 8),
            "hidden_units": 96,
            "downsample_kernel_size": 4,
            "quantizer_dropout": 0.1,
            "reconstruction_losses": {
                "squared_error": (SquaredError(), 1 / 0.027),
            },
        },
        "data": {"flip": True},
        "batch_size": 32,
        "steps": steps,
        "steps_per_epoch": steps // 12,
        "optimizer": keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(
                initial_learning_rate=1e-5,
                warmup_target=1.5e-3,
                warmup_steps=100,
                decay_steps=steps - 100,
                alpha=0.01,
            )
        ),
        "jit_compile": False,
    }
