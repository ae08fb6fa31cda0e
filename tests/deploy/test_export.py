"""Each file is run by its own runtime, and gives what Keras gives."""

import os
import re

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from keras_vqvae2 import VQVAE2, backend, layers
from keras_vqvae2.data import sample_photographs
from keras_vqvae2.deploy import export_decoder, export_encoder
from keras_vqvae2.deploy.export import SUFFIXES
from keras_vqvae2.layers.nearest_code import nearest_code

BACKEND = keras.backend.backend()
FORMATS = {
    "tensorflow": ["tf_saved_model", "onnx", "litert"],
    "jax": ["tf_saved_model", "onnx"],
    "torch": ["onnx"],
}[BACKEND]


def run_onnx(path, inputs):
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs)))


def run_litert(path, inputs):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    return interpreter.get_signature_runner("serving_default")(**inputs)


def run_saved_model(path, inputs):
    import tensorflow as tf

    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    inputs = {name: tf.constant(value) for name, value in inputs.items()}
    return {name: value.numpy() for name, value in serve(**inputs).items()}


RUN = {"onnx": run_onnx, "litert": run_litert, "tf_saved_model": run_saved_model}


def export(vqvae, format, folder, image_size=None, batch_size=1):
    """Encoder and decoder, and images of their sizes."""
    size = image_size or vqvae.image_shape[:2]
    shape = (batch_size or 3, *size, vqvae.image_shape[-1])
    paths = [folder / f"{half}{SUFFIXES[format]}" for half in ("encoder", "decoder")]
    for write, path in zip((export_encoder, export_decoder), paths):
        write(vqvae, path, format, image_size, batch_size)
    return *paths, np.random.default_rng(0).uniform(size=shape).astype("float32")


def assert_equal(vqvae, format, encoder, decoder, images):
    codes = vqvae.encode(images)
    found = RUN[format](encoder, {"images": images})
    assert set(found) == set(codes)
    for level in codes:
        np.testing.assert_array_equal(found[level], codes[level])
        assert found[level].dtype == "int32"
        assert len(np.unique(codes[level])) > 1
    codes[vqvae.levels[-1]][0, 0, 0] = -1  # unknown: the file takes it
    found = RUN[format](decoder, codes)
    wanted = np.clip(vqvae.decoder.predict(codes, verbose=0), 0, 1)
    np.testing.assert_allclose(found["images"], wanted, atol=1e-4)
    assert wanted.std() > 0.005


def small(image_shape=(8, 8, 3), **kwargs):
    """Its codes are far from each other, so that many of them are chosen."""
    options = {"hidden_units": 8, "residual_units": 4, "residual_blocks": 0, "embedding_dim": 4}
    options |= {"num_embeddings": 16, "downsample_factors": (2, 2)}
    vqvae = VQVAE2(image_shape, **{**options, **kwargs})
    rng = np.random.default_rng(0)
    for quantizer in vqvae.quantizers.values():
        quantizer.ema_sums.assign(rng.normal(scale=0.3, size=quantizer.codebook.shape))
    draw_biases(vqvae)
    return vqvae


def draw_biases(vqvae):
    rng = np.random.default_rng(1)
    for variable in vqvae.trainable_variables:
        if variable.path.endswith("bias"):
            variable.assign(rng.normal(scale=0.01, size=variable.shape))


@pytest.fixture
def few_scores_at_once(monkeypatch):
    """More scores than are held at once, which Keras computes in a loop."""
    monkeypatch.setattr(nearest_code, "__defaults__", (100, *nearest_code.__defaults__[1:]))


@pytest.mark.compiled
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.usefixtures("few_scores_at_once")
def test_the_files_give_what_keras_gives(format, tmp_path):
    vqvae = small()
    encoder, *files = export(vqvae, format, tmp_path, (12, 8), 2)
    assert sorted(os.listdir(tmp_path)) == [
        f"{x}{SUFFIXES[format]}" for x in ("decoder", "encoder")
    ]
    assert_equal(vqvae, format, encoder, *files)
    if format == "onnx":
        model = onnx.load(encoder)
        operations = {node.op_type for node in model.graph.node}
        assert not operations & {"Loop", "Scan", "If", "BitwiseAnd", "BitCast"}
        (prop,) = model.metadata_props
        assert (prop.key, prop.value) == ("fingerprint", vqvae.fingerprint())


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.parametrize("format", FORMATS)
def test_a_bundled_model(format, tmp_path):
    vqvae = VQVAE2.from_preset("vqvae2_clothing_64")
    encoder, decoder, _ = export(vqvae, format, tmp_path)
    images = sample_photographs(64)[:1] / np.float32(255)
    assert_equal(vqvae, format, encoder, decoder, images)


