import importlib.util
from pathlib import Path

import pytest

from keras_vqvae2 import VQVAE2

RECIPES = sorted((Path(__file__).parents[2] / "examples" / "recipes").glob("*.py"))


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_makes_the_preset_of_its_name(path):
    module = load(path)
    for word in ("Command", "Hardware", "Wall time", "PSNR"):
        assert word in module.__doc__
    for laptop in (False, True):
        recipe = module.recipe(laptop=laptop)
        model = VQVAE2(**recipe["model"])
        assert model.count_params() == VQVAE2.presets[path.stem]["parameters"]
        assert recipe["steps"] % recipe["steps_per_epoch"] == 0
    assert module.recipe(laptop=True)["steps"] < module.recipe()["steps"]
