import keras
import numpy as np
from keras import ops

from keras_vqvae2.features.feature_extractor import FeatureExtractor
from keras_vqvae2.features.tf1_resize import TF1BilinearResize
from keras_vqvae2.features.torch_weights import load_torch_weights, name_with_weights
from keras_vqvae2.hints import FilePath

_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth"
)
_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
# Whatever the global policy: these numbers are compared with other people's.
_LAYER = {"dtype": "float32", "data_format": "channels_last"}
_CONV = {"use_bias": False, "kernel_initializer": "zeros", **_LAYER}


def inception_2015(weights: FilePath | None = None) -> FeatureExtractor:
    """The network that FID and Inception score are defined by, "2015-12-05".

    It is not `keras.applications.InceptionV3`: it resizes as TensorFlow 1 did, its average pools
    leave the padding out of the count, its last block pools by maximum, and it has 1,008 classes.
    Floats are rounded to 8 bits first, so an image has the features of its PNG file.

    Features are the 2,048 averages of the last block ("pool_3"). Probabilities are those of the
    Inception score: softmax of the logits without their bias.

    Args:
        weights: Path of `pt_inception-2015-12-05-6726825d.pth` (or of another file with a state
            dict of the same network); None downloads it (96 MB) into Keras' cache.

    Returns:
        `FeatureExtractor`, named "Inception-2015-12-05"; a digest of the file is appended if it is
        not the published one, and then no distance is called FID.

    Raises:
        ValueError: If the file is of another network, or not of tensors alone.
        FileNotFoundError: If there is no file at the path.
        OSError: If the file is to be downloaded and there is no network.

    Example:

    ```python
    from keras_vqvae2.features.inception import inception_network

    # With the weights: extractor = keras_vqvae2.features.inception_2015()
    network, logits = inception_network()
    print(network.count_params() + logits.count_params())  # 23885392
    ```

    Reference:
        - Heusel et al. 2017, arXiv 1706.08500; Salimans et al. 2016, arXiv 1606.03498.
        - The weights: pytorch-fid's conversion of TensorFlow's inception-2015-12-05.tgz.
    """
    path = _download() if weights is None else weights
    name = name_with_weights("Inception-2015-12-05", path, _SHA256)
    network, logits = inception_network()
    load_torch_weights([*network.layers, logits], path, "the FID Inception network of 2015")

    def probabilities(features):
        return ops.softmax(ops.matmul(features, logits.kernel))  # (B, 1008)

    return FeatureExtractor(
        network,
        name,
        preprocess=lambda images: np.rint(255 * images),
        classifier=probabilities,
    )


def inception_network() -> tuple[keras.Model, keras.layers.Dense]:
    """The network without weights, its layers named as in the published file.

    Returns:
        `(network, logits)`: a Keras model from pixels in 0..255, `(batch, height, width, 3)`, to
        features `(batch, 2048)`, and the dense layer from them to 1,008 logits.
    """
    pixels = keras.Input((None, None, 3), dtype="float32")
    x = TF1BilinearResize(299, dtype="float32")(pixels)
    x = keras.layers.Rescaling(1 / 128, offset=-1.0, dtype="float32")(x)
    x = _conv(x, "Conv2d_1a_3x3", 32, 3, 2, "valid")  # (B, 149, 149, 32)
    x = _conv(x, "Conv2d_2a_3x3", 32, 3, 1, "valid")
    x = _conv(x, "Conv2d_2b_3x3", 64, 3)
    x = _halve(x)  # (B, 73, 73, 64)
    x = _conv(x, "Conv2d_3b_1x1", 80, 1)
    x = _conv(x, "Conv2d_4a_3x3", 192, 3, 1, "valid")
    x = _halve(x)  # (B, 35, 35, 192)
    x = _block_a(x, "Mixed_5b", 32)
    x = _block_a(x, "Mixed_5c", 64)
    x = _block_a(x, "Mixed_5d", 64)
    x = _block_b(x, "Mixed_6a")  # (B, 17, 17, 768)
    x = _block_c(x, "Mixed_6b", 128)
    x = _block_c(x, "Mixed_6c", 160)
    x = _block_c(x, "Mixed_6d", 160)
    x = _block_c(x, "Mixed_6e", 192)
    x = _block_d(x, "Mixed_7a")  # (B, 8, 8, 1280)
    x = _block_e(x, "Mixed_7b", _average)
    # An oversight of 2015 that the weights are trained with.
    x = _block_e(x, "Mixed_7c", _maximum)  # (B, 8, 8, 2048)
    features = keras.layers.GlobalAveragePooling2D(**_LAYER)(x)  # (B, 2048)
    logits = keras.layers.Dense(1008, kernel_initializer="zeros", name="fc", dtype="float32")
    logits.build((None, 2048))
    return keras.Model(pixels, features, name="inception_2015"), logits


