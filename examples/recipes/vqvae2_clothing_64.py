"""The bundled preset `vqvae2_clothing_64`: two levels at 64x64, trained on photographs of clothes.

Its decoder was trained again by finetune_clothing_64.py; what is reached here is before that.

Command:    python examples/train_vqvae2.py --recipe=examples/recipes/vqvae2_clothing_64.py \\
                --data=clothing/train --validation=clothing/validation --output=runs/clothing_64 \\
                --precision=mixed_bfloat16
Hardware:   2 CPU cores with bfloat16 arithmetic, TensorFlow backend
Wall time:  32 minutes, beside other work
Reached:    PSNR 27.83 dB on the 372 test images (22.68 dB from the top level alone), LPIPS 0.044;
            26.69 dB on the 341 validation images

`--laptop` stops after 300 steps, some 3 minutes.
"""

import keras

from keras_vqvae2.losses import LPIPSDistance, SquaredError


def recipe(laptop=False):
    """What to train and how; `laptop=True` is the same in small, minutes on two cores."""
    steps = 300 if laptop else 3000
    return {
        "model": {
            "image_shape": (64, 64, 3),
            "num_levels": 2,
            "downsample_kernel_size": 4,
            # Both by the table of variants in docs/training.md.
            "quantizer_dropout": 0.1,
            "reconstruction_losses": {
                # Divided by the variance of the training pixels in [0, 1].
                "squared_error": (SquaredError(), 1 / 0.058),
                "lpips": (LPIPSDistance("alexnet"), 0.1),
            },
        },
        "data": {"resize": 68, "crop": "random", "flip": True},
        "batch_size": 32,
        "steps": steps,
        "steps_per_epoch": 50 if laptop else 250,
        "optimizer": keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(
                initial_learning_rate=1e-5,
                warmup_target=1e-3,
                warmup_steps=100,
                decay_steps=steps - 100,
                alpha=0.01,
            )
        ),
    }
