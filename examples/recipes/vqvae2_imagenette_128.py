"""The bundled preset `vqvae2_imagenette_128`: two levels at 128x128, trained on Imagenette.

Its decoder was trained again by finetune_imagenette_128.py; what is reached here is before that.

Command:    python examples/train_vqvae2.py --data=imagenette/train \\
                --validation=imagenette/validation --output=runs/imagenette_128
Hardware:   2 CPU cores, TensorFlow backend, float32
Wall time:  46 minutes for 4,000 steps, partly beside other work
Reached:    PSNR 26.25 dB on the 3,925 validation images, 100.0% and 100.0% of the codes in use
            at the top and the bottom level, perplexity 416 and 367

`--laptop` stops after 300 steps, some 5 minutes.
"""

import keras


def recipe(laptop=False):
    """What to train and how; `laptop=True` is the same in small, minutes on two cores."""
    steps = 300 if laptop else 4000
    return {
        "model": {
            "image_shape": (128, 128, 3),
            "num_levels": 2,
            "downsample_kernel_size": 4,
            # Variance of the training pixels in [0, 1].
            "data_variance": 0.083,
        },
        # The photographs are square: scaled to 128x128 they leave no room for random crops.
        "data": {"flip": True},
        "batch_size": 16,
        "steps": steps,
        "steps_per_epoch": 50 if laptop else 250,
        "optimizer": keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(
                initial_learning_rate=1e-5,
                warmup_target=4e-4,
                warmup_steps=200,
                decay_steps=steps - 200,
                alpha=0.01,
            )
        ),
    }
