"""The two halves of a `VQVAE2` as files that run without Keras."""

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.files import brief, replacing, replacing_folder
from keras_vqvae2.hints import FilePath, Size
from keras_vqvae2.models.vqvae2 import VQVAE2
from keras_vqvae2.validation import check_image_shape, check_positive, height_and_width

SUFFIXES = {"tf_saved_model": "", "onnx": ".onnx", "litert": ".tflite"}
SAVED_MODEL_FILES = {"assets", "fingerprint.pb", "saved_model.pb", "variables"}


def export_encoder(
    vqvae: VQVAE2,
    path: FilePath,
    format: str = "onnx",
    image_size: Size | None = None,
    batch_size: int | None = 1,
) -> None:
    """Writes what makes codes of images as a file that runs without Keras and this package.

    It takes `images`, float32 in `[0, 1]` of shape `(batch_size, H, W, C)`, and gives a map of
    int32 codes by the name of each level: those of `VQVAE2.encode`. Sizes are fixed. It computes in
    float32 whatever the policy of the model is. An ONNX file holds the model's `fingerprint()`
    among its metadata.

    Args:
        vqvae: `VQVAE2`.
        path: The file to write, `.onnx` or `.tflite`; of a SavedModel, the folder.
        format: `"onnx"`, `"litert"` or `"tf_saved_model"`, as in `keras.Model.export`. PyTorch
            writes ONNX, JAX ONNX and SavedModels, TensorFlow all three: a preset loads on any.
        image_size: Integer or `(height, width)` of the images; that of the model's `image_shape` by
            default.
        batch_size: Positive integer, images at a time. In a SavedModel None is any number.

    Raises:
        ValueError: If it is not a VQVAE2, the backend does not write the format, the name of the
            file does not fit it, a size does not fit, the folder holds anything but a SavedModel,
            LiteRT is to hold weights that were not trained, or the converter does not know the
            quantizer.
        ImportError: If a package that the format takes is not installed.
    """
    path = _checked(path, format, batch_size)
    size = _image_size(vqvae, image_size)
    vqvae = _in_float32(vqvae)
    shape = (batch_size, *size, vqvae.image_shape[-1])
    signature = [keras.layers.InputSpec(dtype="float32", shape=shape, name="images")]
    _write(vqvae, vqvae.encoder, signature, path, format)


def export_decoder(
    vqvae: VQVAE2,
    path: FilePath,
    format: str = "onnx",
    image_size: Size | None = None,
    batch_size: int | None = 1,
) -> None:
    """Writes what makes images of codes as a file that runs without Keras and this package.

    It takes a map of int32 codes by the name of each level (-1: unknown), and gives `images`,
    float32 in `[0, 1]` of shape `(batch_size, H, W, C)`: those of `VQVAE2.decode`.

    Args:
        vqvae: As in `export_encoder`, as are all arguments.
        path: As in `export_encoder`.
        format: As in `export_encoder`.
        image_size: As in `export_encoder`.
        batch_size: As in `export_encoder`.

    Raises:
        ValueError: As `export_encoder`.
        ImportError: As `export_encoder`.
    """
    path = _checked(path, format, batch_size)
    size = _image_size(vqvae, image_size)
    vqvae = _in_float32(vqvae)
    axes = vqvae.code_axes
    maps = [
        keras.Input((None, None, *axes[level]), dtype="int32", name=level) for level in vqvae.levels
    ]
    images = vqvae.decoder(dict(zip(vqvae.levels, maps)))
    decoder = keras.Model(maps, {"images": ops.clip(images, 0.0, 1.0)})
    signature = [
        keras.layers.InputSpec(dtype="int32", shape=(batch_size, *shape, *axes[level]), name=level)
        for level, shape in vqvae.code_shapes(size).items()
    ]
    _write(vqvae, decoder, [signature], path, format)


