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

from keras_vqvae2 import MaskedTransformerPrior, TransformerPrior

on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="Keras splits weights on JAX")


def mesh(shape=(1, 4)):
    # Devices are looked up when something is placed on them, not before.
    devices = [f"cpu:{i}" for i in range(np.prod(shape))]
    return keras.distribution.DeviceMesh(shape, ("batch", "model"), devices)


@on_jax
@pytest.mark.parametrize(
    "prior_class, name",
    [
        (TransformerPrior, "transformer_llamagen_b"),
        (TransformerPrior, "transformer_llamagen_l"),
        (MaskedTransformerPrior, "masked_transformer_maskgit"),
    ],
)
def test_nearly_all_of_the_presets_is_split_into_even_pieces(prior_class, name):
    layouts = prior_class.get_layout_map(mesh((1, 4)))
    with keras.StatelessScope(initialize_variables=False):
        prior = prior_class.from_preset(name, load_weights=False)
    keras.backend.clear_session()
    whole = []
    for variable in prior.trainable_variables:
        layout = layouts[variable.path]  # raises where two rules match
        if layout is None:
            whole.append(variable)
            continue
        assert len(layout.axes) == len(variable.shape), variable.path
        split = [size for size, axis in zip(variable.shape, layout.axes) if axis == "model"]
        assert len(split) == 1 and split[0] % 4 == 0, (variable.path, variable.shape)
    assert sum(np.prod(v.shape) for v in whole) < prior.count_params() / 50


@on_jax
def test_every_rule_has_a_weight_or_an_output():
    small = {"hidden_units": 16, "num_layers": 1, "num_heads": 2, "feed_forward_units": 24}
    small |= {"level": "bottom", "condition_factors": {"top": 2}, "condition_blocks": 1}
    priors = [
        TransformerPrior((4, 4), **small),
        MaskedTransformerPrior((4, 4), post_norm=True, **small),
    ]
    paths = [v.path for prior in priors for v in prior.variables]
    paths += ["m/block_0/output", "m/conditioner_top/output"]
    for rule in TransformerPrior.get_layout_map(mesh()):
        assert any(re.fullmatch(rule, path) for path in paths), rule


@on_jax
def test_the_example_runs(capsys):
    text = inspect.getdoc(TransformerPrior.get_layout_map)
    (example,) = re.findall(r"```\n(.*?)```", text, re.DOTALL)
    exec(compile(textwrap.dedent(example), "example", "exec"), {})
    assert "'model'" in capsys.readouterr().out


@on_jax
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["transformer", "masked_transformer"])
def test_four_devices_train_and_draw_as_one(tmp_path, kind):
    script = Path(__file__).parents[1] / "train_sharded.py"
    command = [sys.executable, script, kind, tmp_path, "1x1", "1x4", "2x2"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    one, *many = (np.load(tmp_path / f"{name}.npz") for name in ("1x1", "1x4", "2x2"))
    assert len(set(one["losses"])) == 5
    weights = {key: one[key] for key in one if key.startswith("weight:")}
    assert len(weights) > 20
    for result, parts in zip(many, (4, 2)):
        np.testing.assert_allclose(result["losses"], one["losses"], atol=1e-4)
        for key, weight in weights.items():
            np.testing.assert_allclose(result[key], weight, atol=1e-3, err_msg=key)
        np.testing.assert_array_equal(result["drawn"], one["drawn"])
        np.testing.assert_array_equal(result["drawn_loaded"], one["drawn"])
        shape = list(weights["weight:block_0/attention/query/kernel"].shape)
        shape[1] //= parts
        for kind_of_piece in ("piece", "loaded_piece"):
            assert result[f"{kind_of_piece}:block_0/attention/query/kernel"].tolist() == shape
