"""Checkpoints that are made to harm: refused in one sentence, soon, and without a trace."""

import argparse
import struct
import time
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest

from keras_vqvae2.converters import (
    command,
    convert_pytorch_pixelsnail,
    convert_pytorch_vqvae2,
)
from keras_vqvae2.converters.checkpoint_files import StateDict, read_state_dict
from keras_vqvae2.converters.torch_reader import read_torch_file

HOSTILE = sorted((Path(__file__).parent / "hostile").iterdir())
# What one of the readers may read rightly: arrays that are there, under keys that are strings.
READABLE = ("converter_", "memory_write")


@pytest.fixture(autouse=True)
def at_most_ten_seconds():
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path.name)
def test_hostile_files(path, monkeypatch, tmp_path):
    if not path.name.startswith(READABLE):
        with pytest.raises(ValueError, match=r"^Expected .*Received: .*"):
            read_state_dict(path)
    for convert in (convert_pytorch_vqvae2, convert_pytorch_pixelsnail):
        with pytest.raises(ValueError, match=r"^Expected .*Received: .*"):
            convert(path)
    flags = {"image_size": 64, "attention_heads": 8, "inplace_relu": False}
    flags |= {"checkpoint": path, "preset": tmp_path / "preset"}
    monkeypatch.setattr(command, "FLAGS", types.SimpleNamespace(**flags))
    with pytest.raises(SystemExit, match=r"\Akeras-vqvae2-convert: Expected .*\Z"):
        command.convert(None)
    assert not hasattr(argparse.Namespace, "trust_remote_code")
    assert "__init__" in vars(argparse.Namespace) and argparse.Namespace(a=1).a == 1
    assert not (tmp_path / "preset").exists()


# === Pickles, put together by hand ===

ORDERED, FLAGS = b"ccollections\nOrderedDict\n", b"cargparse\nNamespace\n"
REBUILD, FLOAT = b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n"


def number(value):
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def numbers(*values):
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key="0", size=4, kind=FLOAT):
    return b"(" + text("storage") + kind + text(key) + text("cpu") + number(size) + b"tQ"


def tensor(shape=None, strides=None, offset=0, of=None):
    shape, strides = shape or numbers(4), strides or numbers(1)
    return REBUILD + b"(" + (of or storage()) + number(offset) + shape + strides + b"\x89})tR"


def entry(key, value):
    return b"}" + key + value + b"s"


def write(path, pickled, contents=None):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + pickled + b".")
        for key, content in (contents or {"0": np.arange(4, dtype="<f4").tobytes()}).items():
            archive.writestr(f"a/data/{key}", content)
    return path


def test_the_files_put_together_by_hand_are_sound(tmp_path):
    state = read_state_dict(write(tmp_path / "a.pt", entry(text("w"), tensor())))
    np.testing.assert_array_equal(state["w"], [0, 1, 2, 3])
    with pytest.raises(ValueError, match="read-only"):
        state["w"][0] = 1


