"""Masked transformers of `vqvae2_clothing_64`'s codes, in place of its PixelSNAILs.

Command:    for each level L of top and bottom,
            python examples/train_prior.py \\
                --recipe=examples/recipes/masked_transformers_clothing_64.py \\
                --codes=runs/clothing_64_codes --level=L --output=runs/masked_transformer_L \\
                --precision=mixed_bfloat16
            on the codes of examples/encode_dataset.py with --flips --crops=6 --resize=68
Hardware:   one thread of 2 CPU cores with AVX-512-BF16, TensorFlow backend without XLA,
            mixed_bfloat16
Wall time:  top level 25 minutes, beside other work; the bottom level was not trained
Reached:    top level `masked_nats` 5.179 on the 341 validation images

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
        "num_layers": 6,
        "absolute_positions": True,
        "label_dropout": 0.1,
        "num_steps": 8,
        "dropout": 0.1,
    }
    batch_size, steps, rate = (64, 970, 2e-3) if level == "top" else (32, 960, 1e-3)
    steps = 100 if laptop else steps
    return {
        "prior": keras_vqvae2.MaskedTransformerPrior,
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
            weight_decay=0.045,
            beta_2=0.96,
            global_clipnorm=1.0,
            use_ema=True,
            ema_momentum=0.99,
        ),
        "jit_compile": False,
    }
