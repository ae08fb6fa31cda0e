"""A small class-conditional PixelRNN for CIFAR-10, 32x32, of diagonal BiLSTMs.

Command:    python examples/train_pixel_model.py \\
                --recipe=examples/recipes/diagonal_bilstm_cifar10.py \\
                --data=cifar10 --validation=cifar10 --output=runs/diagonal_bilstm
Hardware:   one thread of 2 CPU cores, TensorFlow backend without XLA,
            float32, beside up to four other processes
Wall time:  33 minutes
Reached:    4.75 bits/dim on the 10,000 test images, stored as JPEG files, which compares with
            nothing published
Sizes:      0.5 M parameters; the paper's, the preset `diagonal_bilstm_cifar10`, has 8.9 M

`--laptop` stops after 120 steps, some 4 minutes.

Reference: van den Oord et al. 2016, "Pixel Recurrent Neural Networks", arXiv 1601.06759.
"""

import keras

import keras_vqvae2


def recipe(laptop=False):
    """What to train and how; `laptop=True` is the same in small, minutes on two cores."""
    steps = 120 if laptop else 460
    return {
        "pixel_model": keras_vqvae2.PixelRNN,
        "model": {
            "image_shape": (32, 32, 3),
            "kind": "diagonal_bilstm",
            "hidden_units": 48,
            "num_layers": 3,
            "head_units": 192,
        },
        "labels": True,
        "data": {"flip": True},
        "batch_size": 16,
        "steps": steps,
        "steps_per_epoch": steps // 20,
        "patience": 4,
        "jit_compile": False,
        "optimizer": keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(
                initial_learning_rate=1e-5,
                warmup_target=2e-3,
                warmup_steps=50,
                decay_steps=steps - 50,
                alpha=0.01,
            ),
            global_clipnorm=1.0,
            use_ema=True,
            ema_momentum=0.99,
        ),
    }