BOMB = b"(K\x01\x85q\x00" + b"h\x00h\x00\x86q\x00" * 64 + b"t"  # hashed in 2^64 steps
FLAGS_LIKE_AN_ARRAY = FLAGS + b")R" + entry(text("shape"), numbers(4)) + b"b"
REFUSED = {
    "tuple_as_key": entry(BOMB, tensor()),
    "tuple_as_key_of_an_ordered_dict": ORDERED + b"(](" + BOMB + b"K\x01\x86etR",
    "integers_of_one_hash": b"}(" + number(2**61 - 1) + b"N" + number(2**62 - 2) + b"Nu",
    "tuple_as_kind_of_storage": entry(text("w"), b"(" + BOMB + b"ttQ"),
    "tuple_as_key_of_storage": b"(" + text("storage") + FLOAT + BOMB + b"NK\x04tQ",
    "tuple_as_shape": entry(text("w"), tensor(BOMB)),
    "tuple_as_offset": tensor().replace(number(0), BOMB, 1),
    "tuple_as_storage": entry(text("w"), tensor(of=BOMB)),
    "flags_as_storage": entry(text("w"), tensor(of=FLAGS_LIKE_AN_ARRAY)),
    "flags_as_shape": entry(text("w"), tensor(FLAGS_LIKE_AN_ARRAY)),
    "flags_as_parameter": b"ctorch._utils\n_rebuild_parameter\n(" + FLAGS_LIKE_AN_ARRAY + b"NNtR",
    "state_of_a_tensor": tensor() + entry(text("shape"), numbers(8)) + b"b",
    "state_of_a_type": FLOAT + entry(text("x"), b"N") + b"b",
    "entry_of_flags": FLAGS + b")R" + text("x") + b"Ns",
    "item_of_a_tensor": tensor() + b"Na",
    "call_of_a_type": FLOAT + b")R",
    "call_of_a_string": text("x") + b")R",
    "far_strides": tensor(numbers(2, 2), numbers(2**61, 1)),
    "negative_stride": tensor(numbers(2), numbers(-1), offset=3),
    "negative_offset": tensor(numbers(2), offset=-1),
    "far_offset": tensor(numbers(1), offset=2**62),
    "repeated_numbers": tensor(numbers(10**9), numbers(0)),
    "many_dimensions": tensor(numbers(*[1] * 40), numbers(*[1] * 40)),
    "empty_and_huge": tensor(numbers(0, 2**62, 2**62), numbers(1, 1, 1)),
    "huge_storage": tensor(of=storage(size=2**60)),
    "negative_storage": tensor(of=storage(size=-4)),
    "storage_of_another_size": tensor(of=storage(size=2)),
    "storage_that_is_not_there": tensor(of=storage("1")),
    "storage_of_no_type": tensor(of=storage(kind=ORDERED)),
    "two_types": entry(text("w"), tensor()) + b"0" + tensor(of=storage(size=8, kind=FLOAT[:-1])),
    "views_of_one_storage": b"](" + storage() + b"q\x010" + tensor(of=b"h\x01") * 200 + b"e",
    "negated": tensor().replace(b"\x89})t", b"\x89}" + entry(text("neg"), b"\x88") + b"t"),
    "other_name": b"cos\nsystem\n",
    "builtin": b"cbuiltins\ngetattr\n",
    "name_from_the_stack": text("os") + text("system") + b"\x93",
    "extension": b"\x82\x01",
    "instance": b"(ios\nsystem\n",
    "get_of_nothing": b"h\x05",
    "mark_of_nothing": b"t",
    "nothing": b"",
    "long_integer": b"\x8b" + struct.pack("<I", 2000) + bytes(1999) + b"\x01",
    "endless": b"N0" * 4_000_000,
    "many_values": b"(" + b"}" * 4_000_000 + b"t",
}


@pytest.mark.parametrize("name", REFUSED)
def test_pickles_are_refused(name, tmp_path):
    path = write(tmp_path / "a.pt", REFUSED[name])
    with pytest.raises(ValueError, match="Expected a file of tensors") as error:
        read_torch_file(path)
    assert len(str(error.value)) < 1000 and "\n" not in str(error.value)


def test_nesting_and_repetition_are_harmless(tmp_path):
    deep = b"(" * 300_000 + b"N" + b"t" * 300_000
    state = b"}(" + text("w") + tensor() + text("x") + deep + text("y") + BOMB + b"u"
    assert list(read_state_dict(write(tmp_path / "a.pt", state))) == ["w"]
    with pytest.raises(ValueError, match="keys that are strings"):
        state = b"}(" + text("w") + tensor() + b"N" + tensor() + b"u"
        read_state_dict(write(tmp_path / "b.pt", state))


def test_many_storages_are_read_soon(tmp_path):
    keys = [str(i) for i in range(20_000)]
    state = b"}(" + b"".join(text(key) + tensor(of=storage(key)) for key in keys) + b"u"
    path = write(tmp_path / "a.pt", state, {key: bytes(16) for key in keys})
    assert len(read_state_dict(path)) == 20_000


def test_flags_are_never_arrays(tmp_path):
    pair = text("w") + tensor() + text("flags") + FLAGS_LIKE_AN_ARRAY
    path = write(tmp_path / "a.pt", b"}(" + pair + b"u")
    assert list(read_state_dict(path)) == ["w"]
    assert read_torch_file(path)["flags"].state == {"shape": (4,)}


# === Zip files ===


def sound(path):
    return write(path, entry(text("w"), tensor()))


def test_two_entries_of_one_name(tmp_path):
    path = sound(tmp_path / "a.pt")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a/data/0", bytes(16))
    with pytest.raises(ValueError, match="two entries of one name"):
        read_torch_file(path)


@pytest.mark.parametrize("length", [0, 1, 21, 22, 100, -1, -22, -100])
def test_cut_off(length, tmp_path):
    path = sound(tmp_path / "a.pt")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="Expected a file of tensors"):
        read_torch_file(path)


