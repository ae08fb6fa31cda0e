from collections.abc import Callable
from contextlib import AbstractContextManager

import keras

from keras_vqvae2 import backend
from keras_vqvae2.hints import Dataset
from keras_vqvae2.validation import check_positive


class Replicas:
    """Trains models as replicas on several devices, of one process or of several.

    What the backends call `keras.distribution` (JAX), `tf.distribute` (TensorFlow) and
    `torch.distributed` (PyTorch), under one name. Every replica sees its part of each batch; the
    gradients, the sums behind the codebooks and the metrics are those of the whole batch, and all
    replicas agree on whether it was finite. The batch size is that of the whole batch.

    A process joins the others of its job where the environment tells of them: `TF_CONFIG` for
    TensorFlow, `KERAS_DISTRIBUTION_JOB_ADDRESSES`, `..._NUM_PROCESSES` and `..._PROCESS_ID` for
    JAX, what `torchrun` sets for PyTorch. Make the object before anything else touches a device.

    Args:
        devices: None for all devices of this process, or how many of them. PyTorch runs one process
            a device.
        join: Whether there are other processes; by default if the environment tells of them. True
            lets JAX find them by what a TPU pod or a cluster manager says.

    Attributes:
        num_replicas: Devices of all processes together, or groups of them (`split_weights`): into
            how many parts a batch goes.
        model_parallel: Devices of a group; 1 but for `split_weights`.
        num_processes: Processes of the job.
        process_index: The number of this process; files are for process 0 to write.

    Raises:
        ValueError: If there are fewer devices.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    parallel = keras_vqvae2.Replicas()
    photographs = np.random.default_rng(0).integers(256, size=(8, 16, 16, 3), dtype="uint8")
    images = keras_vqvae2.data.images_from_arrays(
        photographs, batch_size=4, shuffle=True, repeat=True, **parallel.process
    )
    with parallel.scope():
        model = keras_vqvae2.VQVAE2((16, 16, 3), hidden_units=8, residual_units=4)
        model.compile(optimizer="adam")
    model.fit(parallel.distribute(images), steps_per_epoch=2, verbose=0)
    if parallel.process_index == 0:
        with parallel.alone():
            model.save_to_preset("preset")
    ```
    """

    def __init__(self, devices: int | None = None, join: bool | None = None) -> None:
        if devices is not None:
            check_positive(devices=devices)
        self.num_replicas, self._scope = backend.start_replicas(devices, join)
        self.model_parallel = 1
        self.num_processes = backend.process_count()
        self.process_index = backend.process_index()

    @property
    def process(self) -> dict[str, int]:
        """What the sources of `keras_vqvae2.data` need to read this process' part of a batch."""
        return {"num_processes": self.num_processes, "process_index": self.process_index}

    def split_weights(
        self,
        model_parallel: int,
        get_layout_map: Callable[[keras.distribution.DeviceMesh], keras.distribution.LayoutMap],
    ) -> None:
        """Lets groups of devices share out the weights of what is built from here on (JAX).

        Args:
            model_parallel: Positive integer, devices of a group.
            get_layout_map: Function from a mesh with the axes `"batch"` and `"model"` to what is
                split, such as `PixelSnailPrior.get_layout_map`.

        Raises:
            ValueError: On TensorFlow and PyTorch, of several processes, or if `model_parallel` does
                not divide the number of devices.
        """
        check_positive(model_parallel=model_parallel)
        if not backend.SPLITS_WEIGHTS or self.num_processes > 1:
            raise ValueError(
                "Expected the JAX backend and one process: only there weights are split. Received: "
                f"model_parallel={model_parallel} on {keras.backend.backend()}, "
                f"{self.num_processes} processes"
            )
        count = self.num_replicas * self.model_parallel
        if count % model_parallel:
            raise ValueError(
                f"Expected a divisor of the {count} devices. Received: "
                f"model_parallel={model_parallel}"
            )
        self.num_replicas, self.model_parallel = count // model_parallel, model_parallel
        mesh = keras.distribution.DeviceMesh(
            (self.num_replicas, model_parallel),
            ("batch", "model"),
            keras.distribution.list_devices()[:count],
        )
        keras.distribution.set_distribution(
            keras.distribution.ModelParallel(
                layout_map=get_layout_map(mesh), batch_dim_name="batch", auto_shard_dataset=False
            )
        )

    def scope(self) -> AbstractContextManager:
        """The context in which models are built, compiled and loaded."""
        return self._scope()

    def alone(self) -> AbstractContextManager:
        """The context of what this process does without the others, such as saving a model."""
        return backend.alone()

    def distribute(self, dataset: Dataset) -> Dataset:
        """What `fit` and `evaluate` take.

        Args:
            dataset: This process' part of the batches: a `tf.data.Dataset`, or on JAX and PyTorch
                any other data set that Keras takes.

        Returns:
            The data set for `fit`. A last batch that the devices of a process cannot share out
            evenly loses what is left over: parts of different sizes would weigh their examples
            differently.
        """
        with self.scope():
            return backend.distribute_dataset(dataset, self.num_replicas)

    def wait(self) -> None:
        """Waits until every process of the job has come here."""
        with self.scope():
            backend.any_process(False)
