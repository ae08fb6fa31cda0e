"""Autoregressive transformers of `vqvae2_eurosat_64`'s codes, in place of its PixelSNAILs.

Command:    for each level L of top and bottom,
            python examples/train_prior.py --recipe=examples/recipes/transformers_eurosat_64.py \\
                --codes=runs/eurosat_64_codes --level=L --output=runs/transformer_L \\
                --precision=mixed_bfloat16
            on the codes of examples/encode_dataset.py
Hardware:   one thread of 2 CPU cores with AVX-512-BF16, TensorFlow backend without XLA,
            mixed_bfloat16: 0.27 seconds of the processor a step at the top level
Wall time:  top level 22 minutes, beside other work and compiled by XLA, which is slower; the bottom
            level was not trained to its end
Reached:    top level 3.736 nats a code on the 1,350 validation images; the bundled PixelSNAIL 3.816

`--laptop` stops after 100 steps.
"""

import keras

import keras_vqvae2


def recipe(level, laptop=False):
    """What to train and how; `laptop=True` is the same in small, minutes on two cores."""
    model = {
        "hidden_units": 192,
        "num_heads": 4,
        "feed_forward_units": 512,
        "absolute_positions": True,
        "label_dropout": 0.1,
    }
    if level == "top":
        model |= {"num_layers": 4, "dropout": 0.1}
        batch_size, steps = 128, 1600
    else:
        model |= {"num_layers": 4, "condition_blocks": 2, "dropout": 0.1}
        batch_size, steps = 64, 1800
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
                warmup_target=2e-3,
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
