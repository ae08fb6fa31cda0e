import functools

import numpy as np
import pytest
from keras import ops

from keras_vqvae2 import VQGAN, VQVAE2
from keras_vqvae2.converters import convert_llamagen_tokenizer, convert_taming_vqgan

torch = pytest.importorskip("torch")
F = torch.nn.functional


class Original:
    """The published networks on PyTorch, of which each weight is drawn when it is first used."""

    stages, blocks, latent, codes = (32, 32, 64), 1, 16, 24

    def __init__(self):
        self.state = {}
        self.generator = torch.Generator().manual_seed(0)

    def weight(self, key, *shape, scale=1.0, mean=0.0):
        if key not in self.state:
            self.state[key] = mean + scale * torch.randn(shape, generator=self.generator)
        return self.state[key]

    def conv(self, x, key, channels, size=3, stride=1):
        inputs = x.shape[1]
        scale = (inputs * size**2) ** -0.5
        kernel = self.weight(f"{key}.weight", channels, inputs, size, size, scale=scale)
        bias = self.weight(f"{key}.bias", channels, scale=0.1)
        if stride == 2:
            return F.conv2d(F.pad(x, (0, 1, 0, 1)), kernel, bias, stride=2)
        return F.conv2d(x, kernel, bias, padding=size // 2)

    def norm(self, x, key):
        scale = self.weight(f"{key}.weight", x.shape[1], scale=0.1, mean=1.0)
        bias = self.weight(f"{key}.bias", x.shape[1], scale=0.1)
        return F.group_norm(x, 32, scale, bias, eps=1e-6)

    def block(self, x, key, channels):
        y = self.conv(F.silu(self.norm(x, f"{key}.norm1")), f"{key}.conv1", channels)
        y = self.conv(F.silu(self.norm(y, f"{key}.norm2")), f"{key}.conv2", channels)
        if x.shape[1] != channels:
            x = self.conv(x, f"{key}.nin_shortcut", channels, 1)
        return x + y

    def attend(self, x, key):
        y, channels = self.norm(x, f"{key}.norm"), x.shape[1]
        q, k, v = (self.conv(y, f"{key}.{name}", channels, 1).flatten(2) for name in "qkv")
        shares = torch.softmax(q.mT @ k * channels**-0.5, dim=-1)
        y = (v @ shares.mT).reshape(x.shape)
        return x + self.conv(y, f"{key}.proj_out", channels, 1)

    def middle(self, x, side):
        first, attention, second = self.in_the_middle
        x = self.block(x, f"{side}.mid.{first}", x.shape[1])
        x = self.attend(x, f"{side}.mid.{attention}")
        return self.block(x, f"{side}.mid.{second}", x.shape[1])

    def stage(self, x, key, i, blocks):
        for j in range(blocks):
            x = self.block(x, f"{key}.{self.block_name}.{j}", self.stages[i])
            if i in self.attention:
                x = self.attend(x, f"{key}.attn.{j}")
        return x

    def end(self, x, side, channels):
        return self.conv(F.silu(self.norm(x, f"{side}.norm_out")), f"{side}.conv_out", channels)

    def vectors(self, images):
        x = self.conv(images, "encoder.conv_in", self.stages[0])
        for i in range(len(self.stages)):
            x = self.stage(x, self.encoder_stage(i), i, self.blocks)
            if i + 1 < len(self.stages):
                key = f"{self.encoder_stage(i)}.downsample.conv"
                x = self.conv(x, key, self.stages[i], stride=2)
        x = self.end(self.middle(x, "encoder"), "encoder", self.latent)
        return self.conv(x, "quant_conv", self.width, 1)

    def quantize(self, vectors):
        codebook = self.weight("quantize.embedding.weight", self.codes, self.width)
        vectors, codebook = self.normalize(vectors.movedim(1, -1)), self.normalize(codebook)
        codes = torch.cdist(vectors.reshape(1, -1, self.width), codebook[None]).argmin(-1)
        codes = codes.reshape(vectors.shape[:-1])
        return codes, codebook[codes].movedim(-1, 1)

    def images(self, quantized):
        x = self.conv(quantized, "post_quant_conv", self.latent, 1)
        x = self.middle(self.conv(x, "decoder.conv_in", self.stages[-1]), "decoder")
        for i in reversed(range(len(self.stages))):
            x = self.stage(x, self.decoder_stage(i), i, self.blocks + 1)
            if i > 0:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
                x = self.conv(x, f"{self.decoder_stage(i)}.upsample.conv", self.stages[i])
        return self.end(x, "decoder", 3)


class Taming(Original):
    width, attention = 16, (1, 2)
    block_name, in_the_middle = "block", ("block_1", "attn_1", "block_2")
    convert = staticmethod(convert_taming_vqgan)
    similarity = "euclidean"

    def encoder_stage(self, i):
        return f"encoder.down.{i}"

    def decoder_stage(self, i):
        return f"decoder.up.{i}"

    def normalize(self, x):
        return x


class LlamaGen(Original):
    width, attention = 8, (2,)
    block_name, in_the_middle = "res", (0, 1, 2)
    convert = staticmethod(convert_llamagen_tokenizer)
    similarity = "cosine"

    def encoder_stage(self, i):
        return f"encoder.conv_blocks.{i}"

    def decoder_stage(self, i):
        return f"decoder.conv_blocks.{len(self.stages) - 1 - i}"

    def normalize(self, x):
        return F.normalize(x, dim=-1)


IMAGES = np.random.default_rng(0).uniform(size=(2, 8, 12, 3)).astype("float32")


@functools.cache
def of_original(cls):
    """The network, and what it makes of the images: vectors, codes, reconstruction."""
    original = cls()
    with torch.no_grad():
        vectors = original.vectors(torch.tensor(2 * IMAGES - 1).movedim(-1, 1))
        codes, quantized = original.quantize(vectors)
        reconstruction = original.images(quantized)
    last = [x.movedim(1, -1).numpy() for x in (vectors, reconstruction)]
    return original, last[0], codes.numpy(), last[1]


@pytest.fixture(params=[Taming, LlamaGen])
def original(request):
    return of_original(request.param)


@pytest.fixture(params=[Taming, LlamaGen])
def state(request):
    original = of_original(request.param)[0]
    return original, {key: value.numpy() for key, value in original.state.items()}


def save(original, path):
    """As the projects' own scripts save it."""
    if isinstance(original, Taming):
        state = {**original.state, "loss.discriminator.main.0.weight": torch.ones(3)}
        torch.save({"epoch": 3, "state_dict": state, "optimizer_states": []}, path)
    else:
        used = {"quantize.codebook_used": torch.zeros(9)}
        torch.save({"model": {**original.state, **used}, "steps": 3}, path)


def test_vectors_codes_and_reconstruction_are_the_originals(original, tmp_path):
    original, vectors, codes, reconstruction = original
    save(original, tmp_path / "last.ckpt")
    model = original.convert(tmp_path / "last.ckpt", (8, 8, 3))
    assert model.channel_multipliers == (1, 1, 2) and model.residual_blocks == 1
    assert model.attention_factors == tuple(2**i for i in original.attention)
    quantizer = model.quantizers["bottom"]
    assert quantizer.similarity == original.similarity and quantizer.num_embeddings == 24
    outputs = model.step_outputs(IMAGES, training=False)
    ours = ops.convert_to_numpy(outputs["vectors"]["bottom"])
    np.testing.assert_allclose(ours, vectors, atol=1e-4)
    np.testing.assert_array_equal(model.encode(IMAGES)["bottom"], codes)
    ours = 2 * ops.convert_to_numpy(outputs["reconstruction"]) - 1
    np.testing.assert_allclose(ours, reconstruction, atol=1e-4)
    decoded = model.decode({"bottom": codes})
    np.testing.assert_allclose(decoded, np.clip((reconstruction + 1) / 2, 0, 1), atol=1e-4)


@pytest.mark.parametrize(
    "name, convert, similarity, sizes",
    [
        ("vqgan_taming", convert_taming_vqgan, "euclidean", ((1, 2, 1), 1, (2,), 16)),
        ("vqgan_taming_gray", convert_taming_vqgan, "euclidean", ((1, 1), 2, (), 8)),
        ("vqgan_llamagen", convert_llamagen_tokenizer, "cosine", ((2, 1, 1), 2, (4,), 16)),
    ],
)
def test_golden_vectors_codes_and_images(golden, name, convert, similarity, sizes):
    data = golden(name)
    state = {k.removeprefix("state_dict."): v for k, v in data.items() if "state_dict." in k}
    if convert is convert_llamagen_tokenizer:
        state["quantize.codebook_used"] = np.zeros(65536, "float32")
    last = {k: v.transpose(0, 2, 3, 1) for k, v in data.items() if k.endswith("_nchw")}
    images = (last["images_nchw"] + 1) / 2
    model = convert(state, images.shape[1:])
    assert sizes == (
        model.channel_multipliers,
        model.residual_blocks,
        model.attention_factors,
        model.latent_channels,
    )
    assert model.quantizers["bottom"].similarity == similarity
    outputs = model.step_outputs(images, training=False)
    ours = ops.convert_to_numpy(outputs["vectors"]["bottom"])
    np.testing.assert_allclose(ours, last["vectors_nchw"], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(model.encode(images)["bottom"], data["codes"])
    # The images of codes are clipped, those of a step are not.
    expected = last["reconstruction_nchw"]
    ours = 2 * ops.convert_to_numpy(outputs["reconstruction"]) - 1
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)
    ours = 2 * model.decode({"bottom": data["codes"]}) - 1
    np.testing.assert_allclose(ours, np.clip(expected, -1, 1), rtol=0, atol=1e-4)


def test_golden_of_a_model_that_draws_codes(golden, tmp_path):
    data = golden("vqgan_taming_gumbel")
    state = {k.removeprefix("state_dict."): v for k, v in data.items() if "state_dict." in k}
    last = {k: v.transpose(0, 2, 3, 1) for k, v in data.items() if k.endswith("_nchw")}
    images = (last["images_nchw"] + 1) / 2
    model = convert_taming_vqgan(state, images.shape[1:])
    outputs = model.step_outputs(images, training=False)
    ours = ops.convert_to_numpy(outputs["vectors"]["bottom"])
    np.testing.assert_allclose(ours, last["vectors_nchw"], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(model.encode(images)["bottom"], data["codes"])
    ours = 2 * ops.convert_to_numpy(outputs["reconstruction"]) - 1
    np.testing.assert_allclose(ours, last["reconstruction_nchw"], rtol=0, atol=1e-4)
    quantizer = model.quantizers["bottom"]
    loss = quantizer(last["vectors_nchw"], return_loss=True)[2]
    np.testing.assert_allclose(float(ops.convert_to_numpy(loss)), data["loss"], rtol=1e-4)
    model.save_to_preset(tmp_path)
    again = VQVAE2.from_preset(tmp_path)
    np.testing.assert_array_equal(again.encode(images)["bottom"], data["codes"])
    with pytest.raises(ValueError, match="quantize.proj.weight.*Received"):
        convert_taming_vqgan({**state, "quantize.proj.weight": np.zeros((32, 9, 1, 1))}, (8, 8, 1))
    del state["quantize.proj.bias"]
    with pytest.raises(ValueError, match="quantize.proj.bias"):
        convert_taming_vqgan(state, (8, 8, 1))


def test_converted_models_train_and_save(state, tmp_path):
    original, state = state
    model = original.convert(state, (8, 12, 3))
    model.compile(optimizer="adam")
    assert np.isfinite(model.fit(IMAGES, verbose=0).history["loss"]).all()
    model.save_to_preset(tmp_path / "preset")
    again = VQVAE2.from_preset(tmp_path / "preset")
    assert type(again) is VQGAN
    np.testing.assert_array_equal(again.encode(IMAGES)["bottom"], model.encode(IMAGES)["bottom"])


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("quantize.embedding.weight"), r"key 'quantize.embedding.weight'"),
        (lambda s: s.pop("decoder.norm_out.bias"), "Expected the key 'decoder.norm_out.bias'"),
        (lambda s: s.update(more=np.zeros(3)), r"no further keys. .*\['more'\]"),
        (lambda s: s.update({"quant_conv.bias": np.zeros(3)}), r"Received: \(3,\)"),
        (
            lambda s: s.update({"quant_conv.weight": np.zeros((9, 16, 1, 1))}),
            r"'quant_conv.weight' of shape \(\d+, 16, 1, 1\). Received: \(9, 16, 1, 1\)",
        ),
        (
            lambda s: s.update({"encoder.conv_in.weight": np.zeros((48, 3, 3, 3))}),
            r"multiples of 48 channels inside.*\[32, 32, 64\]",
        ),
        (
            lambda s: s.update({"encoder.conv_in.weight": np.zeros((16, 3, 3, 3))}),
            "positive multiple of 32. Received: hidden_units=16",
        ),
    ],
)
def test_other_checkpoints_are_refused(state, change, message):
    original, state = state
    change(state)
    with pytest.raises(ValueError, match=message):
        original.convert(state, (8, 8, 3))


def test_images_have_to_fit(state):
    original, state = state
    with pytest.raises(ValueError, match=r"3 channels.*image_shape=\(8, 8, 1\)"):
        original.convert(state, (8, 8, 1))
    with pytest.raises(ValueError, match="multiples of 4"):
        original.convert(state, (10, 8, 3))


def test_a_checkpoint_of_the_other_project_is_refused(state):
    original, state = state
    other = convert_taming_vqgan if isinstance(original, LlamaGen) else convert_llamagen_tokenizer
    with pytest.raises(ValueError, match="Expected a checkpoint with the keys"):
        other(state)
