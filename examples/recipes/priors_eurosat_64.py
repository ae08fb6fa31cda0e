"""The priors of the bundled generator `eurosat_64`: 4x4 and 8x8 codes of `vqvae2_eurosat_64`.

Command:    for each level L of top and bottom,
            python examples/train_prior.py --recipe=examples/recipes/priors_eurosat_64.py \\
                --codes=runs/eurosat_64_codes --level=L --output=runs/eurosat_64_L \\
                --precision=mixed_bfloat16
            on the codes of examples/encode_dataset.py
Hardware:   one thread of 2 CPU cores with AVX-512-BF16, TensorFlow backend without XLA,
            mixed_bfloat16
Wall time:  top 17 minutes, bottom 38 minutes, beside other work; the bottom level was stopped
            after 7 of 10 epochs, one after its best
Reached:    nats a code 3.821 (top) and 4.412 (bottom) on the test images; uniform codes 6.238

`--laptop` stops after 100 steps, some 2 minutes a level.
"""

import keras

import keras_vqvae2


def recipe(level, laptop=False):
    """What to train and how; `laptop=True` is the same in small, minutes on two cores."""
    common = {
        "kernel_size": 3,
        "first_kernel_size": 5,
        "block_layers": 3,
        "hidden_units": 128,
        "output_blocks": 1,
        "label_dropout": 0.1,
    }
    if level == "top":
        model = {
            **common,
            "residual_units": 96,
            "num_blocks": 2,
            "attention_heads": 4,
            "dropout": 0.1,
        }
        batch_size, steps = 128, 1600
    else:
        model = {
            **common,
            "residual_units": 96,
            "num_blocks": 2,
            "attention_heads": 4,
            "condition_blocks": 2,
            "condition_kernel_size": 3,
            "dropout": 0.1,
        }
        batch_size, steps = 64, 2400
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
