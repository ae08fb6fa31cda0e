"""The most used PyTorch port of VQ-VAE-2 (stage 1): its checkpoints as `VQVAE2`."""

from collections.abc import Sequence

from keras_vqvae2.converters.checkpoint_files import StateDict
from keras_vqvae2.hints import DTypePolicy, FilePath, Tensor
from keras_vqvae2.models.vqvae2.vqvae2 import VQVAE2


def convert_pytorch_vqvae2(
    checkpoint: FilePath | dict[str, Tensor],
    image_shape: Sequence[int] = (256, 256, 3),
    inplace_relu: bool = False,
    dtype: DTypePolicy = None,
) -> VQVAE2:
    """Builds the `VQVAE2` that computes what a PyTorch checkpoint computes.

    All sizes (channels, residual blocks and units, codes) are read off the checkpoint. The
    network has two levels, halves its maps with 4x4 convolutions, and sees pixels in `[-1, 1]`;
    ours takes `[0, 1]` and scales inside. Its loss is the plain squared error on `[-1, 1]`, hence
    `data_variance=0.25`.

    Args:
        checkpoint: Path of a `.pt`, `.pth` or `.safetensors` file, or its state dict.
        image_shape: `(height, width, channels)` the model is meant for; the weights do not say.
        inplace_relu: Boolean. Checkpoints made before 2021 come from residual blocks whose first
            ReLU worked in place, so that the skip carried `relu(x)`: pass `True` for them.
        dtype: Dtype policy of the model.

    Returns:
        A `VQVAE2`.

    Raises:
        ValueError: If the checkpoint is not one of that network, or keys are missing or left over.

    Example:

    ```python
    import keras_vqvae2

    try:
        keras_vqvae2.converters.convert_pytorch_vqvae2({"conv.weight": 0.0})
    except ValueError as error:
        print(error)  # Expected a checkpoint with the keys …
    ```
    """
    sizes = ["enc_b.blocks.0.weight", "enc_b.blocks.2.weight", "quantize_t.embed"]
    state = StateDict(checkpoint, required=sizes)
    blocks = state.numbers(r"enc_b\.blocks\.(\d+)\.conv\.1\.")
    embedding_dim, num_embeddings = state.shape("quantize_t.embed", 2)
    channels = state.shape("enc_b.blocks.0.weight", 4)[1]
    hidden = state.shape("enc_b.blocks.2.weight", 4)[0]
    # Without residual blocks the number of their units does not matter.
    residual = state.shape("enc_b.blocks.5.conv.1.weight", 4)[0] if blocks else 1
    state.require(
        {
            "enc_b.blocks.4.weight": (hidden, hidden, 3, 3),
            "quantize_conv_b.weight": (embedding_dim, embedding_dim + hidden, 1, 1),
            "quantize_b.embed": (embedding_dim, num_embeddings),
            "upsample_t.weight": (embedding_dim, embedding_dim, 4, 4),
        }
        | {f"enc_b.blocks.{5 + i}.conv.1.weight": (residual, hidden, 3, 3) for i in range(blocks)}
    )
    if channels != image_shape[-1]:
        raise ValueError(
            f"Expected {channels} channels, as in the checkpoint. Received: {image_shape=}"
        )
    model = VQVAE2(
        image_shape=image_shape,
        num_levels=2,
        num_embeddings=num_embeddings,
        embedding_dim=embedding_dim,
        hidden_units=hidden,
        residual_units=residual,
        residual_blocks=blocks,
        downsample_kernel_size=4,
        data_variance=0.25,
        rectified_skip=inplace_relu,
        dtype=dtype,
    )
    _Loader(model, state).run()
    return model


class _Loader:
    """Moves arrays out of a state dict into the layers of a model."""

    def __init__(self, model, state):
        self.model = model
        self.state = state

    def run(self):
        layer = self.model.get_layer
        self.encoder(layer("encoder_bottom"), "enc_b.blocks")
        self.encoder(layer("encoder_top"), "enc_t.blocks")
        self.conv(layer("to_vectors_top"), "quantize_conv_t")
        self.conv(layer("to_vectors_bottom"), "quantize_conv_b")
        self.decoder(layer("conditioner_bottom"), "dec_t.blocks")
        self.conv(layer("upsampler_bottom"), "upsample_t")
        self.decoder(layer("pixel_decoder"), "dec.blocks")
        self.codebook(layer("quantizer_top"), "quantize_t")
        self.codebook(layer("quantizer_bottom"), "quantize_b")
        self.state.require_empty()

    def conv(self, layer, key):
        # Ours (rows, columns, in, out), theirs (out, in, rows, columns); transposed
        # convolutions swap in and out in both.
        kernel = layer.kernel.shape
        shape = (kernel[3], kernel[2], kernel[0], kernel[1])
        layer.kernel.assign(self.state.take(f"{key}.weight", shape).transpose(2, 3, 1, 0))
        layer.bias.assign(self.state.take(f"{key}.bias", layer.bias.shape))

    def residual_stack(self, stack, key, first):
        for i, (wide, back) in enumerate(stack.blocks):
            self.conv(wide, f"{key}.{first + i}.conv.1")
            self.conv(back, f"{key}.{first + i}.conv.3")

    def encoder(self, encoder, key):
        # Positions in their list: strided convolutions with a ReLU after each, then the rest.
        for i, layer in enumerate(encoder.strided):
            self.conv(layer, f"{key}.{2 * i}")
        after = 2 * len(encoder.strided)
        self.conv(encoder.conv, f"{key}.{after}")
        self.residual_stack(encoder.residual_stack, key, after + 1)

    def decoder(self, decoder, key):
        self.conv(decoder.conv, f"{key}.0")
        self.residual_stack(decoder.residual_stack, key, 1)
        after = 2 + len(decoder.residual_stack.blocks)  # past the closing ReLU
        for i, layer in enumerate(decoder.strided):
            self.conv(layer, f"{key}.{after + 2 * i}")

    def codebook(self, quantizer, key):
        codes, dim = quantizer.num_embeddings, quantizer.embedding_dim
        quantizer.set_codebook(self.state.take(f"{key}.embed", (dim, codes)).T)
        # Their running statistics start at zero and are not carried over: codes start at count 1.
        self.state.arrays.pop(f"{key}.cluster_size", None)
        self.state.arrays.pop(f"{key}.embed_avg", None)
