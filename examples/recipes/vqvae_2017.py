"""The VQ-VAE of 2017: one level of codes, and the losses of its equation 3. Stage 1.

Command:    python examples/train_vqvae2.py --recipe=examples/recipes/vqvae_2017.py \\
                --data=photos --output=runs/vqvae_2017
            then encode_dataset.py, and train_prior.py with recipes/gated_pixelcnn_2017.py
Hardware:   not run here at full size; the paper's is not said
Sizes:      those of the paper's ImageNet model: 128x128 images, 32x32 codes, 512 of them, one
            level, encoder and decoder of 256 features with two residual blocks (section 4.1)

`--laptop` is the same at 64x64 with 64 features and 1,000 steps: some 10 minutes on two cores.

Reference: van den Oord, Vinyals, Kavukcuoglu 2017, "Neural Discrete Representation Learning",
arXiv 1711.00937.
"""

import keras

from keras_vqvae2.layers import VectorQuantizer


def recipe(laptop=False):
    """What to train and how; `laptop=True` is the same in small, minutes on two cores."""
    size, units = (64, 64) if laptop else (128, 256)
    return {
        "model": {
            "image_shape": (size, size, 3),
            "num_levels": 1,
            "downsample_factors": (4,),
            "downsample_kernel_size": 4,
            "hidden_units": units,
            "residual_units": units,
            # The codebook learns by its loss; the averages came as an appendix.
            "quantizer": VectorQuantizer(512, 64, commitment_cost=0.25),
            "data_variance": 0.083,  # Imagenette's, in [0, 1]
        },
        "data": {"flip": True},
        "batch_size": 16 if laptop else 128,
        "steps": 1000 if laptop else 250_000,
        "steps_per_epoch": 100 if laptop else 2500,
        "optimizer": keras.optimizers.Adam(2e-4),
    }
