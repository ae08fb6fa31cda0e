"""A small class-conditional PixelCNN++ for CIFAR-10, 32x32.

Command:    python examples/train_pixel_model.py --recipe=examples/recipes/pixelcnnpp_cifar10.py \\
                --data=cifar10 --validation=cifar10 --output=runs/pixelcnnpp
Hardware:   one thread of 2 CPU cores, TensorFlow backend without XLA, float32: 0.4 CPU seconds a
            step
Wall time:  83 minutes, beside two other trainings
Reached:    2.84 bits/dim on the 10,000 test images, stored as JPEG files, which compares with
            nothing published; 3.59 after 2,400 steps of training
Sizes:      0.9 M parameters; the paper's network, the preset `pixelcnnpp_cifar10`, has 53.6 M,
            16 images on each of 8 GPUs, dropout 0.5, Adam with 0.001 x 0.999995^step, betas 0.95
            and 0.9995, averages of 0.9995, and took 5 days

`--laptop` stops after 800 steps, some 6 minutes.

Reference: Salimans et al. 2017, "PixelCNN++", arXiv 1701.05517.
"""

import keras

import keras_vqvae2


def recipe(laptop=False):
    """What to train and how; `laptop=True` is the same in small, minutes on two cores."""
    steps = 800 if laptop else 8000
    return {
        "pixel_model": keras_vqvae2.PixelCNNPlusPlus,
        "model": {
            "image_shape": (32, 32, 3),
            "hidden_units": 40,
            "num_blocks": 1,
            "num_mixtures": 5,
            "dropout": 0.0,  # 0.9 M parameters do not overfit 50,000 images
        },
        "labels": True,
        "data": {"flip": True},
        "batch_size": 8,
        "steps": steps,
        "steps_per_epoch": steps // 20,
        "patience": 4,
        "jit_compile": False,
        "optimizer": keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(
                initial_learning_rate=1e-5,
                warmup_target=3e-3,
                warmup_steps=100,
                decay_steps=steps - 100,
                alpha=0.01,
            ),
            # The paper's 0.95 and 0.9995 are for days: 4.63 bits/dim after 300 steps, these 4.36.
            beta_1=0.9,
            beta_2=0.99,
            use_ema=True,
            ema_momentum=0.99 if laptop else 0.999,
        ),
    }
