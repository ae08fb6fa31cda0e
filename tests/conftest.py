from pathlib import Path

import keras
import numpy as np
import pytest

TESTS = Path(__file__).parent
GOLDEN = TESTS / "golden"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Scripts start processes that import and compile for long: one backend is enough each time."""
    if keras.backend.backend() != "tensorflow":
        for item in items:
            if {"examples", "benchmarks"} & set(item.path.relative_to(TESTS).parts):
                item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def golden():
    """Loads a file of numbers that other projects' code produced (tests/golden/README.md)."""
    from safetensors.numpy import load_file

    return lambda name: load_file(GOLDEN / f"{name}.safetensors")


@pytest.fixture
def gradient():
    """`gradient(f, x)`: the gradient of the sum of `f(x)`, on the current backend."""
    backend = keras.backend.backend()

    def of_tensorflow(f, x):
        import tensorflow as tf

        x = tf.convert_to_tensor(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(f(x))
        return tape.gradient(y, x).numpy()

    def of_jax(f, x):
        import jax

        return np.asarray(jax.grad(lambda x: f(x).sum())(x))

    def of_torch(f, x):
        import torch

        x = torch.tensor(x, requires_grad=True)
        f(x).sum().backward()
        return x.grad.numpy()

    return {"tensorflow": of_tensorflow, "jax": of_jax, "torch": of_torch}[backend]
