from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vqvae2 import backend
from keras_vqvae2.hints import FilePath, Tensor
from keras_vqvae2.image_batches import to_unit_floats
from keras_vqvae2.plots import reconstruction_rows, save_image_rows


class ReconstructionGrid(keras.callbacks.Callback):
    """Writes a picture of what a `VQVAE2` keeps of some images, every so often.

    A column an image; the rows are the original, the reconstruction, and what each coarser level
    alone holds (`VQVAE2.decode` with the finer levels left out).

    Args:
        images: Array of shape `(N, H, W, C)`, floats in `[0, 1]` or uint8; eight are plenty.
        directory: Folder of the pictures `epoch-<number>.png`.
        every: Positive integer, epochs between two pictures.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    images = np.random.default_rng(0).uniform(size=(4, 16, 16, 3))
    model = keras_vqvae2.VQVAE2((16, 16, 3), hidden_units=8, residual_units=4)
    model.compile(optimizer="adam")
    grid = keras_vqvae2.callbacks.ReconstructionGrid(images[:2], "pictures")
    model.fit(images, epochs=1, callbacks=[grid], verbose=0)  # pictures/epoch-1.png
    ```
    """

    def __init__(self, images: Tensor, directory: FilePath, every: int = 1) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"Expected a positive number of epochs. Received: every={every}")
        self.images = to_unit_floats(np.asarray(images))
        if self.images.ndim != 4 or self.images.shape[-1] not in (1, 3):
            raise ValueError(
                "Expected images of shape (N, H, W, C) with one or three channels, which a picture "
                f"can show. Received: shape {self.images.shape}"
            )
        self.directory = Path(directory)
        self.every = every

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if (epoch + 1) % self.every or backend.process_index() > 0:
            return
        with backend.alone():
            model: Any = getattr(self.model, "vqvae", self.model)
            trained = model
            if backend.process_count() > 1:  # a copy, which runs without the other processes
                model = type(model).from_config(model.get_config())
                model.set_weights(trained.get_weights())
            rows = reconstruction_rows(model, self.images)
        save_image_rows(rows, self.directory / f"epoch-{epoch + 1}.png", f"epoch {epoch + 1}")
