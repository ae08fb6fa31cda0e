"""The halves of a VQVAE2 as files: bytes, and seconds for one image beside Keras.

    pip install -e '.[jax,torch,deploy]'
    python benchmarks/deploy.py
    python benchmarks/deploy.py --backends=tensorflow --presets=vqvae2_clothing_64

Each case exports encoder and decoder in a process of its own, and runs each file in its own
runtime, on one thread:

- `MB`: of the file, of a SavedModel its folder.
- `ms`: median of --repeats calls for one image.
- `Keras ms`: of the same model called by Keras, as a compiled function where there is such.
- `equal`: whether codes are those of Keras; of the decoder the largest difference of a pixel.
"""

import json
import tempfile
import warnings
from pathlib import Path

import measure
import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("backends", ["tensorflow", "jax", "torch"], "Which of tensorflow, jax, torch.")
flags.DEFINE_list("formats", ["tf_saved_model", "onnx", "litert"], "Formats to write.")
flags.DEFINE_list("presets", ["vqvae2_clothing_64", "vqvae2_imagenette_128"], "Models.")
flags.DEFINE_integer("repeats", 20, "Calls of which the median is taken.", lower_bound=1)
flags.DEFINE_float("memory_limit_gib", 12.0, "Memory a case may take.", lower_bound=0.0)
flags.DEFINE_string("case", None, "The one case to measure, as JSON: for the script's own use.")

SUFFIXES = {"tf_saved_model": "", "onnx": ".onnx", "litert": ".tflite"}


def onnx_call(path, inputs):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    names = [output.name for output in session.get_outputs()]
    return lambda: dict(zip(names, session.run(None, inputs)))


def litert_call(path, inputs):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path), num_threads=1).get_signature_runner()
    return lambda: runner(**inputs)


def saved_model_call(path, inputs):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_default"]
    inputs = {name: tf.constant(value) for name, value in inputs.items()}

    def call(loaded=loaded):  # which holds the variables
        return {name: value.numpy() for name, value in serve(**inputs).items()}

    return call


CALLS = {"onnx": onnx_call, "litert": litert_call, "tf_saved_model": saved_model_call}


def keras_call(model, inputs):
    """A call of a Keras model as its backend runs it best, with results in NumPy."""
    import keras

    from keras_vqvae2 import backend

    inputs = keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
    compiled = backend.compile_function(lambda x: model(x, training=False), model.variables)
    return lambda: keras.tree.map_structure(keras.ops.convert_to_numpy, compiled(inputs))


def size(path):
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def measure_case(preset, format, repeats):
    """Bytes, milliseconds and differences of both halves: lists, the encoder first."""
    import keras_vqvae2

    warnings.simplefilter("ignore")
    vqvae = keras_vqvae2.VQVAE2.from_preset(preset)
    images = keras_vqvae2.data.sample_photographs(vqvae.image_shape[0])[:1] / np.float32(255)
    codes = vqvae.encode(images)
    result = {"bytes": [], "ms": [], "keras_ms": [], "differs": []}
    halves = (
        (keras_vqvae2.deploy.export_encoder, vqvae.encoder, {"images": images}, images),
        (keras_vqvae2.deploy.export_decoder, vqvae.decoder, codes, codes),
    )
    for write, model, inputs, of_keras in halves:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"half{SUFFIXES[format]}"
            write(vqvae, path, format)
            result["bytes"].append(size(path))
            call = CALLS[format](path, inputs)
            found = call()
            result["ms"].append(1000 * measure.median_seconds(call, repeats))
        known = keras_call(model, of_keras)
        wanted = known()
        result["keras_ms"].append(1000 * measure.median_seconds(known, repeats))
        if model is vqvae.encoder:
            differs = max(float((found[level] != wanted[level]).mean()) for level in wanted)
        else:
            differs = float(np.abs(found["images"] - np.clip(wanted, 0, 1)).max())
        result["differs"].append(differs)
    return result


def row(preset, backend, format):
    case = {"preset": preset, "format": format, "repeats": FLAGS.repeats}
    limit = FLAGS.memory_limit_gib * measure.GIB
    result = measure.run_case(__file__, case, backend, limit)
    if "error" in result:
        return [preset, backend, format, result["error"][:80], *[""] * 3]

    def pair(name, form):
        return " + ".join(form.format(value) for value in result[name])

    codes, pixels = result["differs"]
    equal = f"{'codes' if codes == 0 else f'{codes:.2%} of codes differ'}, {pixels:.0e}"
    megabytes = " + ".join(f"{value / 1e6:.1f}" for value in result["bytes"])
    speed = [pair("ms", "{:.1f}"), pair("keras_ms", "{:.1f}")]
    return [preset, backend, format, megabytes, *speed, equal]


def main(arguments):
    if FLAGS.case is not None:
        measure.report(measure_case(**json.loads(FLAGS.case)))
        return
    rows = [
        row(preset, backend, format)
        for preset in FLAGS.presets
        for backend in FLAGS.backends
        for format in FLAGS.formats
    ]
    columns = ["preset", "backend", "format", "MB", "ms", "Keras ms", "equal"]
    print(measure.markdown_table(columns, rows))
    print(f"\nEncoder + decoder, one image, one thread. {measure.environment()}")


if __name__ == "__main__":
    app.run(main)
