"""A small class-conditional Gated PixelCNN for CIFAR-10, 32x32.

Command:    python examples/train_pixel_model.py \\
                --recipe=examples/recipes/gated_pixelcnn_cifar10.py \\
                --data=cifar10 --validation=cifar10 --output=runs/gated_pixelcnn \\
                --precision=mixed_bfloat16
Hardware:   one thread of 2 CPU cores with AVX-512-BF16, TensorFlow backend without XLA,
            mixed_bfloat16, beside up to four other processes
Wall time:  32 minutes
Reached:    3.88 bits/dim on the 10,000 test images, stored as JPEG files, which compares with
            nothing published
Sizes:      0.5 M parameters; the paper's on ImageNet at 32x32, the preset
            `gated_pixelcnn_imagenet_32`, has 132 M

`--laptop` stops after 400 steps, some 4 minutes.

Reference: van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders",
arXiv 1606.05328.
"""

import keras

import keras_vqvae2


def recipe(laptop=False):
    """What to train and how; `laptop=True` is the same in small, minutes on two cores."""
    steps = 400 if laptop else 2400
    return {
        "pixel_model": keras_vqvae2.GatedPixelCNN,
        "model": {
            "image_shape": (32, 32, 3),
            "hidden_units": 48,
            "num_layers": 8,
            "kernel_size": 3,
            "first_kernel_size": 5,
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
