"""The most used PyTorch port of VQ-VAE (2017): its prior's checkpoints as `GatedPixelCNNPrior`."""

from collections.abc import Sequence

import numpy as np

from keras_vqvae2.converters.checkpoint_files import StateDict
from keras_vqvae2.hints import DTypePolicy, FilePath, Tensor
from keras_vqvae2.models.gated_pixelcnn.gated_pixelcnn_prior import GatedPixelCNNPrior


def convert_pytorch_gated_pixelcnn(
    checkpoint: FilePath | dict[str, Tensor],
    code_shape: Sequence[int] = (8, 8),
    level: str = "top",
    dtype: DTypePolicy = None,
) -> GatedPixelCNNPrior:
    """Builds the `GatedPixelCNNPrior` that computes what ritheshkumar95/pytorch-vqvae's prior does.

    Sizes are read off the checkpoint, but for that of the maps, on which no weight depends.

    Args:
        checkpoint: Path of a `.pt`, `.pth` or `.safetensors` file, or its state dict.
        code_shape: `(rows, columns)` of the codes.
        level: Name of the level.
        dtype: Dtype policy of the model.

    Returns:
        A `GatedPixelCNNPrior`.

    Raises:
        ValueError: If the checkpoint is not one of that network, or keys are missing or left over.

    Example:

    ```python
    import keras_vqvae2

    try:
        keras_vqvae2.converters.convert_pytorch_gated_pixelcnn({"conv.weight": 0.0})
    except ValueError as error:
        print(error)  # Expected a checkpoint with the keys …
    ```

    Reference:
        - van den Oord et al. 2016, arXiv 1606.05328; github.com/ritheshkumar95/pytorch-vqvae.
    """
    table, first = "embedding.weight", "layers.0.vert_stack.weight"
    classes = "layers.0.class_cond_embedding.weight"
    hidden, logits = "output_conv.0.weight", "output_conv.2.weight"
    state = StateDict(checkpoint, required=[table, first, classes, hidden, logits])
    num_embeddings, units = state.shape(table, 2)
    num_layers = state.numbers(r"layers\.(\d+)\.")
    head_units = state.shape(hidden, 4)[0]
    sizes = [state.shape(f"layers.{i}.vert_stack.weight", 4)[3] for i in range(num_layers)]
    num_classes = state.shape(classes, 2)[0]
    kernel_size = sizes[-1]
    shapes: dict[str, tuple[int, ...]] = {
        hidden: (head_units, units, 1, 1),
        logits: (num_embeddings, head_units, 1, 1),
    }
    for i, size in enumerate([sizes[0], *(kernel_size for _ in sizes[1:])]):
        shapes[f"layers.{i}.vert_stack.weight"] = (2 * units, units, size // 2 + 1, size)
        shapes[f"layers.{i}.horiz_stack.weight"] = (2 * units, units, 1, size // 2 + 1)
        shapes[f"layers.{i}.class_cond_embedding.weight"] = (num_classes, 2 * units)
    state.require(shapes)
    prior = GatedPixelCNNPrior(
        code_shape,
        num_embeddings,
        level,
        num_classes=num_classes,
        hidden_units=units,
        num_layers=num_layers,
        kernel_size=kernel_size,
        first_kernel_size=sizes[0],
        head_units=head_units,
        dtype=dtype,
    )

    def kernel(key):
        return state.take(f"{key}.weight").transpose(2, 3, 1, 0)  # (rows, columns, in, out)

    def dense(layer, key):
        layer.kernel.assign(np.reshape(kernel(key), layer.kernel.shape))
        layer.bias.assign(state.take(f"{key}.bias"))

    prior.get_layer("embedding").embeddings.assign(state.take(table))
    for i in range(num_layers):
        layer, key = prior.get_layer(f"layer_{i}"), f"layers.{i}"
        # The first layer of the port stores taps that it keeps at zero: the row itself.
        vertical = kernel(f"{key}.vert_stack")[: layer.vertical.rows]
        layer.vertical.kernel.assign(vertical)
        layer.vertical.bias.assign(state.take(f"{key}.vert_stack.bias"))
        dense(layer.horizontal, f"{key}.horiz_stack")
        dense(layer.to_horizontal, f"{key}.vert_to_horiz")
        dense(layer.output_conv, f"{key}.horiz_resid")
        layer.label_table.assign(state.take(f"{key}.class_cond_embedding.weight"))
    head = prior.get_layer("head")
    dense(head.convs[0], "output_conv.0")
    dense(head.convs[1], "output_conv.2")
    state.require_empty()
    return prior
