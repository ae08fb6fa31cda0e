import gc
from collections.abc import Mapping
from typing import Any, Self

import keras

from keras_vqvae2.hints import Config, DTypePolicy, FilePath, TensorTree
from keras_vqvae2.models import preset_files
from keras_vqvae2.models.guarded_model import GuardedModel
from keras_vqvae2.models.preset_registry import RegisteredPresets, find_preset


class PresetModel(GuardedModel):
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
        trainable: `False` freezes all layers. `True` leaves each as it was made. Layers that were
            frozen by themselves are so again when the model is loaded.
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

    presets = RegisteredPresets()
    loads_from_presets = True

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
        self._made_frozen = frozenset(self._frozen_layers())
        if not trainable:
            self.trainable = False

    def get_config(self) -> Config:
        # Not Keras' config of a functional model, which lists the layers of the graph.
        config = {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }
        frozen = [path for path in self._frozen_layers() if path not in self._made_frozen]
        if frozen and self.trainable:
            config["frozen_layers"] = frozen
        quantized = [v.path.rpartition("/")[0] for v in self.variables if v.dtype == "int8"]
        return {**config, "int8_layers": quantized} if quantized else config

    @classmethod
    def from_config(cls, config: Config) -> Self:
        config = {**config, "dtype": keras.dtype_policies.get(config.get("dtype"))}
        quantized, frozen = (config.pop(name, []) for name in ("int8_layers", "frozen_layers"))
        for name, paths in (("int8_layers", quantized), ("frozen_layers", frozen)):
            if not isinstance(paths, list):
                raise ValueError(f"Expected a list of paths. Received: {name}={paths!r}")
        model = cls(**config)
        for layer in model._own_layers():
            if layer.path in frozen:
                layer.trainable = False
        if quantized:
            # Makes the variables that int8 weights are loaded into.
            model.quantize("int8", filters=lambda layer: layer.path in quantized)
        return model

    def _own_layers(self):
        """All layers with weights, those within others too."""
        return [layer for layer in self._flatten_layers(include_self=False) if layer.weights]

    def _frozen_layers(self):
        """The paths of those that are not trainable."""
        return [layer.path for layer in self._own_layers() if not layer.trainable]

    def save(self, filepath: FilePath, *args: Any, **kwargs: Any) -> None:
        """Saves as `keras.Model.save` does, to a `.keras` file.

        Raises:
            ValueError: For `.h5` and `.hdf5`: Keras' older format does not know whose classes it
                holds, and would not load again.
        """
        if str(filepath).lower().endswith((".h5", ".hdf5")):
            raise ValueError(
                "Expected a .keras file, or save_to_preset: a whole model in HDF5 does not load "
                f"again. Received: filepath={str(filepath)!r}"
            )
        super().save(filepath, *args, **kwargs)

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
        # At each kernel that Keras takes away it collects garbage: half a second with all in view.
        gc.freeze()
        try:
            super().quantize("int8", config=known, **kwargs)
        finally:
            gc.unfreeze()

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
        model_class, config, directory = find_preset(cls, preset, load_weights)
        config = {**config, **kwargs}
        if directory is None:
            return model_class.from_config(config)
        if not load_weights:
            return preset_files.build(model_class, config)
        weights = preset_files.verified_weights(directory)
        model = preset_files.build(model_class, config, weights)
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
