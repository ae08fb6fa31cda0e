"""The priors of the bundled generator: 16x16 and 32x32 codes of `vqvae2_imagenette_128`.

Command:    python examples/train_prior.py --codes=runs/codes --level=top --output=runs/prior_top
            python examples/train_prior.py --codes=runs/codes --level=bottom \\
                --output=runs/prior_bottom
            on the codes of examples/encode_dataset.py, training images also mirrored
Hardware:   2 CPU cores, TensorFlow backend compiled by XLA, float32
Wall time:  top 42 minutes, bottom 20 minutes, both beside other work
Reached:    validation nats a code 3.760 (top) and 3.587 (bottom); uniform codes 6.238

`--laptop` stops after 100 steps, some 3 minutes a level.
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
        "dropout": 0.1,
    }
    if level == "top":
        model = {**common, "residual_units": 128, "attention_heads": 4}
        batch_size, steps = 32, 1100
    else:
        model = {
            **common,
            "residual_units": 96,
            "num_blocks": 2,
            "attention_heads": 0,
            "condition_blocks": 2,
            "condition_kernel_size": 3,
        }
        batch_size, steps = 8, 1500
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
    }
