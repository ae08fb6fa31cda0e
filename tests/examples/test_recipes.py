import importlib.util
from pathlib import Path

import pytest

from keras_vqvae2 import VQVAE2, PixelSnailPrior

FOLDER = Path(__file__).parents[2] / "examples" / "recipes"
RECIPES = sorted(FOLDER.glob("vqvae2_*.py"))


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


@pytest.mark.parametrize("level", ["top", "bottom"])
def test_the_priors_recipe_makes_the_bundled_priors(level):
    module = load(FOLDER / "priors_imagenette_128.py")
    for word in ("Command", "Hardware", "Wall time", "nats"):
        assert word in module.__doc__
    bundled = PixelSnailPrior.from_preset(f"pixelsnail_imagenette_128_{level}", load_weights=False)
    for laptop in (False, True):
        recipe = module.recipe(level, laptop=laptop)
        config = bundled.get_config()
        for name, value in recipe["model"].items():
            assert config[name] == value, name
        assert recipe["steps"] % recipe["steps_per_epoch"] == 0
    assert module.recipe(level, laptop=True)["steps"] < module.recipe(level)["steps"]
