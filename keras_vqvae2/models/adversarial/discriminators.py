import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2.hints import Config, DTypePolicy, Shape, Tensor
from keras_vqvae2.validation import check_positive


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class PatchDiscriminator(keras.Model):
    """PatchGAN: a logit for each overlapping patch of an image, higher for "real".

    ```
    4x4 convolution of stride 2, LeakyReLU 0.2
    num_layers - 1 times: 4x4 convolution of stride 2, normalization, LeakyReLU 0.2
    4x4 convolution, normalization, LeakyReLU 0.2; 4x4 convolution to one channel
    ```

    Channels double up to 8 times `filters`. With the defaults a logit sees 70x70 pixels.

    Args:
        image_shape: `(height, width, channels)`; height and width may be None.
        filters: Positive integer, channels of the first convolution. Defaults to 64.
        num_layers: Positive integer, convolutions of stride 2. Defaults to 3.
        normalization: `"batch"` (VQGAN), `"group"` (at most 32 groups, the same in small batches
            and over replicas) or None. Defaults to `"batch"`.
        dtype: Dtype policy of the layers. Logits are float32.
        **kwargs: `name` and `trainable`.

    Call arguments:
        inputs: Floats in `[0, 1]`, shape `(batch, height, width, channels)`.
        training: Boolean; `"batch"` uses the batch's statistics then.

    Returns:
        float32 logits of shape `(batch, rows, columns, 1)`.

    Raises:
        ValueError: If a size is not positive, or the normalization unknown.

    Reference:
        - Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks",
          arXiv 1611.07004, section 3.2.2; as in Esser et al. 2021, "VQGAN", arXiv 2012.09841.
    """

    def __init__(
        self,
        image_shape: Sequence[int | None] = (None, None, 3),
        filters: int = 64,
        num_layers: int = 3,
        normalization: str | None = "batch",
        dtype: DTypePolicy = None,
        **kwargs: Any,
    ) -> None:
        check_positive(filters=filters, num_layers=num_layers)
        if normalization not in ("batch", "group", None):
            raise ValueError(
                f"Expected 'batch', 'group' or None. Received: normalization={normalization!r}"
            )
        dtype = keras.dtype_policies.get(dtype)
        images = keras.Input(tuple(image_shape), name="images")
        x = 2.0 * images - 1.0
        counts = [filters * min(2**i, 8) for i in range(num_layers + 1)]
        for i, count in enumerate(counts):
            normalized = normalization is not None and i > 0
            x = convolution(
                count, 4, 2 if i < num_layers else 1, not normalized, dtype, f"conv_{i}"
            )(x)
            if normalized:
                x = normalizer(normalization, count, dtype, f"norm_{i}")(x)
            x = keras.layers.LeakyReLU(0.2, dtype=dtype, name=f"relu_{i}")(x)
        # In float32 to the end: PyTorch has no gradient of a float16 kernel of one filter on a CPU.
        logits = convolution(1, 4, 1, True, "float32", "logits")(x)
        super().__init__(images, logits, dtype=dtype, **kwargs)
        self.image_shape = tuple(image_shape)
        self.filters = filters
        self.num_layers = num_layers
        self.normalization = normalization

    def get_config(self) -> Config:
        return {
            **base_config(self),
            "image_shape": list(self.image_shape),
            "filters": self.filters,
            "num_layers": self.num_layers,
            "normalization": self.normalization,
        }


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class BlurDiscriminator(keras.Model):
    """VQGAN+'s discriminator: blurs before it takes every other pixel, and looks at a coarse map.

    ```
    5x5 convolution, LeakyReLU 0.1
    num_stages times: 3x3 convolution, blur of stride 2, group normalization, LeakyReLU 0.1
    maxima of 16x16 cells; 1x1 convolution, LeakyReLU 0.1; 5x5 convolution to one channel
    ```

    Channels double at each stage but the first.

    Args:
        image_shape: `(height, width, channels)`; multiples of `16 * 2**num_stages`.
        filters: Multiple of 32, channels of the first convolution. Defaults to 128.
        num_stages: Positive integer. Defaults to 4 (256x256 images).
        blur: Weights of the blur along one axis. Defaults to `(1, 3, 3, 1)`.
        logits_size: Positive integer, rows and columns of logits. Defaults to 16.
        dtype: Dtype policy of the layers. Logits are float32.
        **kwargs: `name` and `trainable`.

    Call arguments:
        inputs: Floats in `[0, 1]`, shape `(batch, height, width, channels)`.

    Returns:
        float32 logits of shape `(batch, logits_size, logits_size, 1)`.

    Raises:
        ValueError: If a size does not fit.

    Reference:
        - Weber et al. 2024, "MaskBit", arXiv 2409.16211, section 3 and appendix A.
    """

    def __init__(
        self,
        image_shape: Sequence[int] = (256, 256, 3),
        filters: int = 128,
        num_stages: int = 4,
        blur: Sequence[float] = (1, 3, 3, 1),
        logits_size: int = 16,
        dtype: DTypePolicy = None,
        **kwargs: Any,
    ) -> None:
        check_positive(filters=filters, num_stages=num_stages, logits_size=logits_size)
        unit = logits_size * 2**num_stages
        if filters % 32 or any(size % unit for size in image_shape[:2]):
            raise ValueError(
                f"Expected filters in multiples of 32, and images in multiples of {unit} "
                f"(logits_size * 2**num_stages). Received: filters={filters}, "
                f"image_shape={tuple(image_shape)}"
            )
        dtype = keras.dtype_policies.get(dtype)

        def relu(name):
            return keras.layers.LeakyReLU(0.1, dtype=dtype, name=name)

        images = keras.Input(tuple(image_shape), name="images")
        x = relu("relu_in")(same_convolution(filters, 5, dtype, "conv_in")(images))
        for i in range(num_stages):
            count = filters * 2**i
            x = same_convolution(count, 3, dtype, f"conv_{i}")(x)
            x = BlurPool2D(blur, dtype=dtype, name=f"blur_{i}")(x)
            x = relu(f"relu_{i}")(normalizer("group", count, dtype, f"norm_{i}")(x))
        pool = tuple(size // logits_size for size in x.shape[1:3])
        x = keras.layers.MaxPooling2D(pool, data_format="channels_last", dtype=dtype)(x)
        x = relu("relu_out")(same_convolution(x.shape[-1], 1, dtype, "conv_out")(x))
        logits = same_convolution(1, 5, "float32", "logits")(x)
        super().__init__(images, logits, dtype=dtype, **kwargs)
        self.image_shape = tuple(image_shape)
        self.filters = filters
        self.num_stages = num_stages
        self.blur = tuple(blur)
        self.logits_size = logits_size

    def get_config(self) -> Config:
        return {
            **base_config(self),
            "image_shape": list(self.image_shape),
            "filters": self.filters,
            "num_stages": self.num_stages,
            "blur": list(self.blur),
            "logits_size": self.logits_size,
        }


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class BlurPool2D(keras.layers.Layer):
    """Convolves each channel with a fixed blur and keeps every other row and column.

    Args:
        weights: Of the blur along one axis; they are divided by their sum.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Shape `(batch, height, width, channels)`.

    Returns:
        Shape `(batch, ceil(height / 2), ceil(width / 2), channels)`.

    Reference:
        - Zhang 2019, "Making Convolutional Networks Shift-Invariant Again", arXiv 1904.11486.
    """

    def __init__(self, weights: Sequence[float] = (1, 3, 3, 1), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.blur = tuple(weights)
        row = np.array(self.blur, "float32") / sum(self.blur)
        self.kernel = np.outer(row, row)[..., None, None]  # (k, k, 1, 1)
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        kernel = ops.convert_to_tensor(self.kernel, self.compute_dtype)
        return ops.depthwise_conv(
            inputs,
            ops.tile(kernel, (1, 1, inputs.shape[-1], 1)),
            strides=2,
            padding="same",
            data_format="channels_last",
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, *size, channels = input_shape
        return (batch, *(None if s is None else -(-s // 2) for s in size), channels)

    def get_config(self) -> Config:
        return {**super().get_config(), "weights": list(self.blur)}


def base_config(model):
    """`name`, `trainable` and `dtype`: a functional subclass' own config would be its graph."""
    return {"name": model.name, "trainable": model.trainable, "dtype": model.dtype_policy}


def convolution(filters, size, strides, bias, dtype, name):
    """A convolution with a border of one pixel, whatever its size, as PatchGAN has it."""
    padding = keras.layers.ZeroPadding2D(
        1, data_format="channels_last", dtype=dtype, name=f"{name}_border"
    )
    conv = keras.layers.Conv2D(
        filters,
        size,
        strides,
        data_format="channels_last",
        use_bias=bias,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
        dtype=dtype,
        name=name,
    )
    return lambda x: conv(padding(x))


def same_convolution(filters, size, dtype, name):
    return keras.layers.Conv2D(
        filters, size, padding="same", data_format="channels_last", dtype=dtype, name=name
    )


def normalizer(kind, channels, dtype, name):
    if kind == "group":
        return keras.layers.GroupNormalization(
            math.gcd(32, channels), axis=-1, epsilon=1e-5, dtype=dtype, name=name
        )
    return keras.layers.BatchNormalization(
        axis=-1,
        momentum=0.9,
        epsilon=1e-5,
        gamma_initializer=keras.initializers.RandomNormal(1.0, 0.02),
        dtype=dtype,
        name=name,
    )
