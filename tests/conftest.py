import ctypes
import gc
import os
import resource
import sys
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest

TESTS = Path(__file__).parent
GOLDEN = TESTS / "golden"
SHARES = ("tensorflow", "jax", *11 * ("torch",))
BACKEND = keras.backend.backend()

# `make test` runs these on PyTorch, where nothing compiles; on the others `make test-slow` does.
ONCE = (
    # Whole scripts, pages and tutorials, and processes that import a framework first.
    "benchmarks",
    "examples",
    "test_docs.py::test_pages_run",
    "test_docs.py::test_docstring_examples_run",
    "test_tutorials.py",
    # What a backend has no part in: files, names, NumPy.
    "converters/test_checkpoint_files.py",
    "converters/test_hostile_files.py",
    "converters/test_torch_reader.py",
    "compression/test_compress.py::test_damaged",
    "compression/test_compress.py::test_files_of",
    "compression/test_compress.py::test_hostile",
    "compression/test_compress.py::test_the_label",
    "compression/test_range_coder.py",
    "converters/test_pixelcnnpp.py::test_golden_parameters_one_pixel_after_the_other",
    "codes/test_code_datasets.py::test_a_kill",
    "codes/test_code_datasets.py::test_several_workers_write",
    "codes/test_code_datasets.py::test_workers",
    "decoding/test_position_decoder.py",
    "data",
    "fuzz",
    # Whose other side is a PyTorch or JAX network, hundreds of megabytes beside the own backend's.
    "features/test_efficientnet_lite.py::test_equals_the_weights_run_by_pytorch",
    "features/test_inception.py",
    "losses/test_lpips_distance.py::test_equals_the_package",
    # What compiles for long and says little of a backend beyond the golden numbers.
    "layers/test_quantizer_contract.py::test_any_number_of_axes",
    "layers/test_quantizer_contract.py::test_gradients_reach_vectors",
    "layers/test_quantizer_contract.py::test_what_is_masked",
    "evaluation/test_causal_order.py::test_colours_see_all_of_the_past",
    "models/pixelcnnpp/test_pixelcnnpp.py::test_dropout_is_for_training_only",
    "models/pixels/test_pixel_model.py::test_a_step_that_is_not_finite_changes_nothing[pixelcnnpp",
    "models/pixels/test_pixel_model.py::test_half_precision_trains_and_draws[pixelcnnpp",
    "models/vqgan/test_vqgan.py::test_half_precision",
    "models/vqgan/test_vqgan.py::test_trains_against_a_discriminator",
    "models/vqvae2/test_vqvae2.py::test_perceptual_loss",
    # Of pairs of quantizers in a VQVAE2, each a model to compile, one is for every backend.
    "layers/test_quantizer_contract.py::test_in_a_vqvae2[fsq-",
    "layers/test_quantizer_contract.py::test_in_a_vqvae2[bsq-",
    "layers/test_quantizer_contract.py::test_in_a_vqvae2[lfq-",
    "layers/test_quantizer_contract.py::test_in_a_vqvae2[cosine-",
    "layers/test_quantizer_contract.py::test_in_a_vqvae2[gumbel-",
    "layers/test_quantizer_contract.py::test_codes_with_a_depth_in_priors",
    "metrics/test_density_coverage.py",
    "metrics/test_frechet_distance.py",
    "metrics/test_inception_score.py",
    "metrics/test_nearest_neighbours.py",
    "metrics/test_precision_recall.py",
    "models/test_bundled_presets.py::test_priors_draw_the_same_codes",
    "models/test_preset_config.py",
    "models/test_preset_files.py",
    "test_api_pages.py",
    "test_docs.py::test_links_and_pictures_are_there",
    "test_files.py",
    "test_plots.py",
    "test_structure.py",
    "test_types.py",
)
EVERYWHERE = ("test_docs.py::test_docstring_examples_run[keras_vqvae2.layers.",)

# Whole models that train, draw and come back from files: `make test` runs each of these tests on
# one backend, chosen by its name so that each kind of test and of model meets every backend; the
# others run it in `make test-slow`. PyTorch, which compiles nothing, takes eleven of thirteen: a
# seventh was 257 seconds of the processor on JAX, 238 on TensorFlow, and 32 there. What
# backends have been found to differ in stays on all.
SHARED = (
    "callbacks",
    "codes",
    "compression",
    "converters",
    "evaluation",
    "models",
)
ON_ALL = (
    "golden",
    "cached_logits",
    "equals_the_full_pass",
    "half_precision",
    "are_the_same",
    "draw_the_same_codes",
)

