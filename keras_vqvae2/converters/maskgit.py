"""MaskGIT's transformer: its parameters as `MaskedTransformerPrior`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from keras_vqvae2.converters.checkpoint_files import StateDict, read_state_dict
from keras_vqvae2.hints import DTypePolicy, FilePath
from keras_vqvae2.models.masked_transformer.masked_transformer_prior import MaskedTransformerPrior

PREFIX = "params/"


def convert_maskgit(
    checkpoint: FilePath | Mapping[str, Any],
    num_classes: int | None = 1000,
    code_shape: Sequence[int] | None = None,
    dtype: DTypePolicy = None,
) -> MaskedTransformerPrior:
    """Builds the `MaskedTransformerPrior` that computes what a MaskGIT transformer computes.

    Sizes are read off the checkpoint. Its vocabulary is codes, classes, `[MASK]`, so the number of
    classes says how many codes there are; logits of words that are no codes are left out.

    Args:
        checkpoint: The parameters, a dict as Flax has it: nested, or flat with keys such as
            `"params/Embed_0/word_embeddings/embedding"`; or a `.safetensors` file of the latter.
            Of a Flax checkpoint file, `flax.training.checkpoints.restore_checkpoint` makes one.
        num_classes: The number of labels, None for a model without. 1000 (ImageNet).
        code_shape: `(rows, columns)`, by default a square of the positions there are.
        dtype: Dtype policy of the model.

    Returns:
        A `MaskedTransformerPrior` of the level `top`, with `post_norm`.

    Raises:
        ValueError: If the parameters are not those of that network, some are missing or left over,
            or classes and positions do not fit.

    Example:

    ```python
    import keras_vqvae2

    try:
        keras_vqvae2.converters.convert_maskgit({"params": {"kernel": 0.0}})
    except ValueError as error:
        print(error)  # Expected a checkpoint with the keys …
    ```

    Reference:
        - Chang et al. 2022, "MaskGIT: Masked Generative Image Transformer", arXiv 2202.04200;
          github.com/google-research/maskgit.
    """
    if isinstance(checkpoint, Mapping):
        arrays = dict(_flat(checkpoint))
    else:
        arrays = read_state_dict(checkpoint)
    arrays = {
        key.removeprefix(PREFIX) if isinstance(key, str) else key: value
        for key, value in arrays.items()
    }
    words, positions = (f"Embed_0/{name}_embeddings/embedding" for name in ("word", "position"))
    query = "TransformerLayer_0/Attention_0/self_attention/query/kernel"
    up = "TransformerLayer_0/Mlp_0/intermediate_output/kernel"
    state = StateDict(arrays, required=[words, positions, query, up])
    vocabulary, channels = state.shape(words, 2)
    heads = state.shape(query, 3)[1:]
    feed_forward = state.shape(up, 2)[1]
    num_layers = state.numbers(r"TransformerLayer_(\d+)/")
    tokens = state.shape(positions, 2)[0]
    length = tokens - (num_classes is not None)
    if code_shape is None:
        code_shape = (math.isqrt(length),) * 2
    num_embeddings = vocabulary - 1 - (num_classes or 0)
    fits = math.prod(code_shape) == length and math.prod(heads) == channels
    if num_embeddings < 1 or not fits:
        raise ValueError(
            f"Expected classes and a map for {vocabulary} words (codes, classes and a mask) and "
            f"{tokens} tokens (positions, and one if there are classes). "
            f"Received: num_classes={num_classes}, code_shape={tuple(code_shape)}"
        )
    shapes: dict[str, tuple[int, ...]] = {"MlmLayer_0/mlm_bias/bias": (vocabulary,)}
    for i in range(num_layers):
        key = f"TransformerLayer_{i}"
        shapes[f"{key}/Attention_0/self_attention/query/kernel"] = (channels, *heads)
        shapes[f"{key}/Mlp_0/intermediate_output/kernel"] = (channels, feed_forward)
    state.require(shapes)
    prior = MaskedTransformerPrior(
        code_shape,
        num_embeddings,
        num_classes=num_classes,
        hidden_units=channels,
        num_layers=num_layers,
        num_heads=heads[0],
        feed_forward_units=feed_forward,
        post_norm=True,
        dtype=dtype,
    )

    def dense(layer, key, inputs=None, outputs=None):
        # Heads and their channels may have axes of their own.
        inputs, outputs = inputs or layer.kernel.shape[:1], outputs or layer.kernel.shape[1:]
        kernel = state.take(f"{key}/kernel", (*inputs, *outputs))
        layer.kernel.assign(kernel.reshape(layer.kernel.shape))
        layer.bias.assign(state.take(f"{key}/bias", outputs).reshape(layer.bias.shape))

    def norm(layer, key):
        layer.gamma.assign(state.take(f"{key}/scale", layer.gamma.shape))
        layer.beta.assign(state.take(f"{key}/bias", layer.beta.shape))

    start = prior.get_layer("start")
    prior.get_layer("words").embeddings.assign(state.take(words))
    start.positions.assign(state.take(positions, start.positions.shape))
    norm(start.norm, "Embed_0/embeddings_ln")
    for i in range(num_layers):
        block, key = prior.get_layer(f"block_{i}"), f"TransformerLayer_{i}"
        key_of = f"{key}/Attention_0/self_attention"
        for name in ("query", "key", "value"):
            dense(getattr(block.attention, f"{name}_projection"), f"{key_of}/{name}", None, heads)
        dense(block.attention.output_projection, f"{key_of}/out", heads)
        norm(block.attention_norm, f"{key}/Attention_0/attention_output_ln")
        dense(block.up, f"{key}/Mlp_0/intermediate_output")
        dense(block.down, f"{key}/Mlp_0/layer_output")
        norm(block.feed_forward_norm, f"{key}/Mlp_0/layer_output_ln")
    dense(prior.get_layer("head"), "MlmLayer_0/mlm_dense")
    norm(prior.get_layer("norm"), "MlmLayer_0/mlm_ln")
    prior.get_layer("logits").bias.assign(state.take("MlmLayer_0/mlm_bias/bias", (vocabulary,)))
    state.require_empty()
    return prior


def _flat(tree, path=""):
    """Pairs of keys, joined by `/`, and values of nested dicts."""
    for key, value in tree.items():
        key = f"{path}{key}" if path or isinstance(key, str) else key
        if isinstance(value, Mapping):
            yield from _flat(value, f"{key}/")
        else:
            yield key, value
