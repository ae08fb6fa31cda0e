import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_vqvae2.features.feature_extractor import FeatureExtractor


def keras_application(
    constructor: Callable[..., keras.Model], image_size: int = 224, weights: str | None = "imagenet"
) -> FeatureExtractor:
    """Features of a network of `keras.applications`, with its own preprocessing.

    Floats are rounded to 8 bits and images scaled, bilinear with antialiasing. Features are the
    averages of the last convolutional map.

    Args:
        constructor: Such as `keras.applications.ResNet50`.
        image_size: Positive integer: height and width that images are scaled to. The networks are
            trained at 224; InceptionV3, InceptionResNetV2 and Xception at 299, and EfficientNets
            from B1 on at sizes that Keras documents.
        weights: `"imagenet"` (downloaded by Keras) or None for random ones.

    Returns:
        `FeatureExtractor`, named as the constructor; without weights "-untrained" is appended.

    Raises:
        ValueError: If `constructor` is not of `keras.applications`, or it does not take the size.

    Example:

    ```python
    import keras
    import numpy as np
    from keras_vqvae2 import features

    extractor = features.keras_application(keras.applications.MobileNet, 32, weights=None)
    print(extractor(np.zeros((2, 40, 40, 3))).shape)  # (2, 1024)
    print(extractor.distance_name)  # FD-MobileNet-untrained
    ```
    """
    module: Any = sys.modules.get(getattr(constructor, "__module__", ""))
    name = getattr(constructor, "__name__", None)
    if name is None or getattr(keras.applications, name, None) is not constructor:
        raise ValueError(
            "Expected a constructor such as keras.applications.ResNet50. "
            f"Received: constructor={constructor!r}"
        )
    if weights not in ("imagenet", None):
        raise ValueError(f"Expected 'imagenet' or None. Received: weights={weights!r}")
    shape = (image_size, image_size, 3)
    policy = keras.config.dtype_policy()
    # The constructors have no argument for it.
    keras.config.set_dtype_policy("float32")
    try:
        network = constructor(include_top=False, weights=weights, input_shape=shape, pooling="avg")
        pixels = keras.Input((None, None, 3))
        x = keras.layers.Resizing(image_size, image_size, "bilinear", antialias=True)(pixels)
        model = keras.Model(pixels, network(module.preprocess_input(x)))
    finally:
        keras.config.set_dtype_policy(policy)
    return FeatureExtractor(
        model,
        name if weights else f"{name}-untrained",
        preprocess=lambda images: np.rint(255 * images),
    )