# Megabytes: above the first, and at every step above it, a process gives back what it keeps without
# need; above the last the run fails.
GIVE_BACK, STEP, WANTED, LIMIT = 1200, 300, 2500, 4000
give_back_above = GIVE_BACK


def pytest_configure():
    """A worker has a core of its own: the frameworks, not started yet, make no more threads."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    gone = [name for name in ONCE if not (TESTS / name.split("::")[0]).exists()]
    if gone:
        raise pytest.UsageError(f"tests/conftest.py names what is not there: {gone}")
    for item in items:
        name = item.nodeid.removeprefix("tests/")
        if not runs_here(name):
            item.add_marker(pytest.mark.slow)
    # The largest first, while a worker holds little else.
    items.sort(key=lambda item: not item.nodeid.removeprefix("tests/").startswith("test_tutorials"))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish():
    """What is imported stays, and no collection looks through it again: each took 0.4 seconds."""
    keras.utils.set_random_seed(0)  # imports TensorFlow, where it is installed
    gc.collect()
    gc.freeze()


def runs_here(name):
    """Whether `make test` runs the test of this name on this backend."""
    if name.startswith(ONCE):
        return BACKEND == "torch" or name.startswith(EVERYWHERE)
    on_all = any(word in name for word in ON_ALL) and "mixed_float16" not in name
    if name.startswith(SHARED) and not on_all:
        return SHARES[zlib.crc32(name.encode()) % len(SHARES)] == BACKEND
    return True


def pytest_runtest_setup(item):
    """TensorFlow traces for seconds what these tests run once or twice; `compiled` lets it."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tf.config.run_functions_eagerly(item.get_closest_marker("compiled") is None)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown():
    """Gives back what compiled programs and dead models hold, once it is much."""
    global give_back_above
    if in_use() > give_back_above:
        if BACKEND != "torch":  # where this imports a compiler, and has nothing to clear
            keras.backend.clear_session(free_memory=False)
        if BACKEND == "jax":
            import jax

            jax.clear_caches()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        give_back_above = max(GIVE_BACK, in_use() + STEP)


def in_use():
    """The megabytes that this process has in memory; 0 where Linux does not say so."""
    statm = Path("/proc/self/statm")
    pages = int(statm.read_text().split()[1]) if statm.exists() else 0
    return pages * resource.getpagesize() / 1e6


def peak():
    """The most memory that this process has had, in megabytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


PEAKS = {}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    PEAKS[node.gateway.id] = getattr(node, "workeroutput", {}).get("peak", 0)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["peak"] = peak()
        return
    if not PEAKS:
        PEAKS["this process"] = peak()
    if max(PEAKS.values()) > LIMIT and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    peaks = ", ".join(f"{name} {megabytes:.0f} MB" for name, megabytes in PEAKS.items())
    red = any(megabytes > WANTED for megabytes in PEAKS.values())
    terminalreporter.write_line(f"most memory, of {WANTED} MB: {peaks}", red=red)


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def golden():
    """Loads a file of numbers that other projects' code produced (tests/golden/README.md)."""
    from safetensors.numpy import load_file

    return lambda name: load_file(GOLDEN / f"{name}.safetensors")


@pytest.fixture
def gradient():
    """`gradient(f, x)`: the gradient of the sum of `f(x)`, on the current backend."""

    def of_tensorflow(f, x):
        import tensorflow as tf

        x = tf.convert_to_tensor(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(f(x))
        return tape.gradient(y, x).numpy()

    def of_jax(f, x):
        import jax

        return np.asarray(jax.jit(jax.grad(lambda x: f(x).sum()))(x))

    def of_torch(f, x):
        import torch

        x = torch.tensor(x, requires_grad=True)
        f(x).sum().backward()
        return x.grad.numpy()

    return {"tensorflow": of_tensorflow, "jax": of_jax, "torch": of_torch}[BACKEND]


@pytest.fixture
def weight_gradients():
    """`weight_gradients(f, variables)`: the gradients of the scalar `f()`, as NumPy arrays."""

    def of_tensorflow(f, variables):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            y = f()
        gradients = tape.gradient(y, [v.value for v in variables])
        return [tf.convert_to_tensor(g).numpy() for g in gradients]

    def of_jax(f, variables):
        import jax

        def pure(values):
            with keras.StatelessScope(state_mapping=list(zip(variables, values))):
                return f()

        return [np.asarray(g) for g in jax.jit(jax.grad(pure))([v.value for v in variables])]

    def of_torch(f, variables):
        import torch

        gradients = torch.autograd.grad(f(), [v.value for v in variables])
        return [g.numpy() for g in gradients]

    return {"tensorflow": of_tensorflow, "jax": of_jax, "torch": of_torch}[BACKEND]