def test_a_list_of_entries_that_is_far_too_long(tmp_path):
    path = sound(tmp_path / "a.pt")
    content = bytearray(path.read_bytes())
    content[-10:-6] = struct.pack("<I", 2**31)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="a zip file that torch.save does not write"):
        read_torch_file(path)


# === Arrays ===


def test_bfloat16_of_both_formats(tmp_path):
    content = np.array([1.5, -2, 0, 3], "float32").view("<u2")[1::2].tobytes()
    header = b'{"w":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]}}'
    safe = tmp_path / "a.safetensors"
    safe.write_bytes(struct.pack("<Q", len(header)) + header + content)
    state = entry(text("w"), tensor(of=storage(kind=b"ctorch\nBFloat16Storage\n")))
    for path in (safe, write(tmp_path / "a.pt", state, {"0": content})):
        np.testing.assert_array_equal(StateDict(path, ["w"]).take("w"), [1.5, -2, 0, 3])


@pytest.mark.parametrize(
    "value, message",
    [
        (np.array([1, np.nan]), "finite numbers in 'w'"),
        (np.array([1e300]), "finite numbers in 'w'"),
        (np.array([1j]), "real numbers"),
        (np.array(["a"]), "real numbers"),
        (np.array([None]), "real numbers"),
    ],
)
def test_arrays_that_are_no_weights(value, message):
    with pytest.raises(ValueError, match=message):
        StateDict({"w": value}, []).take("w")


def test_a_state_dict_that_is_handed_in_stays_as_it_is(golden):
    data = golden("pixelsnail_top_pytorch")
    state = {k.removeprefix("state_dict."): v for k, v in data.items() if "state_dict." in k}
    before = {key: value.copy() for key, value in state.items()}
    convert_pytorch_pixelsnail(state)
    for key, value in before.items():
        np.testing.assert_array_equal(state[key], value)


@pytest.mark.parametrize("level", ["top", "bottom"])
def test_sizes_of_a_pixelsnail_are_shown_by_its_arrays(level, golden):
    data = golden(f"pixelsnail_{level}_pytorch")
    state = {k.removeprefix("state_dict."): v for k, v in data.items() if "state_dict." in k}
    for change in (
        {"horizontal.conv.conv.weight_v": np.zeros((10**6, 64, 2, 1), "float32")},
        {"horizontal.conv.conv.weight_v": np.zeros((32, 10**6, 2, 1), "float32")},
        {"blocks.0.resblocks.0.conv1.conv.conv.weight_v": np.zeros((10**6, 1, 5, 5), "float32")},
        {"blocks.0.resblocks.0.conv1.conv.conv.weight_v": np.zeros((32, 32), "float32")},
        {f"blocks.{i}.x": np.zeros(1) for i in range(300)},
        {f"blocks.0.resblocks.{i}.x": np.zeros(1) for i in range(300)},
        {"background": np.zeros(3)},
        {"background": np.zeros((1, 2, 0, 8))},
        {"horizontal.conv.conv.weight_v": np.zeros((32, 64, 2, 5), "float32")},
        {"blocks.0.resblocks.0.conv2.conv.conv.weight_v": np.zeros((64,), "float32")},
        {"cond_resnet.blocks.0.conv.weight_v": np.zeros((10**6, 1, 3, 3), "float32")},
    ):
        with pytest.raises(ValueError, match="Expected "):
            convert_pytorch_pixelsnail({**state, **change})


def test_sizes_of_a_vqvae2_are_shown_by_its_arrays(golden):
    data = golden("vqvae2_pytorch")
    state = {k.removeprefix("state_dict."): v for k, v in data.items() if "state_dict." in k}
    for change in (
        {"enc_b.blocks.2.weight": np.zeros((10**6, 1, 4, 1), "float32")},
        {"enc_b.blocks.5.conv.1.weight": np.zeros((10**6, 1, 3, 3), "float32")},
        {"quantize_t.embed": np.zeros((10**6, 1), "float32")},
        {"quantize_t.embed": np.zeros((1, 10**6), "float32")},
        {f"enc_b.blocks.{i}.conv.1.x": np.zeros(1) for i in range(300)},
        {"enc_b.blocks.0.weight": np.zeros(())},
    ):
        with pytest.raises(ValueError, match="Expected "):
            convert_pytorch_vqvae2({**state, **change}, (64, 64, 3))
