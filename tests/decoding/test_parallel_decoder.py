"""The passes of MaskGIT and TiTok, whose own code made the golden numbers, with a toy network."""

import json

import numpy as np
import pytest
from keras import ops
from safetensors import safe_open

from keras_vqvae2.decoding.mask_schedules import masked_counts
from keras_vqvae2.decoding.parallel_decoder import ParallelDecoder, gumbel
from keras_vqvae2.decoding.sampling import Sampling


class AddNoise(Sampling):
    """Draws by the most of logits and recorded noise, as both do, in place of an inverse CDF."""

    def draw(self, logits, uniforms, numbers):
        return ops.cast(ops.argmax(logits + uniforms, axis=-1), "int32")


class TiTok(ParallelDecoder):
    """Its confidence is a logit."""

    def _confidence(self, logits, codes):
        return ops.take_along_axis(logits, codes[:, None], axis=-1)[:, 0]


def in_one_row(x, axis=1):
    return np.expand_dims(x, axis)


def of_passes(x):
    """`(passes, batch, N, ...)` to `(batch, passes, 1, N, ...)`."""
    return in_one_row(np.swapaxes(x, 0, 1), 2)


def as_uniforms(noise):
    return np.exp(-np.exp(-noise.astype("float64"))).astype("float32")


def toy(tables):
    """The golden files' network; `inputs` are labels."""
    tables = {name: ops.convert_to_tensor(tables[name]) for name in "ABCE" if name in tables}

    def logits_of(codes, inputs):
        tokens = ops.where(codes < 0, tables["B"].shape[0] - 1, codes)  # (B, 1, N)
        here, whole = (ops.take(tables[name], tokens, axis=0) for name in "BC")
        logits = tables["A"] + here + ops.mean(whole, axis=2, keepdims=True)
        if "E" in tables:
            logits = logits + ops.take(tables["E"], inputs, axis=0)[:, None, None]
        return logits

    return logits_of


@pytest.fixture
def case(golden, request):
    def load(file, name):
        path = request.config.rootpath / "tests" / "golden" / f"{file}.safetensors"
        with safe_open(path, "np") as opened:
            settings = json.loads(opened.metadata()["config"])[name]
        start = f"{name}."
        data = golden(file)
        return {k.removeprefix(start): v for k, v in data.items() if k.startswith(start)}, settings

    return load


def run(decoder, start, noise, counts, temperatures, sampling=None, inputs=()):
    sampling = sampling or AddNoise()
    passes = decoder.passes(sampling, in_one_row(start), noise, counts, temperatures, inputs)
    return np.stack([ops.convert_to_numpy(codes)[:, 0] for codes in passes])


@pytest.mark.parametrize("name", ["decode", "decode_given"])
def test_whole_loops_are_those_of_maskgit(case, name):
    data, settings = case("maskgit", name)
    steps = settings["steps"]
    counts = masked_counts(settings["schedule"], steps, (data["start"] < 0).sum(axis=1))
    temperatures = settings["choice_temperature"] * (1 - (np.arange(steps) + 1) / steps)
    noise = of_passes(data["code_noise"]), of_passes(as_uniforms(data["confidence_noise"]))
    codes = run(ParallelDecoder(toy(data), []), data["start"], noise, counts, temperatures)
    np.testing.assert_array_equal(codes, data["codes_after_step"])


def test_a_pass_masks_what_maskgit_masks(case):
    data, settings = case("maskgit", "step")
    start = np.where(data["known"], data["known_codes"], -1)
    decoder = ParallelDecoder(lambda *_: in_one_row(data["logits"]), [])
    arrays = (start, data["code_noise"], as_uniforms(data["confidence_noise"]))
    tensors = [ops.convert_to_tensor(in_one_row(array)) for array in arrays]
    count = ops.convert_to_tensor(data["number_to_mask"])
    codes, unknown = decoder._draw(
        AddNoise(), *tensors, count, settings["temperature"], 1.0, {}, ()
    )
    np.testing.assert_array_equal(ops.convert_to_numpy(codes)[:, 0], data["sampled"])
    np.testing.assert_array_equal(ops.convert_to_numpy(unknown)[:, 0] < 0, data["mask"])


@pytest.mark.parametrize("name", ["constant", "linear", "power_cosine"])
def test_guided_loops_are_those_of_titok(case, name):
    data, settings = case("guided_masked_decoding", name)
    steps, scale = settings["steps"], settings["guidance_scale"]
    power = settings["guidance_scale_pow"]
    # It counts c + s (c - u), but for power-cosine; ours is u + s (c - u).
    sampling = {
        "constant": AddNoise(guidance_scale=1 + scale),
        "linear": AddNoise(guidance_scale=1 + scale),
        "power_cosine": AddNoise(guidance_scale=scale, guidance_power=power),
    }[name]
    if name == "linear":
        sampling.guidance_scales = lambda count: np.float32(1 + scale * np.arange(count) / count)
    temperatures = settings["randomize_temperature"] * (1 - (np.arange(steps) + 1) / steps)
    code_noise = ops.convert_to_numpy(gumbel(ops.convert_to_tensor(data["code_uniforms"])))
    code_noise = code_noise * temperatures[:, None, None, None].astype("float32")
    noise = of_passes(code_noise), of_passes(data["confidence_uniforms"])
    start = np.full((len(data["labels"]), 16), -1, "int32")
    counts = masked_counts("arccos", steps, np.full(len(start), 16))
    labels = np.stack([data["labels"], np.full_like(data["labels"], len(data["E"]) - 1)], axis=1)
    inputs = (TiTok(toy(data), []), start, noise, counts, temperatures)
    codes = run(*inputs, sampling, labels.ravel())
    np.testing.assert_array_equal(codes[-1], data["codes"])


def test_an_order_is_followed_whatever_the_confidence(rng):
    logits = rng.normal(size=(2, 2, 3, 50)).astype("float32")
    ranks = np.array([[3, 0, 5], [1, 4, 2]])
    uniforms = rng.uniform(size=(2, 2, 4, 2, 3)).astype("float32")
    given = np.full((2, 2, 3), -1, "int32")
    given[1, 1, 1] = 7
    decoder = ParallelDecoder(lambda *_: ops.convert_to_tensor(logits), [], ranks)
    counts = np.array([[4, 3], [3, 2], [1, 1], [1, 1]], "int32")
    passes = decoder.passes(Sampling(), given, tuple(uniforms), counts, np.zeros(4))
    codes = [ops.convert_to_numpy(codes) for codes in passes]
    for before, after, count in zip(codes, codes[1:], counts[:, 0]):
        kept = np.broadcast_to(ranks < 6 - count, given.shape) | (given >= 0)
        np.testing.assert_array_equal(before[kept], after[kept])
        assert (before != after)[~kept].any()
    assert (codes[-1][1, 1, 1], codes[0][1, 1, 1]) == (7, 7)
