"""PixelCNN++ as its authors and its most used PyTorch port store it, as `PixelCNNPlusPlus`."""

import re
from collections.abc import Sequence

import numpy as np

from keras_vqvae2.converters.checkpoint_files import StateDict
from keras_vqvae2.hints import DTypePolicy, FilePath, Tensor
from keras_vqvae2.models.pixelcnnpp.pixelcnnpp import PixelCNNPlusPlus
from keras_vqvae2.models.pixelcnnpp.pixelcnnpp_steps import SIZES


def convert_openai_pixelcnnpp(
    checkpoint: FilePath | dict[str, Tensor],
    image_shape: Sequence[int] = (32, 32, 3),
    dropout: float = 0.5,
    dtype: DTypePolicy = None,
) -> PixelCNNPlusPlus:
    """Builds the `PixelCNNPlusPlus` that computes what openai/pixel-cnn's network computes.

    Args:
        checkpoint: A dict from variable name, such as `"conv2d_0/V"`, to array (of the averages,
            for the published numbers), or the path of a `.safetensors` file with it. A common
            prefix such as `"model/"` may precede the names.
        image_shape: `(height, width, colours)`, on which no weight depends but for colours.
        dropout: Float in `[0, 1)`, for training on.
        dtype: Dtype policy of the model.

    Returns:
        A `PixelCNNPlusPlus`.

    Raises:
        ValueError: If the checkpoint is not one of that network, or variables are missing or left
            over.

    Example:

    ```python
    import keras_vqvae2

    try:
        keras_vqvae2.converters.convert_openai_pixelcnnpp({"conv.weight": 0.0})
    except ValueError as error:
        print(error)  # Expected a checkpoint with the keys …
    ```

    Reference:
        - Salimans et al. 2017, arXiv 1701.05517; github.com/openai/pixel-cnn.
    """
    state = StateDict(checkpoint, required=[])
    found = (re.fullmatch(r"(.*/)?conv2d_0/V", key) for key in state.arrays)
    prefix = next((match[1] or "" for match in found if match), "")
    state.arrays = {key.removeprefix(prefix): value for key, value in state.arrays.items()}
    # Dense layers: one a block of the stream above-left, one a block of both on the way down, and
    # the output; blocks = 9 B + 2 B + 2 + ... = 9 B + 5 for B blocks in a group.
    count = state.numbers(r"dense_(\d+)/V")
    blocks, rest = divmod(count - 5, 9)
    if blocks < 1 or rest:
        raise ValueError(
            "Expected a checkpoint with the keys of 9 B + 5 layers dense_0/V, ..., for B blocks in "
            f"a group. Received: {count} of them, keys {sorted(state.arrays)[:4]}"
        )
    columns, units = state.shape("conv2d_0/V", 4)[1::2]
    parameters = state.shape(f"dense_{count - 1}/b", 1)[0]
    labels = "conditional_weights_0/hw"
    num_classes = state.shape(labels, 2)[0] if labels in state.arrays else None
    state.require({"conv2d_0/V": (2, 3, _colours(image_shape) + 1, units)})
    model = _build(image_shape, num_classes, units, blocks, parameters, dropout, dtype)
    numbers = {"conv2d": 0, "dense": 0, "deconv2d": 0, "conditional_weights": 0}

    def name(kind):
        numbers[kind] += 1
        return f"{kind}_{numbers[kind] - 1}"

    def take(layer, kind):
        key = name(kind)
        v = state.take(f"{key}/V")
        v = v.transpose(0, 1, 3, 2) if kind == "deconv2d" else v  # (rows, columns, in, out)
        layer.v.assign(np.reshape(v, layer.v.shape))
        layer.g.assign(state.take(f"{key}/g", layer.g.shape))
        layer.bias.assign(state.take(f"{key}/b", layer.bias.shape))

    def block(layer):
        take(layer.conv_1, "conv2d")
        if layer.auxiliary is not None:
            take(layer.auxiliary, "dense")
        take(layer.conv_2, "conv2d")
        if layer.label_table is not None:
            layer.label_table.assign(state.take(f"{name('conditional_weights')}/hw"))

    start = model.get_layer("start")
    for layer in (start.above, start.row_above, start.left_column):
        take(layer, "conv2d")
    for kind, layer in _in_order(model):
        if kind == "block":
            block(layer)
        else:
            take(layer, {"shrink": "conv2d", "grow": "deconv2d"}[kind])
    take(model.get_layer("head").conv, "dense")
    state.require_empty()
    return model