def _block_a(x, name, pool_filters):
    return _concatenate(
        _chain(x, name, ("branch1x1", 64, 1)),
        _chain(x, name, ("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)),
        _chain(
            *(x, name, ("branch3x3dbl_1", 64, 1)),
            *(("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)),
        ),
        _chain(_average(x), name, ("branch_pool", pool_filters, 1)),
    )


def _block_b(x, name):
    return _concatenate(
        _chain(x, name, ("branch3x3", 384, 3, 2, "valid")),
        _chain(
            *(x, name, ("branch3x3dbl_1", 64, 1)),
            *(("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2, "valid")),
        ),
        _halve(x),
    )


def _block_c(x, name, filters):
    return _concatenate(
        _chain(x, name, ("branch1x1", 192, 1)),
        _chain(
            *(x, name, ("branch7x7_1", filters, 1)),
            *(("branch7x7_2", filters, (1, 7)), ("branch7x7_3", 192, (7, 1))),
        ),
        _chain(
            *(x, name, ("branch7x7dbl_1", filters, 1)),
            *(("branch7x7dbl_2", filters, (7, 1)), ("branch7x7dbl_3", filters, (1, 7))),
            *(("branch7x7dbl_4", filters, (7, 1)), ("branch7x7dbl_5", 192, (1, 7))),
        ),
        _chain(_average(x), name, ("branch_pool", 192, 1)),
    )


def _block_d(x, name):
    return _concatenate(
        _chain(x, name, ("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2, "valid")),
        _chain(
            *(x, name, ("branch7x7x3_1", 192, 1), ("branch7x7x3_2", 192, (1, 7))),
            *(("branch7x7x3_3", 192, (7, 1)), ("branch7x7x3_4", 192, 3, 2, "valid")),
        ),
        _halve(x),
    )


def _block_e(x, name, pool):
    split = _chain(x, name, ("branch3x3_1", 384, 1))
    double = _chain(x, name, ("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3))
    return _concatenate(
        _chain(x, name, ("branch1x1", 320, 1)),
        _chain(split, name, ("branch3x3_2a", 384, (1, 3))),
        _chain(split, name, ("branch3x3_2b", 384, (3, 1))),
        _chain(double, name, ("branch3x3dbl_3a", 384, (1, 3))),
        _chain(double, name, ("branch3x3dbl_3b", 384, (3, 1))),
        _chain(pool(x), name, ("branch_pool", 192, 1)),
    )


def _chain(x, block, *convolutions):
    for name, *arguments in convolutions:
        x = _conv(x, f"{block}_{name}", *arguments)
    return x


def _conv(x, name, filters, kernel_size, strides=1, padding="same"):
    convolution = {"name": f"{name}_conv", **_CONV}
    x = keras.layers.Conv2D(filters, kernel_size, strides, padding, **convolution)(x)
    x = keras.layers.BatchNormalization(epsilon=1e-3, name=f"{name}_bn", dtype="float32")(x)
    return keras.layers.ReLU(dtype="float32")(x)


def _average(x):
    # Keras leaves the padding out of the count on every backend.
    return keras.layers.AveragePooling2D(3, 1, "same", **_LAYER)(x)


def _maximum(x):
    return keras.layers.MaxPooling2D(3, 1, "same", **_LAYER)(x)


def _halve(x):
    return keras.layers.MaxPooling2D(3, 2, "valid", **_LAYER)(x)


def _concatenate(*branches):
    return keras.layers.Concatenate(dtype="float32")(branches)


def _download():
    try:
        return keras.utils.get_file(origin=_URL, file_hash=_SHA256, cache_subdir="keras_vqvae2")
    # Keras raises a bare Exception when the address is out of reach.
    except Exception as error:
        raise OSError(
            f"Expected to download {_URL}. Without a network, pass the path of that file as "
            f"`weights`. Received: {error}"
        ) from error
