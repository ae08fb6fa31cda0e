"""The most used PyTorch port of VQ-VAE-2 (stage 2): its PixelSNAIL checkpoints as priors."""

from typing import Any

import numpy as np

from keras_vqvae2.converters.checkpoint_files import StateDict
from keras_vqvae2.hints import DTypePolicy, FilePath, Tensor
from keras_vqvae2.models.pixelsnail.pixelsnail_prior import PixelSnailPrior


def convert_pytorch_pixelsnail(
    checkpoint: FilePath | dict[str, Tensor],
    attention_heads: int = 8,
    dropout: float = 0.1,
    dtype: DTypePolicy = None,
) -> PixelSnailPrior:
    """Builds the `PixelSnailPrior` that computes what a PyTorch checkpoint computes.

    Sizes are read off the checkpoint. One with a conditioning network becomes the prior of the
    level `bottom` given a `top` of half its size, one without the prior of the level `top`; neither
    has labels. Weight normalisation is folded into the kernels.

    The network masks a position itself in every block, and its attention sees what enters the
    block, not the codes: it has a blind spot where it has no attention (see
    `PixelSnailPrior(row_context=...)`), and is converted as it is.

    Args:
        checkpoint: Path of a `.pt`, `.pth` or `.safetensors` file, or its state dict.
        attention_heads: Positive integer; the weights do not say. The port has 8.
        dropout: Float in `[0, 1)`, for further training.
        dtype: Dtype policy of the model.

    Returns:
        A `PixelSnailPrior`.

    Raises:
        ValueError: If the checkpoint is not one of that network, or keys are missing or left over.

    Example:

    ```python
    import keras_vqvae2

    try:
        keras_vqvae2.converters.convert_pytorch_pixelsnail({"conv.weight": 0.0})
    except ValueError as error:
        print(error)  # Expected a checkpoint with the keys …
    ```
    """
    first = "horizontal.conv.conv.weight_v"
    block = "blocks.0.resblocks.0.conv1.conv.conv.weight_v"
    state = StateDict(checkpoint, required=["background", first, block])
    channels, num_embeddings, _, first_kernel = state.shape(first, 4)
    residual_units, _, rows, columns = state.shape(block, 4)
    num_blocks = state.numbers(r"blocks\.(\d+)\.")
    block_layers = state.numbers(r"blocks\.(\d+\.resblocks\.\d+)\.") // num_blocks
    output_blocks = state.numbers(r"out\.(\d+)\.conv1\.")
    attends = "blocks.0.causal_attention.query.weight_v" in state.arrays
    sizes: dict[str, tuple[int, ...]]
    sizes = {f"out.{output_blocks + 1}.conv.weight_v": (num_embeddings, channels, 1, 1)}
    for i in range(num_blocks):
        for j in range(block_layers):
            key = f"blocks.{i}.resblocks.{j}.conv1.conv.conv.weight_v"
            sizes[key] = (residual_units, channels, rows, columns)
        if attends:
            sizes[f"blocks.{i}.causal_attention.query.weight_v"] = (channels // 2, channels + 2)
        else:
            sizes[f"blocks.{i}.out.conv.weight_v"] = (channels, channels + 2, 1, 1)
    for i in range(output_blocks):
        sizes[f"out.{i}.conv1.conv.weight_v"] = (residual_units, channels, 1, 1)
    condition: dict[str, Any] = {}
    condition_conv = "cond_resnet.blocks.0.conv.weight_v"
    if condition_conv in state.arrays:
        units, _, kernel, _ = state.shape(condition_conv, 4)
        condition = {
            "level": "bottom",
            "condition_factors": {"top": 2},
            "condition_units": units,
            "condition_residual_units": units,
            "condition_blocks": state.numbers(r"cond_resnet\.blocks\.(\d+)\.conv1\."),
            "condition_kernel_size": kernel,
        }
        sizes[condition_conv] = (units, num_embeddings, kernel, kernel)
        for i in range(condition["condition_blocks"]):
            key = f"cond_resnet.blocks.{i + 1}.conv1.conv.weight_v"
            sizes[key] = (units, units, kernel, kernel)
    state.require(sizes)
    prior = PixelSnailPrior(
        code_shape=state.shape("background", 4)[2:],
        num_embeddings=num_embeddings,
        hidden_units=channels,
        residual_units=residual_units,
        num_blocks=num_blocks,
        block_layers=block_layers,
        # Their kernels reach as many rows up as they are high: ours are centred.
        kernel_size=(2 * rows - 1, columns),
        first_kernel_size=first_kernel,
        mask_type="A",
        attention_heads=attention_heads if attends else 0,
        attention_units=channels // 2,
        attend_to_codes=False,
        row_context=False,
        output_blocks=output_blocks,
        dropout=dropout,
        dtype=dtype,
        **condition,
    )
    _Loader(prior, state).run()
    return prior


class _Loader:
    """Moves arrays out of a state dict into the layers of a prior."""

    def __init__(self, prior, state):
        self.prior = prior
        self.state = state

    def run(self):
        self.state.take("background")
        self.first(self.prior.get_layer("first"))
        for i in range(self.prior.num_blocks):
            self.block(self.prior.get_layer(f"block_{i}"), f"blocks.{i}")
        if self.prior.condition_factors:
            stack = self.prior.get_layer("conditioner_top")
            self.conv(stack.conv, "cond_resnet.blocks.0.conv")
            for i, block in enumerate(stack.blocks):
                self.gated(block, f"cond_resnet.blocks.{i + 1}")
        stack = self.prior.get_layer("output_stack")
        for i, block in enumerate(stack.blocks):
            self.gated(block, f"out.{i}")
        self.conv(stack.logits, f"out.{len(stack.blocks) + 1}.conv")
        self.state.require_empty()

    def normalised(self, key, shape, causal=False):
        """A kernel `g * v / |v|`, `(out, in, rows, columns)` or `(out, in)`."""
        v = self.state.take(f"{key}.weight_v", shape)
        g = self.state.take(f"{key}.weight_g", (shape[0], *(1 for _ in shape[1:])))
        if causal:
            v[:, :, -1, v.shape[3] // 2 :] = 0.0
        with np.errstate(all="ignore"):
            norm = np.sqrt((v**2).sum(axis=tuple(range(1, v.ndim)), keepdims=True))
            kernel = g * v / norm
        if not np.isfinite(kernel).all():
            raise ValueError(f"Expected {key!r} to have directions. Received: zeros or overflow")
        return kernel

    def first(self, layer):
        # Rows above, and columns to the left: two kernels of one-hot codes that ours holds as one.
        rows, columns = layer.rows_above, layer.reach
        height, width, codes, units = layer.kernel.shape
        above = self.normalised("horizontal.conv.conv", (units, codes, rows, width))
        left = self.normalised("vertical.conv.conv", (units, codes, height, columns))
        kernel = np.zeros(layer.kernel.shape, "float32")
        kernel[:rows] += above.transpose(2, 3, 1, 0)
        kernel[:, :columns] += left.transpose(2, 3, 1, 0)
        # One has no bias in the first row, the other none in the first column: just where the tap
        # above, or to the left, lies outside and adds nothing.
        kernel[rows - 1, columns] += self.state.take("horizontal.conv.conv.bias", (units,))
        kernel[rows, columns - 1] += self.state.take("vertical.conv.conv.bias", (units,))
        layer.kernel.assign(kernel)

    def conv(self, layer, key, causal=False):
        rows, columns, inputs, outputs = layer.kernel.shape
        kernel = self.normalised(key, (outputs, inputs, rows, columns), causal)
        layer.kernel.assign(kernel.transpose(2, 3, 1, 0))
        layer.bias.assign(self.state.take(f"{key}.bias", layer.bias.shape))

    def gated(self, block, key, causal=False):
        for i, conv in enumerate((block.conv_1, block.conv_2), 1):
            self.conv(conv, f"{key}.conv{i}.conv" + (".conv" if causal else ""), causal)
        if block.auxiliary_projection is not None:
            self.conv(block.auxiliary_projection, f"{key}.aux_conv.conv")
        if block.condition_projection is not None:
            dense = block.condition_projection
            inputs, outputs = dense.kernel.shape
            kernel = self.normalised(f"{key}.condition.conv", (outputs, inputs, 1, 1))
            dense.kernel.assign(kernel[:, :, 0, 0].T)

    def block(self, block, key):
        for i, layer in enumerate(block.layers):
            self.gated(layer, f"{key}.resblocks.{i}", causal=True)
        if not block.attention_heads:
            self.conv(block.gather, f"{key}.out.conv")
            return
        self.gated(block.key_block, f"{key}.key_resblock")
        self.gated(block.query_block, f"{key}.query_resblock")
        self.gated(block.out_block, f"{key}.out_resblock")
        for name in ("query", "key", "value"):
            dense = getattr(block.attention, f"{name}_projection")
            kernel = self.normalised(f"{key}.causal_attention.{name}", dense.kernel.shape[::-1])
            dense.kernel.assign(kernel.T)
            dense.bias.assign(
                self.state.take(f"{key}.causal_attention.{name}.bias", dense.bias.shape)
            )
