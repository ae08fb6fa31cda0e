"""Tokenizers of VQGAN's architecture: taming-transformers' and LlamaGen's, as `VQGAN`."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from keras_vqvae2.converters.checkpoint_files import StateDict
from keras_vqvae2.hints import DTypePolicy, FilePath, Tensor
from keras_vqvae2.layers import GumbelVectorQuantizer, VectorQuantizer
from keras_vqvae2.models.vqgan.vqgan import VQGAN
from keras_vqvae2.models.vqgan.vqgan_layers import AttentionBlock, ResnetBlock


class _Names(NamedTuple):
    """Where a project keeps its layers. A stage is what has one size of the map, 0 the largest."""

    down: str
    up: str
    up_number: Callable[[int, int], int]  # of stage i of n in the decoder
    block: str
    middle: tuple[str, str, str]


_TAMING = _Names(
    "encoder.down", "decoder.up", lambda i, n: i, "block", ("block_1", "attn_1", "block_2")
)
_LLAMAGEN = _Names(
    "encoder.conv_blocks",
    "decoder.conv_blocks",
    lambda i, n: n - 1 - i,  # in the order of their use
    "res",
    ("0", "1", "2"),
)


def convert_taming_vqgan(
    checkpoint: FilePath | dict[str, Tensor],
    image_shape: Sequence[int] = (256, 256, 3),
    dtype: DTypePolicy = None,
) -> VQGAN:
    """Builds the `VQGAN` that computes what a VQGAN of taming-transformers computes.

    All sizes are read off the checkpoint. The weights of the loss (LPIPS and the discriminator,
    `loss.…`) are left out. The network sees pixels in `[-1, 1]`; ours takes `[0, 1]` and scales
    inside. Of a model that draws codes with Gumbel noise the quantizer is a
    `GumbelVectorQuantizer`, which takes the most probable code where theirs draws one.

    Args:
        checkpoint: Path of a `.ckpt`, `.pt`, `.pth` or `.safetensors` file, or its state dict.
        image_shape: `(height, width, channels)` the model is meant for; the weights do not say.
        dtype: Dtype policy of the model.

    Returns:
        A `VQGAN`. Its codes do not move onto vectors of a batch while it is trained further.

    Raises:
        ValueError: If the checkpoint is not one of that network, keys are missing or left over, or
            sizes do not fit.

    Example:

    ```python
    import keras_vqvae2

    try:
        keras_vqvae2.converters.convert_taming_vqgan({"conv.weight": 0.0})
    except ValueError as error:
        print(error)  # Expected a checkpoint with the keys …
    ```

    Reference:
        - Esser, Rombach, Ommer 2021, "Taming Transformers for High-Resolution Image Synthesis",
          arXiv 2012.09841; github.com/CompVis/taming-transformers.
    """
    return _convert(checkpoint, _TAMING, "euclidean", image_shape, dtype)


def convert_llamagen_tokenizer(
    checkpoint: FilePath | dict[str, Tensor],
    image_shape: Sequence[int] = (256, 256, 3),
    dtype: DTypePolicy = None,
) -> VQGAN:
    """Builds the `VQGAN` that computes what a tokenizer of LlamaGen computes: VQ-16 or VQ-8.

    All sizes are read off the checkpoint. Codes and vectors are compared on the unit sphere. The
    network sees pixels in `[-1, 1]`; ours takes `[0, 1]` and scales inside.

    Args:
        checkpoint: Path of a `.pt`, `.pth` or `.safetensors` file, or its state dict. Of a training
            run with averaged weights the file's `"model"` is read; its `"ema"` is a state dict.
        image_shape: `(height, width, channels)` the model is meant for; the weights do not say.
        dtype: Dtype policy of the model.

    Returns:
        A `VQGAN`. Its codes do not move onto vectors of a batch while it is trained further.

    Raises:
        ValueError: As `convert_taming_vqgan`.

    Example:

    ```python
    import keras_vqvae2

    try:
        keras_vqvae2.converters.convert_llamagen_tokenizer({"conv.weight": 0.0})
    except ValueError as error:
        print(error)  # Expected a checkpoint with the keys …
    ```

    Reference:
        - Sun et al. 2024, "Autoregressive Model Beats Diffusion: Llama for Scalable Image
          Generation", arXiv 2406.06525, section 2.2; github.com/FoundationVision/LlamaGen.
    """
    return _convert(checkpoint, _LLAMAGEN, "cosine", image_shape, dtype)


def _convert(checkpoint, names, similarity, image_shape, dtype):
    first, block = "encoder.conv_in.weight", f"{names.down}.0.{names.block}.0.conv1.weight"
    state = StateDict(checkpoint, [first, block])
    drawn = "quantize.proj.weight" in state.arrays
    codes = "quantize.embed.weight" if drawn else "quantize.embedding.weight"
    for key in list(state.arrays):
        # No part of the network: the loss, and the codes that were last in use.
        if key.startswith("loss.") or key == "quantize.codebook_used":
            del state.arrays[key]
    num_embeddings, embedding_dim = state.shape(codes, 2)
    hidden_units, channels = state.shape(first, 4)[:2]
    latent_channels = state.shape("encoder.conv_out.weight", 4)[0]
    stages = state.numbers(rf"{names.down}\.(\d+)\.")
    blocks = state.numbers(rf"{names.down}\.0\.{names.block}\.(\d+)\.")
    filters = [
        state.shape(f"{names.down}.{i}.{names.block}.0.conv1.weight", 4)[0] for i in range(stages)
    ]
    if channels != image_shape[-1] or any(f % hidden_units for f in filters):
        raise ValueError(
            f"Expected images of {channels} channels, and multiples of {hidden_units} channels "
            f"inside, as in the checkpoint. Received: image_shape={tuple(image_shape)}, and "
            f"{filters} channels inside"
        )
    shapes = {"quant_conv.weight": (embedding_dim, latent_channels, 1, 1)}
    for i, number in enumerate(filters):
        up = f"{names.up}.{names.up_number(i, stages)}"
        for key, count in ((f"{names.down}.{i}", blocks), (up, blocks + 1)):
            for j in range(count):
                shapes[f"{key}.{names.block}.{j}.conv2.weight"] = (number, number, 3, 3)
    state.require(shapes)
    attention = [i for i in range(stages) if f"{names.down}.{i}.attn.0.q.weight" in state.arrays]
    model = VQGAN(
        image_shape,
        hidden_units=hidden_units,
        channel_multipliers=[number // hidden_units for number in filters],
        residual_blocks=blocks,
        attention_factors=[2**i for i in attention],
        latent_channels=latent_channels,
        quantizer=GumbelVectorQuantizer(num_embeddings, embedding_dim)
        if drawn
        else VectorQuantizer(
            num_embeddings, embedding_dim, similarity=similarity, restart_threshold=0.0
        ),
        dtype=dtype,
    )
    encoder, decoder = (model.get_layer(name) for name in ("encoder_bottom", "pixel_decoder"))
    for side, chain in (("encoder", encoder.chain), ("decoder", decoder.chain)):
        places = _places(names, side, stages, blocks)
        for layer in chain:
            if layer.weights:
                _take(layer, places[layer.name], state)
    _take(model.get_layer("to_vectors_bottom"), "quant_conv", state)
    quantizer = model.quantizers["bottom"]
    if drawn:
        logits = state.take("quantize.proj.weight", (num_embeddings, embedding_dim, 1, 1))
        quantizer.kernel.assign(logits[..., 0, 0].T)
        quantizer.bias.assign(state.take("quantize.proj.bias", (num_embeddings,)))
        quantizer.embeddings.assign(state.take(codes))
    else:
        quantizer.set_codebook(state.take(codes))
    state.require_empty()
    return model


def _places(names, side, stages, blocks):
    """Dict from the names of our layers to those of theirs."""
    places = {name: f"{side}.{name}" for name in ("conv_in", "norm_out", "conv_out")}
    places["from_vectors"] = "post_quant_conv"
    for ours, theirs in zip(("block_0", "attention", "block_1"), names.middle):
        places[f"middle_{ours}"] = f"{side}.mid.{theirs}"
    for i in range(stages):
        down = side == "encoder"
        key = f"{names.down}.{i}" if down else f"{names.up}.{names.up_number(i, stages)}"
        for step in ("downsample", "upsample"):
            places[f"{i}_{step}"] = f"{key}.{step}.conv"
        for j in range(blocks + 1):
            places[f"{i}_block_{j}"] = f"{key}.{names.block}.{j}"
            places[f"{i}_attention_{j}"] = f"{key}.attn.{j}"
    return places


def _take(layer, key, state):
    """Moves arrays out of the state into a layer, or into the layers of a block."""
    if isinstance(layer, ResnetBlock):
        for i in (1, 2):
            _take(getattr(layer, f"norm_{i}"), f"{key}.norm{i}", state)
            _take(getattr(layer, f"conv_{i}"), f"{key}.conv{i}", state)
        if layer.shortcut is not None:
            _take(layer.shortcut, f"{key}.nin_shortcut", state)
    elif isinstance(layer, AttentionBlock):
        _take(layer.norm, f"{key}.norm", state)
        attention = layer.attention
        projections = ("query", "key", "value", "output")
        for ours, theirs in zip(projections, ("q", "k", "v", "proj_out")):
            _take(getattr(attention, f"{ours}_projection"), f"{key}.{theirs}", state)
    elif hasattr(layer, "gamma"):
        layer.gamma.assign(state.take(f"{key}.weight", layer.gamma.shape))
        layer.beta.assign(state.take(f"{key}.bias", layer.beta.shape))
    else:
        # Theirs (out, in, rows, columns), ours (rows, columns, in, out), or (in, out) where
        # attention projects.
        kernel = layer.kernel.shape
        rows, columns, inputs, outputs = kernel if len(kernel) == 4 else (1, 1, *kernel)
        weight = state.take(f"{key}.weight", (outputs, inputs, rows, columns))
        layer.kernel.assign(weight.transpose(2, 3, 1, 0).reshape(kernel))
        layer.bias.assign(state.take(f"{key}.bias", layer.bias.shape))
