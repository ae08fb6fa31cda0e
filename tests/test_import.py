import os
import subprocess
import sys

import keras

BACKEND = keras.backend.backend()
# As if the packages were not installed. Setting sys.modules[name] to None also stops imports, but
# packages that only look whether another one is loaded take the None for it.
BLOCK = """
import sys
class Hiding:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in {names}:
            return self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = map(Hiding, sys.meta_path)
"""


def run(code, **environment):
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, **environment}
    process = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return process.stdout


def test_one_backend_is_enough_and_a_missing_package_is_named_when_it_is_needed():
    others = {"tensorflow", "jax", "torch"} - {BACKEND}
    heavy = [*others, "keras_cv", "tensorflow_datasets", "matplotlib", "PIL", "safetensors"]
    code = BLOCK.format(names=heavy) + (
        "import numpy as np\n"
        "import keras_vqvae2 as k\n"
        "m = k.VQVAE2((16, 16, 3), hidden_units=8, residual_units=4, num_embeddings=16)\n"
        "m.compile(optimizer='adam')\n"
        "m.fit(np.zeros((2, 16, 16, 3)), verbose=0)\n"
        "print(m.decode(m.encode(np.zeros((1, 16, 16, 3)))).shape)\n"
        "try:\n"
        "    k.data.images_from_arrays(np.zeros((1, 8, 8, 3)))\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    shape, *error = run(code).strip().splitlines()
    assert shape == "(1, 16, 16, 3)"
    if BACKEND != "tensorflow":
        assert "pip install tensorflow" in " ".join(error)


def test_import_is_quick_beside_keras_and_unknown_backends_are_refused():
    code = (
        "import sys, time\n"
        "start = time.process_time()\n"  # which other processes do not add to
        "import keras\n"
        "print(time.process_time() - start)\n"
        "name, keras.backend.backend = keras.backend.backend, lambda: 'openvino'\n"
        "try:\n"
        "    import keras_vqvae2\n"
        "except ImportError as error:\n"
        "    print(error)\n"
        "keras.backend.backend = name\n"
        "for module in [m for m in sys.modules if m.startswith('keras_vqvae2')]:\n"
        "    del sys.modules[module]\n"
        "start = time.process_time()\n"
        "import keras_vqvae2\n"
        "print(time.process_time() - start)\n"
    )
    keras_seconds, error, seconds = run(code).strip().splitlines()
    assert "tensorflow, jax, torch. Received: keras.backend.backend()='openvino'" in error
    assert float(seconds) < float(keras_seconds) / 3  # 0.06 to 0.26 of it, the most on JAX