def _checked(path, format, batch_size):
    """Refuses what cannot be written, before any work."""
    if format not in backend.EXPORT_FORMATS:
        raise ValueError(
            f"Expected one of {list(backend.EXPORT_FORMATS)}, which the backend "
            f"{keras.backend.backend()} writes (a preset loads on any other). "
            f"Received: format={format!r}"
        )
    path = Path(os.path.expanduser(path))
    if path.suffix != SUFFIXES[format] and SUFFIXES[format]:
        raise ValueError(
            f"Expected a name that ends with {SUFFIXES[format]!r} for the format {format!r}. "
            f"Received: path={str(path)!r}"
        )
    if batch_size is not None or format != "tf_saved_model":
        check_positive(batch_size=batch_size)
    packages = (*backend.EXPORT_FORMATS[format], *(["onnx"] if format == "onnx" else []))
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"The format {format!r} takes {' and '.join(missing)} on the backend "
            f"{keras.backend.backend()}: pip install {' '.join(missing)}"
        )
    return path


def _image_size(vqvae, size):
    if not isinstance(vqvae, VQVAE2):
        raise ValueError(f"Expected a VQVAE2. Received: {type(vqvae).__name__}")
    size = vqvae.image_shape[:2] if size is None else height_and_width(size)
    channels = vqvae.image_shape[-1]
    check_image_shape((None, *size, channels), channels, vqvae.downsampling, "image_size, images")
    return size


def _in_float32(vqvae):
    backend.sync_training_state(vqvae)
    if vqvae.compute_dtype == "float32":
        return vqvae
    twin = type(vqvae).from_config({**vqvae.get_config(), "dtype": "float32"})
    twin.set_weights(vqvae.get_weights())
    return twin


def _write(vqvae, model, signature, path, format):
    if format == "litert":
        _require_trained(model)
    options: dict[str, Any] = {"input_signature": signature, "verbose": False}
    options |= backend.export_options(format)
    if format == "tf_saved_model":
        with replacing_folder(path, "the SavedModel", _require_saved_model) as folder:
            model.export(str(folder), format=format, **options)
        return
    with replacing(path) as file, backend.plain_operations():
        try:
            model.export(str(file), format=format, **options)
        except OSError:
            raise
        except Exception as error:  # each converter has errors of its own
            raise _not_converted(format, error) from error
        if format == "onnx":
            _name_outputs(file, model, vqvae.fingerprint())


def _not_converted(format, error):
    return ValueError(
        f"Expected operations that the converter of {keras.backend.backend()} to {format!r} knows; "
        "another backend has another one, and docs/deploy.md a table of quantizers. "
        f"Received: {type(error).__name__}: {brief(error)}"
    )


def _require_trained(model):
    # TensorFlow 2.21 hands a transposed convolution whose biases are all the same one of them, and
    # LiteRT reads beyond it.
    for variable in model.weights:
        values = ops.convert_to_numpy(variable)
        if variable.path.endswith("bias") and values.size > 1 and np.ptp(values) == 0:
            raise ValueError(
                "Expected trained weights: the converter to LiteRT mistakes biases that are all "
                f"the same. Received: {variable.path}, all {values[0]}"
            )


def _require_saved_model(target):
    if target.exists():
        names = sorted(os.listdir(target)) if target.is_dir() else [target.name]
        if not target.is_dir() or not set(names) <= SAVED_MODEL_FILES:
            raise ValueError(
                "Expected a folder that does not exist yet, is empty, or holds a SavedModel and "
                f"nothing else. Received: path={str(target)!r} with {names[:20]}"
            )


def _name_outputs(file, model, fingerprint):
    """Gives the outputs their names, which not all of the converters keep."""
    onnx: Any = importlib.import_module("onnx")
    written = onnx.load(file)
    names = keras.tree.flatten({name: name for name in model.output})
    renamed = {output.name: name for output, name in zip(written.graph.output, names)}
    # What bears such a name inside of the graph already makes room.
    inside = {name for node in written.graph.node for name in node.output} - set(renamed)
    renamed |= {name: f"{name}_inside" for name in inside & set(names)}
    for node in written.graph.node:
        for values in (node.input, node.output):
            values[:] = [renamed.get(name, name) for name in values]
    for value in (*written.graph.output, *written.graph.value_info):
        value.name = renamed.get(value.name, value.name)
    onnx.helper.set_model_props(written, {"fingerprint": fingerprint})
    try:
        onnx.checker.check_model(written, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise _not_converted("onnx", error) from error
    onnx.save(written, file)
