"""What the layout maps of all priors begin with."""

import keras

from keras_vqvae2 import backend


def new_layout_map(
    device_mesh: keras.distribution.DeviceMesh, model: str, batch: str
) -> keras.distribution.LayoutMap:
    """An empty layout map of a mesh with two axes of these names.

    Raises:
        NotImplementedError: On TensorFlow and PyTorch, where Keras would leave weights whole.
        ValueError: If the mesh is none, or lacks an axis.
    """
    if not backend.SPLITS_WEIGHTS:
        raise NotImplementedError(
            "Expected the JAX backend, the only one on which Keras splits weights. Received: "
            f"keras.backend.backend()={keras.backend.backend()!r}"
        )
    if not isinstance(device_mesh, keras.distribution.DeviceMesh):
        raise ValueError(
            f"Expected a keras.distribution.DeviceMesh. Received: device_mesh={device_mesh!r}"
        )
    if model == batch or not {model, batch} <= set(device_mesh.axis_names):
        raise ValueError(
            f"Expected two of the axes {tuple(device_mesh.axis_names)}. Received: "
            f"model_parallel_dim_name={model!r}, data_parallel_dim_name={batch!r}"
        )
    return keras.distribution.LayoutMap(device_mesh)
