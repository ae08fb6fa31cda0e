"""TensorFlow, TFDS and Grain, imported when data is read and not before."""

from typing import Any


def import_tensorflow() -> Any:
    try:
        import tensorflow
    except ImportError as error:
        raise ImportError("Reading images needs TensorFlow: `pip install tensorflow`.") from error
    return tensorflow


def import_grain() -> Any:
    try:
        import grain
    except ImportError as error:
        raise ImportError("Reading with engine='grain' needs `pip install grain`.") from error
    return grain


def import_tfds() -> Any:
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ImportError(
            "Reading TFDS data sets needs `pip install tensorflow-datasets`."
        ) from error
    return tensorflow_datasets
