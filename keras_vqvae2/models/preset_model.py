import copy
import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import keras

from keras_vqvae2.backend import GuardedTrainer
from keras_vqvae2.hints import Config, DTypePolicy, FilePath, TensorTree
from keras_vqvae2.models import preset_files

_REGISTERED: dict[str, tuple[type[Any], Config]] = {}  # name -> (model class, entry)


def register_presets(model_class: type[Any], presets: Mapping[str, Config]) -> None:
    """Lets `model_class.from_preset(name)` find presets by name.

    Args:
        model_class: A subclass of `PresetUser`.
        presets: Dict of name to entry. An entry is a dict with `"description"`, `"parameters"`
            (their number) and what else the table of presets shows. An entry with a
            `"config"`, the constructor's arguments, is an architecture without weights. One
            without has config and weights in the package, in `presets/`, in the folder that its
            `"directory"` names, or its own name.

    Example:

    ```python
    import keras
    from keras_vqvae2.models.preset_model import PresetModel, register_presets

    @keras.saving.register_keras_serializable(package="keras_vqvae2")
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


class _ClassProperty:
    def __init__(self, getter):
        self.getter = getter

    def __get__(self, instance, owner):
        return self.getter(owner)


class PresetUser:
    """What has presets: finds them by name, in directories and on hubs.

    Attributes:
        presets: Class property, dict of name to entry: the registered presets of this class and
            its subclasses. Entries are those of `register_presets` plus `"has_weights"`.
    """

    @_ClassProperty
    def presets(cls: Any) -> dict[str, Config]:
        return {
            name: {**copy.deepcopy(entry), "has_weights": "config" not in entry}
            for name, (model_class, entry) in _REGISTERED.items()
            if issubclass(model_class, cls)
        }

    @classmethod
    def from_preset(cls, preset: FilePath, load_weights: bool = True, **kwargs: Any) -> Self:
        """Builds what a preset describes and loads its weights.

        Args:
            preset: A name in `presets`, a directory, `"hf://user/repo"` or
                `"kaggle://user/model/keras/variation[/version]"`.
            load_weights: Whether to load the weights. If `False` they are random.
            **kwargs: Constructor arguments that take the place of those in the preset's config.
                `dtype="mixed_bfloat16"` computes in that policy, whatever the weights were
                trained in.

        Returns:
            An instance of the preset's class, which is `cls` or a subclass.

        Raises:
            ValueError: If the preset is unknown, has no weights to load, holds another class,
                is damaged, or its weights do not fit.
            FileNotFoundError: If files are missing.
            ImportError: If the package that downloads is absent.
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
            model_class, _ = _REGISTERED[preset]
            return model_class.from_config({**entry["config"], **kwargs})
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
        is_ours = issubclass(model_class, cls)
        if not is_ours:
            raise ValueError(
                f"Expected a preset of {cls.__name__}. Received: preset={preset!r}, which holds "
                f"a {model_class.__name__}: use {model_class.__name__}.from_preset."
            )
        return cls._from_directory(Path(directory), model_class, config, load_weights, **kwargs)


