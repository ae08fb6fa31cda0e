import inspect
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_vqvae2 import PixelSnailPrior
from keras_vqvae2.models.pixelsnail.pixelsnail_presets import PIXELSNAIL_PRESETS

on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="Keras splits weights on JAX")


def mesh(shape=(1, 4), axes=("batch", "model")):
    # Devices are looked up when something is placed on them, not before.
    return keras.distribution.DeviceMesh(shape, axes, [f"cpu:{i}" for i in range(np.prod(shape))])


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="works there")
def test_other_backends_are_refused():
    with pytest.raises(NotImplementedError, match="Expected the JAX backend"):
        PixelSnailPrior.get_layout_map(mesh())


@on_jax
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"device_mesh": "model"}, "Expected a keras.distribution.DeviceMesh. Received: device_m"),
        ({"model_parallel_dim_name": "m"}, r"two of the axes \('batch', 'model'\).*='m'"),
        ({"data_parallel_dim_name": "model"}, "two of the axes"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PixelSnailPrior.get_layout_map(**{"device_mesh": mesh(), **arguments})


@on_jax
@pytest.mark.parametrize(
    "name", [name for name, entry in PIXELSNAIL_PRESETS.items() if "config" in entry]
)
def test_all_but_a_fortieth_of_the_papers_priors_is_split_into_even_pieces(name):
    layouts = PixelSnailPrior.get_layout_map(mesh((1, 8), ("b", "m")), "m", "b")
    with keras.StatelessScope(initialize_variables=False):
        prior = PixelSnailPrior.from_preset(name, load_weights=False)
    keras.backend.clear_session()
    whole = []
    for variable in prior.trainable_variables:
        layout = layouts[variable.path]  # raises where two rules match
        if layout is None:
            whole.append(variable)
            continue
        assert len(layout.axes) == len(variable.shape), variable.path
        split = [size for size, axis in zip(variable.shape, layout.axes) if axis == "m"]
        assert len(split) == 1 and split[0] % 8 == 0, (variable.path, variable.shape)
    assert sum(np.prod(v.shape) for v in whole) < prior.count_params() / 40
    kernels = [v.path for v in whole if len(v.shape) > 1]
    expected = (
        r"row_context/(embedding|conv_\d)/kernel|block_\d/(layer_\d+/label_table|gather/kernel)"
    )
    assert [path for path in kernels if not re.fullmatch(expected, path)] == []


@on_jax
def test_every_rule_has_a_weight_or_an_output(make):
    conditions = {"level": "bottom", "condition_factors": {"top": 2}, "num_classes": 2}
    prior = make((4, 4), upsampling="learned", **conditions)
    layouts = PixelSnailPrior.get_layout_map(mesh())
    called = ["m/block_0", "m/first", "m/conditioner_top", "m/output_stack/block_0"]
    paths = [v.path for v in prior.variables] + [f"{path}/output" for path in called]
    for rule in layouts:
        assert any(re.fullmatch(rule, path) for path in paths), rule


@on_jax
def test_the_example_runs(capsys):
    text = inspect.getdoc(PixelSnailPrior.get_layout_map)
    (example,) = re.findall(r"```\n(.*?)```", text, re.DOTALL)
    exec(compile(textwrap.dedent(example), "example", "exec"), {})
    assert "'model'" in capsys.readouterr().out


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    script = Path(__file__).parents[1] / "train_sharded.py"
    command = [sys.executable, script, "pixelsnail", folder, "1x1", "1x4", "2x2"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: np.load(folder / f"{name}.npz") for name in ("1x1", "1x4", "2x2")}


def named(result, kind):
    start = f"{kind}:"
    return {key.removeprefix(start): result[key] for key in result if key.startswith(start)}


@on_jax
@pytest.mark.slow
@pytest.mark.parametrize("name", ["1x4", "2x2"])
def test_four_devices_train_and_draw_as_one(results, name):
    one, many = results["1x1"], results[name]
    assert len(one["losses"]) == 5 and one["losses"][-1] < one["losses"][0]
    np.testing.assert_allclose(many["losses"], one["losses"], atol=1e-4)
    weights = named(one, "weight")
    assert len(weights) > 50
    for path, weight in named(many, "weight").items():
        np.testing.assert_allclose(weight, weights[path], atol=1e-3, err_msg=path)
    np.testing.assert_array_equal(many["drawn"], one["drawn"])
    np.testing.assert_array_equal(many["drawn_loaded"], one["drawn"])


@on_jax
@pytest.mark.slow
@pytest.mark.parametrize("name, parts", [("1x4", 4), ("2x2", 2)])
def test_devices_hold_pieces(results, name, parts):
    shapes = {path: weight.shape for path, weight in named(results[name], "weight").items()}
    for kind in ("piece", "loaded_piece"):
        pieces = named(results[name], kind)
        for path, axis in {
            "first/kernel": 3,
            "conditioner_top/block_0/conv_1/kernel": 3,
            "block_0/layer_0/conv_2/kernel": 2,
            "block_0/layer_0/condition_projection/kernel": 0,
            "block_0/attention/key/kernel": 1,
            "output_stack/logits/bias": 0,
        }.items():
            expected = list(shapes[path])
            expected[axis] //= parts
            assert pieces[path].tolist() == expected, (kind, path)
    optimizer = named(results[name], "optimizer_piece")
    (momentum,) = [p for p in optimizer if p.endswith("/block_0_layer_0_conv_2_kernel_momentum")]
    expected = named(results[name], "piece")["block_0/layer_0/conv_2/kernel"]
    np.testing.assert_array_equal(optimizer[momentum], expected)
