"""What a preset's `config.json` may hold: our own classes, Keras dtype policies, plain values.

A preset comes from anywhere, so its config is read as data and judged before Keras sees it. No
module named in it is imported and no function in it is called.
"""

import json
import math
from typing import Any

import keras

from keras_vqvae2.files import brief
from keras_vqvae2.hints import Config

PACKAGE = "keras_vqvae2"
# State of one training run. KerasHub leaves both out of its presets too.
_NOT_ARCHITECTURE = ("build_config", "compile_config")
_MAX_SIZE = 2**22  # bytes


def serialize_model(model: Any) -> Config:
    """Returns the config of `model` that goes into `config.json`, checked as on reading.

    Args:
        model: The model.

    Returns:
        A dict with `module`, `class_name`, `config` and `registered_name`.

    Raises:
        ValueError: If `parse_config` would refuse the result.
    """
    # `keras.saving.serialize_keras_object(model)` without its build and compile configs: a loss
    # or schedule that Keras cannot serialize does not keep a model from being saved.
    config = {
        "module": None,
        "class_name": type(model).__name__,
        "config": keras.saving.serialize_keras_object(
            getattr(model, "preset_config", model.get_config)()
        ),
        "registered_name": keras.saving.get_registered_name(type(model)),
    }
    return parse_config(json.dumps(config))


def parse_config(text: str | bytes) -> Config:
    """Parses a serialized Keras object and refuses what a preset has no use for.

    Args:
        text: The content of a `config.json`.

    Returns:
        The config, a dict.

    Raises:
        ValueError: If the text is not JSON or if any object in it, at any depth, is neither of
            a class registered under the package `keras_vqvae2` nor a plain `keras.DTypePolicy`.

    Example:

    ```python
    from keras_vqvae2.models.preset_config import parse_config

    try:
        parse_config('{"class_name": "__lambda__", "config": {"value": "..."}}')
    except ValueError as error:
        print(error)
    ```
    """
    if len(text) > _MAX_SIZE:
        raise ValueError(f"Expected at most {_MAX_SIZE:,} bytes. Received: {len(text):,}")
    try:
        config = json.loads(
            text, object_hook=_architecture_only, parse_float=_finite, parse_constant=_finite
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Expected a JSON object. Received: {brief(error)}") from error
    is_object = isinstance(config, dict) and isinstance(config.get("config"), dict)
    if not is_object:
        raise ValueError(
            "Expected a serialized Keras object with the keys 'class_name', 'config' and "
            f"'registered_name'. Received: config={brief(config)}"
        )
    registered_class(config)
    unread = list(config["config"].values())
    while unread:
        value = unread.pop()
        if isinstance(value, dict):
            if "class_name" in value and not _is_dtype_policy(value):
                registered_class(value)
            unread.extend(value.values())
        elif isinstance(value, list):
            unread.extend(value)
    return config


def registered_class(config: Config) -> type[Any]:
    """Returns the class of ours that a serialized object names.

    Args:
        config: A dict with `class_name` and `registered_name`.

    Returns:
        The class, found in Keras' registry and nowhere else.

    Raises:
        ValueError: If the object is not of a class registered under `keras_vqvae2`.
    """
    name = config.get("registered_name")
    found = keras.saving.get_registered_object(name) if isinstance(name, str) else None
    ours = isinstance(name, str) and name.startswith(f"{PACKAGE}>")
    if not ours and not getattr(found, "loads_from_presets", False):
        found = None
    # Keras acts on some values of `class_name` ("__lambda__", "function") before it looks at
    # `registered_name`, so both must name the same class.
    if not isinstance(found, type) or found.__name__ != config.get("class_name"):
        raise ValueError(
            "Expected a class registered with `@keras.saving.register_keras_serializable`, and "
            f"imported: one of {PACKAGE}, or a model, quantizer or loss derived from its bases. "
            f"Received: class_name={brief(config.get('class_name'))}, "
            f"registered_name={brief(name)}, module={brief(config.get('module'))}"
        )
    return found


def _architecture_only(node):
    return {key: value for key, value in node.items() if key not in _NOT_ARCHITECTURE}


def _finite(text):
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]}")
    return number


def _is_dtype_policy(node):
    named = (node.get("module"), node.get("class_name"), node.get("registered_name"))
    return named == ("keras", "DTypePolicy", None)
