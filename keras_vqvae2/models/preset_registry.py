"""The presets that have names, and the search for those that have none."""

import copy
import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_vqvae2.hints import Config, FilePath
from keras_vqvae2.models import preset_files

_REGISTERED: dict[str, tuple[type[Any], Config]] = {}  # name -> (model class, entry)


def register_presets(model_class: type[Any], presets: Mapping[str, Config]) -> None:
    """Lets `model_class.from_preset(name)` find presets by name.

    Args:
        model_class: A class with `from_preset`, such as a subclass of `PresetModel`.
        presets: Dict of name to entry. An entry is a dict with `"description"`, `"parameters"`
            (their number) and what else the table of presets shows. An entry with a
            `"config"`, the constructor's arguments, is an architecture without weights. One
            without has config and weights in the package, in `presets/`, in the folder that its
            `"directory"` names, or its own name.

    Example:

    ```python
    import keras
    from keras_vqvae2.models.preset_model import PresetModel
    from keras_vqvae2.models.preset_registry import register_presets

    @keras.saving.register_keras_serializable(package="my_package")
    class Doubler(PresetModel):
        def __init__(self, size, dtype=None, **kwargs):
            # === Layers ===
            rescaling = keras.layers.Rescaling(2.0, dtype=dtype)
            # === Functional Model ===
            x = keras.Input((size,))  # (B, size)
            super().__init__(inputs=x, outputs=rescaling(x), dtype=dtype, **kwargs)
            # === Config ===
            self.size = size

        def get_config(self):
            return {**super().get_config(), "size": self.size}

    entry = {"description": "Doubles three.", "parameters": 0, "config": {"size": 3}}
    register_presets(Doubler, {"doubler_3": entry})
    model = Doubler.from_preset("doubler_3", load_weights=False, dtype="bfloat16")
    ```
    """
    for name, entry in presets.items():
        _REGISTERED[name] = (model_class, entry)


class RegisteredPresets:
    """Class property `presets`: dict of name to entry, of the class and its subclasses.

    Entries are those of `register_presets` plus `"has_weights"`.
    """

    def __get__(self, instance: Any, owner: type[Any]) -> dict[str, Config]:
        return {
            name: {**copy.deepcopy(entry), "has_weights": "config" not in entry}
            for name, (model_class, entry) in _REGISTERED.items()
            if issubclass(model_class, owner)
        }


def find_preset(
    cls: Any, preset: FilePath, load_weights: bool
) -> tuple[type[Any], Config, Path | None]:
    """Finds a preset by name, in a directory or on a hub.

    Args:
        cls: The class that is wanted, or a parent of it.
        preset: What `from_preset` takes.
        load_weights: Whether weights are wanted.

    Returns:
        A tuple `(model_class, config, directory)`; no directory for an architecture.

    Raises:
        ValueError, FileNotFoundError, ImportError: Those of `PresetModel.from_preset`.
    """
    preset = os.fspath(preset)
    entry = cls.presets.get(preset)
    if entry is not None and not entry["has_weights"]:
        if load_weights:
            raise ValueError(
                f"No weights have been published for the preset {preset!r}, only its "
                "architecture. `load_weights=False` builds it with random weights. "
                f"Received: load_weights={load_weights}"
            )
        return _REGISTERED[preset][0], entry["config"], None
    if entry is not None:
        directory = preset_files.BUNDLED_PRESETS / entry.get("directory", preset)
    else:
        directory = preset_files.locate(preset)
    if directory is None:
        raise ValueError(
            f"Expected the name of a preset of {cls.__name__}, a directory, 'hf://user/repo' "
            "or 'kaggle://user/model/keras/variation'. Near names: "
            f"{difflib.get_close_matches(preset, cls.presets)}. All names: "
            f"{sorted(cls.presets)}. Received: preset={preset!r}"
        )
    model_class, config = preset_files.read_config(directory)
    if not issubclass(model_class, cls):
        raise ValueError(
            f"Expected a preset of {cls.__name__}. Received: preset={preset!r}, which holds "
            f"a {model_class.__name__}: use {model_class.__name__}.from_preset."
        )
    return model_class, config, Path(directory)
