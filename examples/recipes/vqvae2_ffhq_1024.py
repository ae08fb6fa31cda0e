"""The paper's model for faces, `vqvae2_ffhq_1024`: three levels at 1024x1024.

Not trained here. The numbers are the paper's (appendix A.1, FFHQ): batches of 128, 304,741 steps,
maps of 32x32, 64x64 and 128x128 codes. The optimizer is not published; this is the one of
DeepMind's released example.

Command:    python examples/train_vqvae2.py --recipe=examples/recipes/vqvae2_ffhq_1024.py \\
                --data=ffhq/train --validation=ffhq/validation --output=runs/ffhq_1024
Hardware:   none yet at full size
Wall time:  not measured
Reached:    PSNR not measured

`--laptop` trains a quarter of the channels on single images, 200 steps.
"""

import keras


def recipe(laptop=False):
    """What to train and how; `laptop=True` is the same in small, minutes on two cores."""
    steps = 200 if laptop else 304_741
    width = {"hidden_units": 32, "residual_units": 16} if laptop else {}
    return {
        "model": {"image_shape": (1024, 1024, 3), "num_levels": 3, **width},
        "data": {"flip": True},
        "batch_size": 1 if laptop else 128,
        "steps": steps,
        "steps_per_epoch": 50 if laptop else 817,  # 373 epochs
        "optimizer": keras.optimizers.Adam(3e-4),
    }
