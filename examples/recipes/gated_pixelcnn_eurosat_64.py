"""A Gated PixelCNN of `vqvae2_eurosat_64`'s codes, in place of its PixelSNAIL, top level.

Command:    python examples/train_prior.py --recipe=examples/recipes/gated_pixelcnn_eurosat_64.py \\
                --codes=runs/eurosat_64_codes --level=top --output=runs/gated_pixelcnn_top \\
                --precision=mixed_bfloat16
            on the codes of examples/encode_dataset.py
Hardware:   one thread of 2 CPU cores with AVX-512-BF16, TensorFlow backend without XLA,
            mixed_bfloat16
Wall time:  28 minutes beside other work and compiled by XLA; without, a step takes 0.36 seconds of
            the processor, all of them 7 minutes
Reached:    3.754 nats a code on the 1,350 validation images; the bundled PixelSNAIL, in as many
            seconds of the processor, 3.816

`--laptop` stops after 100 steps.
"""

import keras

import keras_vqvae2


def recipe(level, laptop=False):
    """What to train and how; `laptop=True` is the same in small, minutes on two cores."""
    steps = 100 if laptop else 1150
    return {
        "prior": keras_vqvae2.GatedPixelCNNPrior,
        "model": {
            "hidden_units": 128,
            "num_layers": 8,
            "kernel_size": 3,
            "first_kernel_size": 5,
            "head_units": 256,
            "label_dropout": 0.1,
        },
        "batch_size": 128,
        "steps": steps,
        "steps_per_epoch": steps // 10,
        "patience": 4,
        "optimizer": keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(
                initial_learning_rate=1e-5,
                warmup_target=2e-3,
                warmup_steps=steps // 20,
                decay_steps=steps - steps // 20,
                alpha=0.01,
            ),
            global_clipnorm=1.0,
            use_ema=True,
            ema_momentum=0.99,
        ),
        "jit_compile": False,
    }
