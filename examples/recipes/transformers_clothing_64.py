"""Autoregressive transformers of `vqvae2_clothing_64`'s codes, in place of its PixelSNAILs.

Command:    for each level L of top and bottom,
            python examples/train_prior.py --recipe=examples/recipes/transformers_clothing_64.py \\
                --codes=runs/clothing_64_codes --level=L --output=runs/transformer_L \\
                --precision=mixed_bfloat16
            on the codes of examples/encode_dataset.py with --flips --crops=6 --resize=68
Hardware:   one thread of 2 CPU cores with AVX-512-BF16, TensorFlow backend without XLA,
            mixed_bfloat16
Wall time:  top level 30 minutes, beside other work; the bottom level was not trained to its end:
            at the top level's learning rate it stood at 6.01 nats after 250 steps
Reached:    top level 4.290 nats a code on the 341 validation images; the bundled PixelSNAIL 4.087

`--laptop` stops after 100 steps.
"""

import keras

import keras_vqvae2


def recipe(level, laptop=False):
    """What to train and how; `laptop=True` is the same in small, minutes on two cores."""
    model = {
        "hidden_units": 256,
        "num_heads": 4,
        "feed_forward_units": 704,
        "absolute_positions": True,
        "label_dropout": 0.1,
    }
    if level == "top":
        model |= {"num_layers": 6, "dropout": 0.2}
        batch_size, steps, rate = 64, 1000, 2e-3
    else:
        model |= {"num_layers": 4, "condition_blocks": 2, "dropout": 0.1}
        batch_size, steps, rate = 32, 1270, 1e-3
    steps = 100 if laptop else steps
    return {
        "prior": keras_vqvae2.TransformerPrior,
        "model": model,
        "batch_size": batch_size,
        "steps": steps,
        "steps_per_epoch": steps // 10,
        "patience": 4,
        "optimizer": keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(
                initial_learning_rate=1e-5,
                warmup_target=rate,
                warmup_steps=steps // 20,
                decay_steps=steps - steps // 20,
                alpha=0.01,
            ),
            weight_decay=0.05,
            beta_2=0.95,
            global_clipnorm=1.0,
            use_ema=True,
            ema_momentum=0.99,
        ),
        "jit_compile": False,
    }
