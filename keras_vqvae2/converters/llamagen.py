"""LlamaGen's autoregressive transformer: its checkpoints as `TransformerPrior`."""

from collections.abc import Sequence

from keras_vqvae2.converters.checkpoint_files import StateDict
from keras_vqvae2.hints import DTypePolicy, FilePath, Tensor
from keras_vqvae2.models.transformer.transformer_prior import TransformerPrior


def convert_llamagen(
    checkpoint: FilePath | dict[str, Tensor],
    num_heads: int = 12,
    code_shape: Sequence[int] = (16, 16),
    label_dropout: float = 0.1,
    dtype: DTypePolicy = None,
) -> TransformerPrior:
    """Builds the `TransformerPrior` that computes what a class-conditional LlamaGen computes.

    Sizes are read off the checkpoint. Rotations need no weights, so a prior can be made for other
    maps than those it was trained on.

    Args:
        checkpoint: Path of a `.pt`, `.pth` or `.safetensors` file, or its state dict.
        num_heads: Positive integer; the weights do not say. LlamaGen-B has 12, -L 16, -XL 20,
            -XXL 24, -3B 32.
        code_shape: `(rows, columns)` of the codes: `(16, 16)` of its 256x256 models, `(24, 24)` of
            384x384.
        label_dropout: Share of labels that were dropped in training. Its last label then means
            "none"; with 0 all labels are classes.
        dtype: Dtype policy of the model.

    Returns:
        A `TransformerPrior` of the level `top`.

    Raises:
        ValueError: If the checkpoint is not one of that network, keys are missing or left over, or
            the heads do not fit.

    Example:

    ```python
    import keras_vqvae2

    try:
        keras_vqvae2.converters.convert_llamagen({"conv.weight": 0.0})
    except ValueError as error:
        print(error)  # Expected a checkpoint with the keys …
    ```

    Reference:
        - Sun et al. 2024, "Autoregressive Model Beats Diffusion: Llama for Scalable Image
          Generation", arXiv 2406.06525; github.com/FoundationVision/LlamaGen.
    """
    codes, labels = "tok_embeddings.weight", "cls_embedding.embedding_table.weight"
    gate = "layers.0.feed_forward.w1.weight"
    state = StateDict(checkpoint, required=[codes, labels, gate])
    num_embeddings, channels = state.shape(codes, 2)
    num_labels = state.shape(labels, 2)[0]
    feed_forward = state.shape(gate, 2)[0]
    num_layers = state.numbers(r"layers\.(\d+)\.")
    shapes: dict[str, tuple[int, ...]]
    shapes = {labels: (num_labels, channels), "output.weight": (num_embeddings, channels)}
    for i in range(num_layers):
        shapes[f"layers.{i}.attention.wqkv.weight"] = (3 * channels, channels)
        shapes[f"layers.{i}.feed_forward.w1.weight"] = (feed_forward, channels)
    state.require(shapes)
    prior = TransformerPrior(
        code_shape,
        num_embeddings,
        num_classes=num_labels - 1 if label_dropout else num_labels,
        hidden_units=channels,
        num_layers=num_layers,
        num_heads=num_heads,
        feed_forward_units=feed_forward,
        label_dropout=label_dropout,
        dtype=dtype,
    )

    def dense(layer, key):
        layer.kernel.assign(state.take(f"{key}.weight", layer.kernel.shape[::-1]).T)

    def norm(layer, key):
        layer.scale.assign(state.take(f"{key}.weight", layer.scale.shape))

    sequence = prior.get_layer("sequence")
    sequence.codes.embeddings.assign(state.take(codes))
    sequence.labels.embeddings.assign(state.take(labels))
    for i in range(num_layers):
        block, key = prior.get_layer(f"block_{i}"), f"layers.{i}"
        attention = block.attention
        joined = state.take(f"{key}.attention.wqkv.weight").reshape(3, channels, channels)
        for name, kernel in zip(("query", "key", "value"), joined):
            getattr(attention, f"{name}_projection").kernel.assign(kernel.T)
        dense(attention.output_projection, f"{key}.attention.wo")
        dense(block.feed_forward.gate, f"{key}.feed_forward.w1")
        dense(block.feed_forward.up, f"{key}.feed_forward.w3")
        dense(block.feed_forward.down, f"{key}.feed_forward.w2")
        norm(block.attention_norm, f"{key}.attention_norm")
        norm(block.feed_forward_norm, f"{key}.ffn_norm")
    norm(prior.get_layer("norm"), "norm")
    dense(prior.get_layer("logits"), "output")
    state.require_empty()
    return prior
