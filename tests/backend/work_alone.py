"""What one process among several computes for itself, saved as FOLDER/<process>.npz.

python tests/backend/work_alone.py FOLDER
"""

import sys
from pathlib import Path

import keras
import numpy as np

import keras_vqvae2

parallel = keras_vqvae2.Replicas()
keras.utils.set_random_seed(0)
with parallel.scope():
    vqvae = keras_vqvae2.VQVAE2((16, 16, 3), hidden_units=8, residual_units=4)
    prior = keras_vqvae2.PixelSnailPrior(
        (2, 2),
        level="top",
        hidden_units=8,
        residual_units=8,
        num_blocks=1,
        block_layers=1,
        attention_heads=2,
        output_blocks=0,
    )
images = np.random.default_rng(0).random((3, 16, 16, 3), dtype="float32")
with parallel.alone():
    codes = vqvae.encode(images)
    decoded = vqvae.decode(codes)
    drawn = prior.generate(3, verbose=0)
path = Path(sys.argv[1]) / f"{parallel.process_index}.npz"
np.savez(path, **codes, decoded=decoded, drawn=drawn, processes=parallel.num_processes)
parallel.wait()
