import importlib.util
import inspect
from pathlib import Path

import pytest

from keras_vqvae2 import (
    VQVAE2,
    GatedPixelCNN,
    GatedPixelCNNPrior,
    HierarchicalImageGenerator,
    MaskedTransformerPrior,
    PixelCNN,
    PixelCNNPlusPlus,
    PixelRNN,
    PixelSnailPrior,
    TransformerPrior,
)

FOLDER = Path(__file__).parents[2] / "examples" / "recipes"
RECIPES = sorted(FOLDER.glob("vqvae2_*.py"))
PRIORS = sorted(FOLDER.glob("priors_*.py"))


# What train_prior.py reads off the data set of codes, and what is not the architecture's.
FROM_DATA = {"condition_factors", "level", "num_classes", "num_embeddings", "image_shape"}
FROM_DATA |= {"condition_embeddings", "codes_fingerprint", "dtype", "gradient_checkpointing"}


def defaults(model_class):
    """The arguments that a constructor can do without, and what it does then."""
    parameters = inspect.signature(model_class.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


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
    preset = VQVAE2.presets[path.stem]
    full, laptop = (module.recipe(laptop=laptop) for laptop in (False, True))
    assert VQVAE2(**full["model"]).count_params() == preset["parameters"]
    small = VQVAE2(**laptop["model"])
    assert small.image_shape == preset["image_shape"]
    if "directory" in preset:  # weights that were trained
        assert small.count_params() == preset["parameters"]
    else:
        assert small.count_params() < preset["parameters"] / 4
    for recipe in (full, laptop):
        assert recipe["steps"] % recipe["steps_per_epoch"] == 0
    assert laptop["steps"] < full["steps"]


def test_every_bundled_generator_has_its_recipes():
    for prefix, paths in (("vqvae2_", RECIPES), ("priors_", PRIORS)):
        names = {path.stem.removeprefix(prefix) for path in paths}
        assert names == {*HierarchicalImageGenerator.presets, "ffhq_1024"}


def prior_cases():
    for path in PRIORS:
        name = path.stem.removeprefix("priors_")
        levels = ("top", "middle", "bottom") if name == "ffhq_1024" else ("top", "bottom")
        for level in levels:
            yield pytest.param(path, level, f"pixelsnail_{name}_{level}", id=f"{name}-{level}")


@pytest.mark.parametrize("path, level, name", [*prior_cases()])
def test_a_priors_recipe_makes_the_priors_of_its_name(path, level, name):
    module = load(path)
    for word in ("Command", "Hardware", "Wall time", "nats"):
        assert word in module.__doc__
    preset = PixelSnailPrior.presets[name]
    full, laptop = (module.recipe(level, laptop=laptop) for laptop in (False, True))
    assert full["prior"] is laptop["prior"] is PixelSnailPrior
    if "directory" in preset:
        config = PixelSnailPrior.from_preset(name, load_weights=False).get_config()
        for argument, value in full["model"].items():
            assert config[argument] == value, argument
        assert laptop["model"] == full["model"]
    else:  # a thousand million parameters: compared, not built
        config = {**defaults(PixelSnailPrior), **preset["config"]}
        for argument, value in {**defaults(PixelSnailPrior), **full["model"]}.items():
            assert config[argument] == value or argument in FROM_DATA, argument
    for recipe in (full, laptop):
        assert recipe["steps"] % recipe["steps_per_epoch"] == 0
    assert laptop["steps"] < full["steps"]


@pytest.mark.parametrize(
    "name, prior, rows, parameters",
    [
        ("transformers_clothing_64", TransformerPrior, 8, 5e6),
        ("masked_transformers_clothing_64", MaskedTransformerPrior, 8, 5e6),
        ("transformers_eurosat_64", TransformerPrior, 4, 2.5e6),
        ("masked_transformers_eurosat_64", MaskedTransformerPrior, 4, 2.5e6),
    ],
)
def test_recipes_of_transformers_make_priors_of_a_pixelsnails_size(name, prior, rows, parameters):
    module = load(FOLDER / f"{name}.py")
    for word in ("Command", "Hardware"):
        assert word in module.__doc__
    levels = (("top", (rows, rows), {}), ("bottom", (2 * rows, 2 * rows), {"top": 2}))
    for level, shape, factors in levels:
        full, laptop = (module.recipe(level, laptop=laptop) for laptop in (False, True))
        assert full["prior"] is prior and full["model"] == laptop["model"]
        assert laptop["steps"] < full["steps"]
        for recipe in (full, laptop):
            assert recipe["steps"] % recipe["steps_per_epoch"] == 0
        arguments = {"condition_factors": factors, "num_classes": 10, **full["model"]}
        made = prior(shape, level=level, **arguments).count_params()
        assert made == pytest.approx(parameters, rel=0.3)


def test_the_recipe_of_a_gated_pixelcnn_stands_in_for_a_pixelsnail():
    module = load(FOLDER / "gated_pixelcnn_eurosat_64.py")
    full, laptop = (module.recipe("top", laptop=laptop) for laptop in (False, True))
    assert full["prior"] is GatedPixelCNNPrior and full["model"] == laptop["model"]
    for recipe in (full, laptop):
        assert recipe["steps"] % recipe["steps_per_epoch"] == 0
    made = GatedPixelCNNPrior((4, 4), num_classes=10, **full["model"])
    theirs = PixelSnailPrior.presets["pixelsnail_eurosat_64_top"]["parameters"]
    assert made.count_params() == pytest.approx(theirs, rel=0.3)


def test_the_laptop_priors_of_ffhq_are_small():
    module = load(FOLDER / "priors_ffhq_1024.py")
    shapes = {"top": (32, 32), "middle": (64, 64), "bottom": (128, 128)}
    factors = {"top": {}, "middle": {"top": 2}, "bottom": {"top": 4, "middle": 2}}
    for level, shape in shapes.items():
        model = module.recipe(level, laptop=True)["model"]
        prior = PixelSnailPrior(shape, level=level, condition_factors=factors[level], **model)
        assert prior.count_params() < 2e6


def test_the_recipes_of_the_first_vqvae_fit_each_other():
    stage_1, stage_2 = (load(FOLDER / f"{n}.py") for n in ("vqvae_2017", "gated_pixelcnn_2017"))
    for laptop, shape in ((False, (32, 32)), (True, (16, 16))):
        vqvae = VQVAE2(**stage_1.recipe(laptop=laptop)["model"])
        (level,) = vqvae.levels
        assert vqvae.code_shapes()[level] == shape
        recipe = stage_2.recipe(level, laptop=laptop)
        assert recipe["prior"] is GatedPixelCNNPrior
        if laptop:
            prior = GatedPixelCNNPrior(shape, vqvae.num_embeddings[level], level, **recipe["model"])
            assert 2e5 < prior.count_params() < 1.1e6


@pytest.mark.parametrize(
    "name, model",
    [
        ("pixelcnnpp", PixelCNNPlusPlus),
        ("gated_pixelcnn", GatedPixelCNN),
        ("pixelcnn", PixelCNN),
        ("row_lstm", PixelRNN),
        ("diagonal_bilstm", PixelRNN),
    ],
)
def test_recipes_of_pixels_make_small_models(name, model):
    module = load(FOLDER / f"{name}_cifar10.py")
    for word in ("Command", "Hardware", "Wall time", "bits/dim"):
        assert word in module.__doc__
    full, laptop = (module.recipe(laptop=laptop) for laptop in (False, True))
    assert full["model"] == laptop["model"] and laptop["steps"] < full["steps"]
    for recipe in (full, laptop):
        assert recipe["pixel_model"] is model
        assert recipe["steps"] % recipe["steps_per_epoch"] == 0
    assert full["model"].get("kind", name) == name
    made = model(**full["model"], num_classes=10)
    assert 4 * made.count_params() < 8e6  # bytes of a preset
