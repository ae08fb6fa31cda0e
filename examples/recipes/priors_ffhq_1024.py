"""The paper's priors for faces: 32x32, 64x64 and 128x128 codes of `vqvae2_ffhq_1024`.

Not trained here. The numbers are the paper's (appendix A.2, FFHQ; from memory), and so are those of
the presets `pixelsnail_ffhq_1024_…`. What it does not publish, the optimizer, is that of the other
recipes.

Command:    for each level L of top, middle and bottom,
            python examples/train_prior.py --recipe=examples/recipes/priors_ffhq_1024.py \\
                --codes=runs/ffhq_1024_codes --level=L --output=runs/ffhq_1024_L
            on the codes of examples/encode_dataset.py with --nolabels
Hardware:   none yet at full size
Wall time:  not measured
Reached:    nats a code not measured

`--laptop` trains priors of 64 channels and one block on single maps, 100 steps.
"""

import keras

import keras_vqvae2

# Of each level: residual units, blocks, layers a block, attention heads, dropout, batch, steps.
PAPER = {
    "top": (2048, 4, 5, 8, 0.5, 1024, 237_000),
    "middle": (1024, 1, 20, 8, 0.3, 512, 57_400),
    "bottom": (1024, 2, 5, 0, 0.25, 256, 270_000),
}


def recipe(level, laptop=False):
    """What to train and how; `laptop=True` is the same in small, minutes on two cores."""
    residual_units, blocks, layers, heads, dropout, batch_size, steps = PAPER[level]
    model = {
        "hidden_units": 512,
        "residual_units": residual_units,
        "num_blocks": blocks,
        "block_layers": layers,
        "kernel_size": 5,
        "attention_heads": heads,
        "output_blocks": 0,
        "dropout": dropout,
    }
    if level != "top":
        model["condition_blocks"] = 8
    if laptop:
        small = {"hidden_units": 64, "residual_units": 32, "num_blocks": 1, "block_layers": 2}
        model |= {**small, "kernel_size": 3, "attention_heads": min(heads, 2)}
        if level != "top":
            model |= {"condition_blocks": 1, "condition_kernel_size": 3}
        batch_size, steps = 1, 100
    return {
        "prior": keras_vqvae2.PixelSnailPrior,
        "model": model,
        "batch_size": batch_size,
        "steps": steps,
        "steps_per_epoch": steps // (5 if laptop else 100),
        "patience": 4,
        "optimizer": keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(
                initial_learning_rate=1e-5,
                warmup_target=2e-3 if laptop else 3e-4,
                warmup_steps=steps // 20,
                decay_steps=steps - steps // 20,
                alpha=0.01,
            ),
            global_clipnorm=1.0,
            use_ema=True,
            ema_momentum=0.99 if laptop else 0.9999,
        ),
    }
