import re
from pathlib import Path

import keras

from keras_vqvae2.files import replacing

_NAME = re.compile(r"checkpoint-(\d+)\.keras")


class TrainingCheckpoint(keras.callbacks.Callback):
    """Saves model and optimizer after each epoch, so that a killed run goes on where it was.

    The file `checkpoint-<epochs finished>.keras` appears at once when it is complete; the one
    before it is removed after that. Whenever the process dies, one good checkpoint is there.

    Args:
        directory: Folder of the checkpoints; made if it is missing.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    model = keras_vqvae2.VQVAE2((16, 16, 3), hidden_units=8, residual_units=4)
    model.compile(optimizer="adam")
    checkpoint = keras_vqvae2.callbacks.TrainingCheckpoint("run")
    model.fit(np.zeros((4, 16, 16, 3)), epochs=2, callbacks=[checkpoint], verbose=0)

    model, epoch = keras_vqvae2.callbacks.TrainingCheckpoint.restore("run")  # epoch is 2
    model.fit(np.zeros((4, 16, 16, 3)), initial_epoch=epoch, epochs=3, verbose=0)
    ```
    """

    def __init__(self, directory):
        super().__init__()
        self.directory = Path(directory)

    def on_epoch_end(self, epoch, logs=None):
        path = self.directory / f"checkpoint-{epoch + 1}.keras"
        with replacing(path) as temporary:
            self.model.save(temporary)
        for old in _checkpoints(self.directory)[:-1]:
            old.unlink()

    @staticmethod
    def restore(directory):
        """Loads the newest checkpoint.

        Args:
            directory: Folder of the checkpoints.

        Returns:
            A tuple `(model, epoch)`: the compiled model and the number of finished epochs, or
            `(None, 0)` if there is no checkpoint.
        """
        checkpoints = _checkpoints(Path(directory))
        if not checkpoints:
            return None, 0
        return keras.models.load_model(checkpoints[-1]), _epoch(checkpoints[-1])


def _epoch(path):
    return int(_NAME.fullmatch(path.name).group(1))


def _checkpoints(directory):
    return sorted(filter(lambda p: _NAME.fullmatch(p.name), directory.glob("*.keras")), key=_epoch)
