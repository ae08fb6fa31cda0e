import json

import keras
import pytest

from keras_vqvae2.models.preset_config import parse_config


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class Ours(keras.layers.Layer):
    pass


@keras.saving.register_keras_serializable(package="someone_else")
class Theirs(keras.layers.Layer):
    pass


def serialized(config, name="Ours"):
    return {
        "module": None,
        "class_name": name,
        "config": config,
        "registered_name": f"keras_vqvae2>{name}",
    }


POLICY = keras.dtype_policies.serialize(keras.DTypePolicy("mixed_bfloat16"))
LAMBDA = {"class_name": "__lambda__", "config": {"value": "4wAAAA"}, "registered_name": None}
HOSTILE = {
    "lambda": LAMBDA,
    "lambda_with_our_name": {**LAMBDA, "registered_name": "keras_vqvae2>Ours"},
    "os_function": {
        "module": "os",
        "class_name": "function",
        "config": "system",
        "registered_name": "system",
    },
    "os_class": {"module": "os", "class_name": "system", "config": {}, "registered_name": None},
    "our_function": {**serialized("system", "Ours"), "class_name": "function", "module": "os"},
    "lambda_layer": {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": {"function": LAMBDA},
        "registered_name": None,
    },
    "keras_layer": keras.saving.serialize_keras_object(keras.layers.Dense(2)),
    "registered_elsewhere": keras.saving.serialize_keras_object(Theirs()),
    "not_registered": serialized({}, "Nothing"),
    "registered_name_of_another_type": {**serialized({}), "registered_name": ["keras_vqvae2>Ours"]},
    "policy_of_another_module": {**POLICY, "module": "os"},
    "policy_with_a_name": {**POLICY, "registered_name": "someone_else>Theirs"},
    "no_module": {"class_name": "Dense", "config": {"units": 2}},
}


def test_accepts_ours_policies_and_plain_values():
    config = serialized(
        {"dtype": POLICY, "shape": [1, 2], "part": serialized({}), "name": "x", "none": None}
    )
    assert parse_config(json.dumps(config)) == config


def test_leaves_compile_and_build_config_out_at_every_depth():
    noisy = {
        **serialized({}),
        "compile_config": {"optimizer": {"class_name": "Adam", "config": {}}},
        "build_config": {},
    }
    parsed = parse_config(json.dumps({**noisy, "config": {"part": noisy}}))
    assert parsed == serialized({"part": serialized({})})


@pytest.mark.parametrize("name", HOSTILE)
def test_refuses_foreign_objects_at_every_depth(name, monkeypatch):
    def called(*args, **kwargs):
        raise AssertionError("a refused config reached Keras")

    monkeypatch.setattr(keras.saving, "deserialize_keras_object", called)
    hostile = HOSTILE[name]
    nested = [
        {"part": hostile},
        {"parts": [{"deep": [hostile]}]},
        {"o": serialized({"p": hostile})},
    ]
    for config in [hostile, *map(serialized, nested)]:
        with pytest.raises(ValueError, match="Expected .*Received:"):
            parse_config(json.dumps(config))


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_numbers_are_finite(number):
    text = json.dumps(serialized({"x": [0]})).replace("0", number)
    with pytest.raises(ValueError, match="Received: the number"):
        parse_config(text)


def test_a_config_is_small():
    with pytest.raises(ValueError, match="at most 4,194,304 bytes"):
        parse_config(json.dumps(serialized({"x": "x" * 2**22})))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", "null", '"x"', '{"class_name": "Ours"}', "[" * 100_000, b"\xff\xfe\xff"],
)
def test_refuses_what_is_no_object(text):
    with pytest.raises(ValueError, match="Expected a .*Received:"):
        parse_config(text)
