"""The priors of the bundled generator `clothing_64`: 8x8 and 16x16 codes of `vqvae2_clothing_64`.

Command:    for each level L of top and bottom,
            python examples/train_prior.py --recipe=examples/recipes/priors_clothing_64.py \\
                --codes=runs/clothing_64_codes --level=L --output=runs/clothing_64_L \\
                --precision=mixed_bfloat16
            on the codes of examples/encode_dataset.py with --flips --crops=20 --resize=68
Hardware:   one thread of 2 CPU cores with AVX-512-BF16, TensorFlow backend, mixed_bfloat16
Wall time:  top 49 minutes; bottom 44 minutes of the processor (0.82 seconds a step), stopped and
            resumed on the way; both beside other work
Reached:    nats a code 3.807 (top) and 3.845 (bottom) on the test images, 4.011 and 4.108 on the
            validation images; uniform codes 6.238

`--laptop` stops after 100 steps, some 2 minutes a level.
"""

import keras

import keras_vqvae2


def recipe(level, laptop=False):
    """What to train and how; `laptop=True` is the same in small, minutes on two cores."""
    common = {
        "kernel_size": 3,
        "first_kernel_size": 5,
        "num_blocks": 3,
        "block_layers": 3,
        "hidden_units": 128,
        "output_blocks": 1,
        "label_dropout": 0.1,
    }
    if level == "top":
        model = {**common, "residual_units": 128, "attention_heads": 4, "dropout": 0.3}
        batch_size, steps = 64, 2800
    else:
        model = {
            **common,
            "residual_units": 96,
            "num_blocks": 2,
            "attention_heads": 0,
            "condition_blocks": 2,
            "condition_kernel_size": 3,
            "dropout": 0.1,
            "condition_dropout": 0.1,
        }
        batch_size, steps = 32, 3200
    steps = 100 if laptop else steps
    return {
        "prior": keras_vqvae2.PixelSnailPrior,
        "model": model,
        "batch_size": batch_size,
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
