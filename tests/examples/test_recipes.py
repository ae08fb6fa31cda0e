import importlib.util
from pathlib import Path

import pytest

from keras_vqvae2 import VQVAE2, HierarchicalImageGenerator, PixelSnailPrior

FOLDER = Path(__file__).parents[2] / "examples" / "recipes"
RECIPES = sorted(FOLDER.glob("vqvae2_*.py"))
PRIORS = sorted(FOLDER.glob("priors_*.py"))


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


def test_every_bundled_generator_has_its_recipes():
    for prefix, paths in (("vqvae2_", RECIPES), ("priors_", PRIORS)):
        names = {path.stem.removeprefix(prefix) for path in paths}
        assert names == set(HierarchicalImageGenerator.presets)


@pytest.mark.parametrize("path", PRIORS, ids=lambda p: p.stem)
@pytest.mark.parametrize("level", ["top", "bottom"])
def test_a_priors_recipe_makes_the_bundled_priors(path, level):
    module = load(path)
    for word in ("Command", "Hardware", "Wall time", "nats"):
        assert word in module.__doc__
    name = f"pixelsnail_{path.stem.removeprefix('priors_')}_{level}"
    bundled = PixelSnailPrior.from_preset(name, load_weights=False)
    for laptop in (False, True):
        recipe = module.recipe(level, laptop=laptop)
        config = bundled.get_config()
        for name, value in recipe["model"].items():
            assert config[name] == value, name
        assert recipe["steps"] % recipe["steps_per_epoch"] == 0
    assert module.recipe(level, laptop=True)["steps"] < module.recipe(level)["steps"]
