"""The bundled preset `vqvae2_cartoonset_128`: two levels at 128x128, trained on drawn faces.

Command:    python examples/train_vqvae2.py --recipe=examples/recipes/vqvae2_cartoonset_128.py \\
                --data=cartoonset/train --validation=cartoonset/validation \\
                --output=runs/cartoonset_128
            then examples/recipes/finetune_cartoonset_128.py, for the decoder alone
Hardware:   one of 2 CPU cores, TensorFlow backend without XLA, float32
Wall time:  57 minutes, beside much other work
Reached:    PSNR 22.60 dB on the 486 validation images, 22.53 dB and LPIPS 0.158 on the 486
            test images

`--laptop` stops after 300 steps, some 4 minutes.
"""

import keras

from keras_vqvae2.losses import SquaredError


def recipe(laptop=False):
    """What to train and how; `laptop=True` is the same in small, minutes on two cores."""
    steps = 300 if laptop else 2520
    return {
        "model": {
            "image_shape": (128, 128, 3),
            "num_levels": 2,
            # Maps of 4x4 and 8x8 codes.
            "downsample_factors": (2, 16),
            "hidden_units": 96,
            "downsample_kernel_size": 4,
            "quantizer_dropout": 0.1,
            "reconstruction_losses": {
                "squared_error": (SquaredError(), 1 / 0.082),
            },
        },
        "data": {"flip": False},
        "batch_size": 16,
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