def convert_pytorch_pixelcnnpp(
    checkpoint: FilePath | dict[str, Tensor],
    image_shape: Sequence[int] = (32, 32, 3),
    dropout: float = 0.5,
    dtype: DTypePolicy = None,
) -> PixelCNNPlusPlus:
    """Builds the `PixelCNNPlusPlus` that computes what pclucas14/pixel-cnn-pp computes.

    The port norms the kernels of its transposed convolutions over other axes than the paper's code;
    they are converted as kernels, with norms of their own.

    Args:
        checkpoint: Path of a `.pt`, `.pth` or `.safetensors` file, or its state dict.
        image_shape: `(height, width, colours)`, on which no weight depends but for colours.
        dropout: Float in `[0, 1)`, for training on; the port has 0.5.
        dtype: Dtype policy of the model.

    Returns:
        A `PixelCNNPlusPlus` without classes.

    Raises:
        ValueError: If the checkpoint is not one of that network, or keys are missing or left over.

    Example:

    ```python
    import keras_vqvae2

    try:
        keras_vqvae2.converters.convert_pytorch_pixelcnnpp({"conv.weight": 0.0})
    except ValueError as error:
        print(error)  # Expected a checkpoint with the keys …
    ```

    Reference:
        - Salimans et al. 2017, arXiv 1701.05517; github.com/pclucas14/pixel-cnn-pp.
    """
    first, last = "u_init.conv.weight_v", "nin_out.lin_a.weight_v"
    state = StateDict(checkpoint, required=[first, last])
    units = state.shape(first, 4)[0]
    parameters = state.shape(last, 2)[0]
    blocks = state.numbers(r"up_layers\.0\.u_stream\.(\d+)\.")
    state.require({first: (units, _colours(image_shape) + 1, 2, 3), last: (parameters, units)})
    model = _build(image_shape, None, units, blocks, parameters, dropout, dtype)

    def take(layer, key, transposed=False):
        v, g = state.take(f"{key}.weight_v"), state.take(f"{key}.weight_g")
        layer.bias.assign(state.take(f"{key}.bias", layer.bias.shape))
        if v.ndim == 2:
            v, g = v[:, :, None, None], g[:, :, None, None]
        axes = (2, 3, 0, 1) if transposed else (2, 3, 1, 0)  # (rows, columns, in, out)
        if transposed:
            v = v * g / np.sqrt(np.square(v).sum((1, 2, 3), keepdims=True))
            g = np.sqrt(np.square(v).sum((0, 2, 3)))
        layer.v.assign(v.transpose(axes))
        layer.g.assign(g.reshape(-1))

    start = model.get_layer("start")
    take(start.above, "u_init.conv")
    take(start.row_above, "ul_init.0.conv")
    take(start.left_column, "ul_init.1.conv")
    streams = {"above": "u", "left": "ul"}
    for level in range(SIZES):
        down = SIZES - 1 - level
        for stream, short in streams.items():
            for n in range(blocks):
                key = f"up_layers.{level}.{short}_stream.{n}"
                _take_block(take, model.get_layer(f"up_{level}_{n}_{stream}"), key)
            for n in range(blocks + (level < SIZES - 1)):
                key = f"down_layers.{down}.{short}_stream.{n}"
                _take_block(take, model.get_layer(f"down_{level}_{n}_{stream}"), key)
            if level < SIZES - 1:
                shrink, grow = (
                    model.get_layer(f"{k}_{level}_{stream}") for k in ("shrink", "grow")
                )
                take(shrink, f"downsize_{short}_stream.{level}.conv")
                take(grow, f"upsize_{short}_stream.{SIZES - 2 - level}.deconv", transposed=True)
    take(model.get_layer("head").conv, "nin_out.lin_a")
    state.require_empty()
    return model


def _take_block(take, layer, key):
    take(layer.conv_1, f"{key}.conv_input.conv")
    take(layer.conv_2, f"{key}.conv_out.conv")
    if layer.auxiliary is not None:
        take(layer.auxiliary, f"{key}.nin_skip.lin_a")


def _colours(image_shape):
    return tuple(image_shape)[-1]


def _build(image_shape, num_classes, units, blocks, parameters, dropout, dtype):
    each = 3 if _colours(image_shape) == 1 else 10
    if parameters % each:
        raise ValueError(
            f"Expected a multiple of {each} parameters of a pixel with {_colours(image_shape)} "
            f"colours. Received: {parameters}"
        )
    return PixelCNNPlusPlus(
        image_shape, num_classes, units, blocks, parameters // each, dropout, dtype=dtype
    )


def _in_order(model):
    """Pairs of kind and layer between start and head, as openai/pixel-cnn creates them."""
    for level in range(SIZES):
        for n in range(model.num_blocks):
            for stream in ("above", "left"):
                yield "block", model.get_layer(f"up_{level}_{n}_{stream}")
        if level < SIZES - 1:
            for stream in ("above", "left"):
                yield "shrink", model.get_layer(f"shrink_{level}_{stream}")
    for level in range(SIZES - 1, -1, -1):
        if level < SIZES - 1:
            for stream in ("above", "left"):
                yield "grow", model.get_layer(f"grow_{level}_{stream}")
        for n in range(model.num_blocks + (level < SIZES - 1)):
            for stream in ("above", "left"):
                yield "block", model.get_layer(f"down_{level}_{n}_{stream}")
