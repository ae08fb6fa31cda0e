"""A small class-conditional PixelRNN for CIFAR-10, 32x32, of Row LSTMs.

Command:    python examples/train_pixel_model.py \\
                --recipe=examples/recipes/row_lstm_cifar10.py \\
                --data=cifar10 --validation=cifar10 --output=runs/row_lstm
Hardware:   one thread of 2 CPU cores, TensorFlow backend without XLA,
            float32, beside up to four other processes
Wall time:  12 minutes
Reached:    4.27 bits/dim on the 10,000 test images, stored as JPEG files, which compares with
            nothing published
Sizes:      0.4 M parameters; the paper's on ImageNet at 32x32, the preset
            `row_lstm_imagenet_32`, has 55.8 M

`--laptop` stops after 300 steps, some 4 minutes.

Reference: van den Oord et al. 2016, "Pixel Recurrent Neural Networks", arXiv 1601.06759.
"""

import keras

import keras_vqvae2


def recipe(laptop=False):
    """What to train and how; `laptop=True` is the same in small, minutes on two cores."""
    steps = 300 if laptop else 900
    return {
        "pixel_model": keras_vqvae2.PixelRNN,
        "model": {
            "image_shape": (32, 32, 3),
            "kind": "row_lstm",
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