# What a backend's converter does not take; docs/deploy.md has the table.
NOT_CONVERTED = {("fsq", "onnx")} if BACKEND == "tensorflow" else set()
QUANTIZERS = {
    "fsq": lambda: layers.FiniteScalarQuantizer((8, 5, 5)),
    "lfq": lambda: layers.LookupFreeQuantizer(6),
    "lfq_factorized": lambda: layers.LookupFreeQuantizer(6, factorized_bits=(2, 4)),
    "bsq": lambda: layers.BinarySphericalQuantizer(6),
    "simvq": lambda: layers.SimVectorQuantizer(16, 4),
    "gumbel": lambda: layers.GumbelVectorQuantizer(16, 4),
    "ibq": lambda: layers.IndexBackpropagationQuantizer(16, 4),
    "residual": lambda: layers.ResidualVectorQuantizer(layers.VectorQuantizerEMA(16, 4), 2),
}


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", QUANTIZERS)
def test_other_quantizers(name, format, tmp_path):
    sizes = {"hidden_units": 8, "residual_units": 4, "residual_blocks": 0}
    sizes |= {"num_levels": 1, "downsample_factors": (2,)}
    vqvae = VQVAE2((8, 8, 3), quantizer=QUANTIZERS[name](), **sizes)
    draw_biases(vqvae)
    if (name, format) in NOT_CONVERTED:
        with pytest.raises(ValueError, match="Expected operations that the converter"):
            export(vqvae, format, tmp_path)
        return
    assert_equal(vqvae, format, *export(vqvae, format, tmp_path))


@pytest.mark.slow
@pytest.mark.compiled
def test_half_precision_is_left_behind(tmp_path):
    vqvae = small(dtype="mixed_bfloat16")
    twin = VQVAE2.from_config({**vqvae.get_config(), "dtype": "float32"})
    twin.set_weights(vqvae.get_weights())
    assert_equal(twin, "onnx", *export(vqvae, "onnx", tmp_path))


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.skipif("tf_saved_model" not in FORMATS, reason="PyTorch writes no SavedModel")
def test_a_saved_model_takes_any_number_of_images(tmp_path):
    vqvae = small()
    encoder, decoder, images = export(vqvae, "tf_saved_model", tmp_path, batch_size=None)
    for count in (3, 1):
        assert_equal(vqvae, "tf_saved_model", encoder, decoder, images[:count])


@pytest.mark.skipif("tf_saved_model" not in FORMATS, reason="PyTorch writes no SavedModel")
def test_a_folder_with_other_files_stays(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds a SavedModel and nothing else"):
        export_encoder(small(), tmp_path, "tf_saved_model")
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.skipif("litert" not in FORMATS, reason="only TensorFlow writes LiteRT")
def test_litert_takes_no_fresh_weights(tmp_path):
    vqvae = VQVAE2((8, 8, 3), num_levels=1, hidden_units=8, downsample_factors=(2,))
    with pytest.raises(ValueError, match="Expected trained weights.*bias, all 0.0"):
        export_decoder(vqvae, tmp_path / "decoder.tflite", "litert")
    assert not os.listdir(tmp_path)


VQVAE = small()


def refused(message, path="encoder.onnx", error=ValueError, **kwargs):
    for write in (export_encoder, export_decoder):
        with pytest.raises(error, match=re.escape(message)):
            write(VQVAE, path, **kwargs)
    assert not os.path.exists(path)


def test_what_does_not_fit_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(f"which the backend {BACKEND} writes", format="openvino")
    refused("Expected a name that ends with '.onnx'", path="encoder.tflite")
    refused("multiples of 4", image_size=(16, 18))
    refused("image_size=(16,)", image_size=(16,))
    refused("image_size=16.0", image_size=16.0)
    refused("multiples of 4", image_size=18)  # an integer is a size
    refused("multiples of 4", image_size=(np.int64(16), np.int64(18)))
    with pytest.raises(ValueError, match="Expected a VQVAE2. Received: str"):
        export_encoder("vqvae2_clothing_64", "encoder.onnx")
    refused("batch_size=None", batch_size=None)
    refused("batch_size=0", batch_size=0)
    if BACKEND == "jax":
        refused("['tf_saved_model', 'onnx']", path="encoder.tflite", format="litert")
    monkeypatch.setitem(backend.EXPORT_FORMATS, "onnx", ("not_a_package",))
    refused("pip install not_a_package", error=ImportError)