class PresetModel(PresetUser, GuardedTrainer, keras.Model):
    """A functional model that loads from presets and saves to them.

    A subclass builds a functional graph in its constructor and hands it to
    `super().__init__(inputs=..., outputs=..., dtype=dtype, **kwargs)`, so a model is built,
    weights and all, as soon as it exists. It registers with
    `@keras.saving.register_keras_serializable(package="keras_vqvae2")`, and adds its constructor's
    arguments to `get_config`. On PyTorch, layers are assigned to `self` only after
    `super().__init__`. `register_presets` shows a whole subclass.

    A preset is a directory in KerasHub's format: `config.json`, `metadata.json` and
    `model.weights.h5` or Keras' sharded weights.

    Args:
        inputs: The graph's inputs, a (nested) `keras.KerasTensor`.
        outputs: The graph's outputs, likewise.
        name: Name of the model.
        trainable: `False` freezes all layers. `True` leaves each as it was made.
        dtype: dtype policy of the model, which its constructor gave to its layers too.

    Example:

    ```python
    import keras
    from keras_vqvae2.models.preset_model import PresetModel

    @keras.saving.register_keras_serializable(package="keras_vqvae2")
    class Linear(PresetModel):
        def __init__(self, units, dtype=None, **kwargs):
            x = keras.Input((2,))  # (B, 2)
            y = keras.layers.Dense(units, dtype=dtype)(x)  # (B, units)
            super().__init__(inputs=x, outputs=y, dtype=dtype, **kwargs)
            self.units = units

        def get_config(self):
            return {**super().get_config(), "units": self.units}

    Linear(units=3).save_to_preset("linear")
    model = Linear.from_preset("linear", dtype="mixed_bfloat16")
    model = PresetModel.from_preset("linear")  # also a Linear
    ```
    """

    def __init__(
        self,
        inputs: TensorTree,
        outputs: TensorTree,
        name: str | None = None,
        trainable: bool = True,
        dtype: DTypePolicy = None,
    ) -> None:
        super().__init__(inputs=inputs, outputs=outputs, name=name)
        self.dtype_policy = keras.dtype_policies.get(dtype)
        if not trainable:
            self.trainable = False

    def get_config(self) -> Config:
        # Not Keras' config of a functional model, which lists the layers of the graph.
        config = {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }
        quantized = [v.path.rpartition("/")[0] for v in self.variables if v.dtype == "int8"]
        return {**config, "int8_layers": quantized} if quantized else config

    @classmethod
    def from_config(cls, config: Config) -> Self:
        config = {**config, "dtype": keras.dtype_policies.get(config.get("dtype"))}
        quantized = config.pop("int8_layers", [])
        if not isinstance(quantized, list):
            raise ValueError(f"Expected a list of paths. Received: int8_layers={quantized!r}")
        model = cls(**config)
        if quantized:
            # Makes the variables that int8 weights are loaded into.
            model.quantize("int8", filters=lambda layer: layer.path in quantized)
        return model

    def quantize(self, mode: str | None = None, config: Any = None, **kwargs: Any) -> None:
        """As `keras.Model.quantize`, in the one form that a preset can hold.

        Args:
            mode: `"int8"`: the kernels of Dense layers, such as the projections of attention.
            config: None, or `keras.quantizers.Int8QuantizationConfig()`.
            **kwargs: `filters`, as in Keras.

        Raises:
            ValueError: If it is another form, before anything is changed.
        """
        known = keras.quantizers.Int8QuantizationConfig()
        wanted = known if config is None else config
        if mode not in ("int8", None) or wanted.get_config() != known.get_config():
            raise ValueError(
                "Expected quantization to 'int8' with Keras' own settings, which presets can "
                f"hold. Received: mode={mode!r}, config={wanted.get_config()}"
            )
        super().quantize("int8", config=known, **kwargs)

    @classmethod
    def _from_directory(cls, directory, model_class, config, load_weights, **kwargs):
        weights = preset_files.verified_weights(directory) if load_weights else None
        model = model_class.from_config({**config, **kwargs})
        if load_weights:
            preset_files.load_weights(model, weights)
        return model

    def save_to_preset(
        self,
        directory: FilePath,
        max_shard_size: float | None = 10,
        weights_dtype: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Saves config and weights, without the optimizer, as a preset directory.

        The directory appears at once when all of it is written. A preset that was there before
        is replaced then and not earlier; a directory with any other file is refused.

        Args:
            directory: The directory to write.
            max_shard_size: Size in GiB above which the weights are split into files of at most
                this size. 10 is KerasHub's. `None` writes one file.
            weights_dtype: None, or `"float16"` to store the weights in half the space. They are
                float32 again when they are loaded.
            metadata: None, or a dict of further entries for `metadata.json`, such as the recipe.

        Raises:
            ValueError: If `directory` holds anything but a preset, if the class is not
                registered, if weights lie outside the functional graph, or if `metadata` has
                names of its own entries.
        """
        preset_files.write(self, directory, max_shard_size, weights_dtype, metadata)
