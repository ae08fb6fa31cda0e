"""The prior of the VQ-VAE of 2017: a Gated PixelCNN over its one level of codes. Stage 2.

Command:    python examples/train_prior.py --recipe=examples/recipes/gated_pixelcnn_2017.py \\
                --codes=runs/codes --level=bottom --output=runs/prior_2017
            on what encode_dataset.py made with a model of recipes/vqvae_2017.py
Hardware:   not run here at full size
Sizes:      the paper does not say its prior's; those here are Gated PixelCNN's on ImageNet at
            32x32: 20 layers of 384 features, 5x5

`--laptop` is 8 layers of 64 features, 3x3, and 600 steps: some 10 minutes on two cores.

Reference: van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders",
arXiv 1606.05328; van den Oord, Vinyals, Kavukcuoglu 2017, arXiv 1711.00937, section 3.3.
"""

import keras

import keras_vqvae2


def recipe(level, laptop=False):
    """What to train and how; `laptop=True` is the same in small, minutes on two cores."""
    steps = 600 if laptop else 200_000
    small = {"hidden_units": 64, "num_layers": 8, "kernel_size": 3, "head_units": 256}
    full = {"hidden_units": 384, "num_layers": 20, "kernel_size": 5, "head_units": 1024}
    return {
        "prior": keras_vqvae2.GatedPixelCNNPrior,
        "model": small if laptop else full,
        "batch_size": 32 if laptop else 128,
        "steps": steps,
        "steps_per_epoch": steps // 10,
        "patience": 4,
        "optimizer": keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(
                initial_learning_rate=1e-5,
                warmup_target=1e-3,
                warmup_steps=steps // 20,
                decay_steps=steps - steps // 20,
                alpha=0.01,
            ),
            global_clipnorm=1.0,
            use_ema=True,
            ema_momentum=0.99 if laptop else 0.9995,
        ),
    }
