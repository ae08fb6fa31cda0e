import collections
import re
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from absl import flags
from PIL import Image

from keras_vqvae2 import VQVAE2, HierarchicalImageGenerator, PixelSnailPrior, Replicas
from keras_vqvae2.codes import encode_dataset

EXAMPLES = Path(__file__).parents[2] / "examples"
SOURCES = {path.stem: path.read_text() for path in sorted(EXAMPLES.glob("*.py"))}
SCRIPTS = [name for name, text in SOURCES.items() if '__name__ == "__main__"' in text]
COMMAND_LINES = [name for name in SCRIPTS if re.search(r"\n    \w+\.run\(\s*\"", SOURCES[name])]
# What must differ: the default of a recipe, a preset or a batch, and which folders do.
OWN_DEFAULT = {"preset", "recipe", "batch_size", "image_size"}
OWN_HELP = {
    ("app", "preset"),
    ("train_vqvae2", "validation"),
    ("finetune_decoder", "validation"),
    ("train_pixel_model", "validation"),
    ("demo", "vqvae"),
    ("draw_pixels", "temperature"),
    ("evaluate", "image_size"),
    ("fit_classifier", "classifier"),
}


def last_line(done):
    assert done.code == 1, done
    assert "Traceback" not in done.err
    return done.err.splitlines()[-1]


def test_all_scripts_are_found():
    assert {"demo", "train_vqvae2", "encode_dataset", "train_prior", "generate"} <= {*COMMAND_LINES}
    assert {"evaluate", "choose_settings"} <= {*COMMAND_LINES}


def test_help_teaches_and_shared_flags_are_the_same_everywhere(call):
    helps, defaults = collections.defaultdict(dict), collections.defaultdict(dict)
    for script in SCRIPTS:
        done = call(script, "--help")
        if "pip install" in done.err:
            continue  # what it needs is not installed
        assert done.code == 1 and "Traceback" not in done.err
        assert done.out.startswith(SOURCES[script].removeprefix('"""').splitlines()[0])
        assert done.flags
        for name, flag in done.flags.items():
            assert re.search(rf"--(\[no\])?{name}\b", done.out), (script, name)
            if script in COMMAND_LINES and (script, name) not in OWN_HELP:
                helps[name][script] = flag.help
                defaults[name][script] = flag.default
    for name, of_scripts in helps.items():
        assert len({*of_scripts.values()}) == 1, (name, of_scripts)
        if name not in OWN_DEFAULT:
            assert len({*map(str, defaults[name].values())}) == 1, (name, defaults[name])
    assert len(helps["output"]) >= 6 and len(helps["seed"]) >= 6


@pytest.mark.parametrize(
    "script, default, required",
    [
        ("train_vqvae2", "auto", ["--data=photos"]),
        ("finetune_decoder", "auto", ["--data=photos", "--preset=clothing_64"]),
        ("train_prior", True, ["--codes=codes", "--level=top"]),
        ("train_pixel_model", True, ["--data=photos"]),
    ],
)
def test_a_recipe_says_whether_tensorflow_compiles_and_xla_wins_over_it(
    load, script, default, required
):
    jit_compile = load(script).run_folder.jit_compile
    own = (default, False, True) if keras.backend.backend() == "tensorflow" else ("auto",) * 3
    for flag, expected in (([], own), (["--xla"], (True,) * 3), (["--noxla"], (False,) * 3)):
        flags.FLAGS.unparse_flags()
        flags.FLAGS([script, "--output=run", *required, *flag])
        recipes = ({}, {"jit_compile": False}, {"jit_compile": True})
        assert tuple(jit_compile(recipe, default) for recipe in recipes) == expected


@pytest.mark.parametrize("script", COMMAND_LINES)
def test_bad_flags_are_one_sentence(call, script):
    done = call(script, "--no_such_flag=1")
    if "pip install" in done.err:
        pytest.skip(done.err.strip())
    assert last_line(done) == done.err.strip()
    assert done.err.startswith(f"{script}: Unknown command line flag 'no_such_flag'")
    assert "--help" in done.err
    if "mark_flags_as_required" in SOURCES[script]:
        done = call(script)
        assert last_line(done) == done.err.strip()
        assert re.match(rf"{script}: Expected --\w+.*\. Received: \[\]\. --help", done.err)
        for name in re.findall(r"Expected (.*?)\. Rec", done.err)[0].split(", "):
            assert done.flags[name.removeprefix("--")].default is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images, codes and a generator, small; and a file where a folder is expected."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "images" / name).mkdir(parents=True)
        (folder / "flat").mkdir(exist_ok=True)
        for i in range(2):
            image = Image.fromarray(rng.integers(256, size=(16, 16, 3), dtype="uint8"))
            image.save(folder / "images" / name / f"{i}.png")
            image.save(folder / "flat" / f"{name}-{i}.png")
    vqvae = VQVAE2((16, 16, 3), num_embeddings=8, hidden_units=8, residual_units=4)
    vqvae.save_to_preset(folder / "vqvae")
    pixels = rng.integers(256, size=(6, 16, 16, 3), dtype="uint8")
    encode_dataset(vqvae, pixels, folder / "codes", verbose=0)
    sizes = {"hidden_units": 8, "residual_units": 4, "num_blocks": 1, "block_layers": 1}
    sizes |= {"num_embeddings": 8, "output_blocks": 0, "attention_heads": 2, "num_classes": 2}
    top = PixelSnailPrior((2, 2), level="top", **sizes)
    bottom = PixelSnailPrior((4, 4), level="bottom", condition_factors={"top": 2}, **sizes)
    generator = HierarchicalImageGenerator(vqvae, [top, bottom], ["cat", "dog"])
    generator.save_to_preset(folder / "generator")
    (folder / "file").write_text("no folder")
    (folder / "empty.py").write_text("")
    old = {"model": {}, "batch_size": 1, "steps": 1, "steps_per_epoch": 1, "optimizer": None}
    for name, arguments, recipe in (
        ("old", "level, ", old),
        ("misspelt", "level, ", {**old, "jit_compiled": False}),
        ("short", "", {"steps": 1}),
    ):
        text = f"def recipe({arguments}laptop=False):\n    return {recipe}\n"
        (folder / f"{name}.py").write_text(text)
    return folder


OUT = "--output={out}"
DATA, CODES = "--data={folder}/flat", "--codes={folder}/codes"
GENERATOR, VQVAE = "--preset={folder}/generator", "--preset={folder}/vqvae"
CLASSES = "--data={folder}/images"
SPLIT = "--model_parallel=2"
TOP = ("--level=top", "--validation_split=")
TRAIN, VALIDATION = "--train={folder}/images", "--validation={folder}/images"
BAD_INPUT = [
    ("train_vqvae2", [OUT, "--data=nowhere"], "Expected a folder of images.*: --data=nowhere"),
    ("train_vqvae2", [OUT, "--data=/no/where"], "Expected a folder of images.*: --data=/no/where"),
    ("train_vqvae2", [OUT, DATA, "--validation=no"], "Expected a folder.*: --validation=no"),
    ("train_vqvae2", [OUT, DATA, "--image_size=20"], "multiples of 8"),
    ("train_vqvae2", [OUT, DATA, "--steps=0"], "--steps=0: 0 is not a positive integer"),
    ("train_vqvae2", [OUT, DATA, "--recipe=no.py"], "examples/recipes.*: --recipe=no.py"),
    ("train_vqvae2", [OUT, DATA, "--recipe={folder}/empty.py"], "a function `recipe`"),
    ("train_vqvae2", ["--output={folder}/file/run", DATA], "Choose another --output"),
    ("train_vqvae2", [OUT, DATA, "--engine=numpy"], "value should be one of"),
    ("train_vqvae2", [OUT, "data=photos", DATA], "Expected flags.*Received: data=photos"),
    ("train_prior", [OUT, "--codes=nowhere", "--level=top"], "encode_dataset has finished"),
    ("train_prior", [OUT, CODES, "--level=middle"], r"\['top', 'bottom'\].*level='middle'"),
    ("train_prior", [OUT, CODES, "--level=top"], "--validation_split= with nothing"),
    ("train_prior", [OUT, CODES, *TOP, SPLIT, "--devices=1"], "Received: model_parallel=2"),
    ("train_prior", [OUT, CODES, *TOP, "--recipe={folder}/old.py"], "a class of priors.*: None"),
    ("train_prior", [OUT, CODES, *TOP, "--recipe={folder}/misspelt.py"], "has ..jit_compiled"),
    ("train_vqvae2", [OUT, DATA, "--recipe={folder}/short.py"], "lacks ..batch_size', 'data', 'mo"),
    ("finetune_decoder", [OUT, DATA, VQVAE, "--recipe={folder}/short.py"], "lacks ..adversarial"),
    ("train_pixel_model", [OUT, DATA, "--recipe={folder}/old.py"], r"recipe\(laptop\).*\(level"),
    ("encode_dataset", [OUT, "--preset=none", DATA], "Expected the name of a preset of VQVAE2"),
    ("encode_dataset", [OUT, VQVAE, "--data=nowhere"], "Expected a folder of images"),
    ("encode_dataset", [OUT, VQVAE, DATA], "in a class folder.*Without classes: --nolabels"),
    ("encode_dataset", [OUT, VQVAE, CLASSES, "--crops=2"], "a --resize above 16.*--resize=None"),
    ("encode_dataset", [OUT, VQVAE, CLASSES, "--num_workers=2"], "expected --engine=grain"),
    (
        "encode_dataset",
        [OUT, VQVAE, CLASSES, "--worker=1"],
        "--worker below 1. Received: --worker=1",
    ),
    ("encode_dataset", [OUT, GENERATOR, CLASSES], "which holds a HierarchicalImageGenerator"),
    ("generate", [OUT], "Expected --preset, or --vqvae and --priors"),
    ("generate", [OUT, "--preset=none", "--worker=2"], "--worker below 1. Received: --worker=2"),
    ("generate", [OUT, "--preset=vqvae2_imagenette_128"], "Expected the name of a preset of Hier"),
    ("generate", [OUT, GENERATOR, "--classes=cat,cow"], r"\['cat', 'dog'\].*--classes=cow"),
    ("generate", [OUT, GENERATOR, "--top_p=high"], "Expected a number.*--top_p=high"),
    ("generate", [OUT, GENERATOR, "--top_p=botom=0.5"], "the levels.*top_p={'botom': 0.5}"),
    ("generate", [OUT, GENERATOR, "--register=no.py"], "Expected a Python file. Received: no.py"),
    ("generate", ["--output={folder}/file", GENERATOR], "Choose another --output"),
    ("evaluate", [OUT, TRAIN, VALIDATION], "Expected --preset or --images, one of them"),
    ("evaluate", [OUT, TRAIN, VALIDATION, GENERATOR, "--rates=2"], "numbers up to 1.*--rates=2"),
    ("evaluate", [OUT, TRAIN, "--validation=no", GENERATOR], "Expected a folder of images"),
    ("choose_settings", [OUT, VALIDATION, "--preset=none"], "Expected the name of a preset"),
    ("choose_settings", [OUT, "--validation=no", GENERATOR], "Expected a folder of images"),
    ("choose_settings", [OUT, VALIDATION, GENERATOR, "--top_ps=high"], "positive numbers up to 1"),
    ("demo", ["--preset=none"], "Expected the name of a preset of HierarchicalImageGenerator"),
    ("demo", ["--samples={folder}/file/x.png"], "Choose another --samples"),
]


@pytest.mark.parametrize("script, arguments, message", BAD_INPUT)
def test_bad_input_is_one_sentence_before_the_work(
    call, folder, tmp_path, script, arguments, message
):
    arguments = [text.format(folder=folder, out=tmp_path / "out") for text in arguments]
    done = call(script, *arguments)
    assert last_line(done).startswith(f"{script}: ")
    assert re.search(message, last_line(done)), last_line(done)
    assert "output:" not in done.out  # it had not begun


SCRIPT = '''
"""A script."""
import command_line

def work():
    {}

command_line.run("script", work, "Start it again.")
'''


@pytest.mark.parametrize(
    "work, code, message",
    [
        ("print('done')", 0, ""),
        ("raise SystemExit(0)", 0, ""),
        ("open('nowhere.txt')", 1, "script: [Errno 2] No such file or directory: 'nowhere.txt'\n"),
        ("raise ValueError('Expected\\n  one line.')", 1, "script: Expected one line.\n"),
        ("raise KeyboardInterrupt", 130, "\nscript: interrupted. Start it again.\n"),
    ],
)
def test_exit_codes(call, tmp_path, work, code, message):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(work))
    done = call(script)
    assert (done.code, done.err) == (code, message)


def test_ctrl_c_keeps_what_is_drawn_and_the_same_command_goes_on(
    call, folder, tmp_path, monkeypatch
):
    generate, starts = HierarchicalImageGenerator.generate, []

    def stopped_in_the_second_batch(self, *arguments, first_image, **options):
        starts.append(first_image)
        if starts == [0, 2]:
            raise KeyboardInterrupt
        return generate(self, *arguments, first_image=first_image, **options)

    monkeypatch.setattr(HierarchicalImageGenerator, "generate", stopped_in_the_second_batch)
    flags = [f"--preset={folder}/generator", "--images_per_class=2", "--batch_size=2"]
    flags.append(f"--output={tmp_path}/samples")
    done = call("generate", *flags)
    assert done.code == 130
    assert done.err.endswith("\ngenerate: interrupted. The same command goes on.\n")
    names = [path.name for path in sorted((tmp_path / "samples").iterdir())]
    assert names == ["image-000000.png", "image-000001.png", "images.plan.json"]
    assert call("generate", *flags).code == 0 and starts == [0, 2, 2]
    assert (tmp_path / "samples" / "grid.png").exists()


def test_images_are_written_rounded(call, folder, tmp_path, monkeypatch):
    def nearly_white(self, count, **options):
        return np.full((count, 16, 16, 3), 0.999, "float32")

    monkeypatch.setattr(HierarchicalImageGenerator, "generate", nearly_white)
    flags = [f"--preset={folder}/generator", "--images_per_class=1", f"--output={tmp_path}/out"]
    done = call("generate", *flags)
    assert done.code == 0, done.err
    with Image.open(tmp_path / "out" / "image-000000.png") as image:
        assert image.getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize(
    "there, wanted, numbers, names",
    [
        (sorted(map(str, range(11))), "2,10", [3, 2], ["2", "10"]),
        (["cat", "dog"], "1,cat", [1, 0], ["dog", "cat"]),
    ],
)
def test_the_name_of_a_class_wins_over_its_number(load, there, wanted, numbers, names):
    generate = load("generate")
    flags.FLAGS(["generate", "--output=run", f"--classes={wanted}"])
    generator = SimpleNamespace(class_names=there, num_classes=len(there))
    assert generate.chosen_classes(generator) == (numbers, names)


def test_what_nobody_expects_keeps_its_traceback(call, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format("[][0]"))
    with pytest.raises(IndexError):
        call(script)


RECIPE = """
import keras
import keras_vqvae2

def recipe({level}laptop=False):
    return {{
        {model},
        "batch_size": 4,
        "steps": 4,
        "steps_per_epoch": 4,
        "optimizer": keras.optimizers.SGD(0.5, momentum=0.9),
    }}
"""
STAGE_1 = """"model": {
            "hidden_units": 8, "residual_units": 4, "image_shape": (16, 16, 3), "num_levels": 1,
            "quantizer": keras_vqvae2.layers.VectorQuantizer(8, 4, restart_threshold=0.0),
        },
        "data": {"crop": "random", "flip": True}"""
STAGE_2 = """"prior": keras_vqvae2.PixelSnailPrior, "model": {
            "hidden_units": 8, "residual_units": 4, "num_blocks": 1, "block_layers": 1,
            "output_blocks": 0, "attention_heads": 0, "kernel_size": 3, "dropout": 0.0,
        }"""


@pytest.mark.parametrize(
    "script, model_class, recipe, arguments",
    [
        (
            "train_vqvae2",
            VQVAE2,
            RECIPE.format(level="", model=STAGE_1),
            [DATA, "--picture_every=9"],
        ),
        (
            "train_prior",
            PixelSnailPrior,
            RECIPE.format(level="level, ", model=STAGE_2),
            [CODES, *TOP, "--noxla"],
        ),
    ],
    ids=["train_vqvae2", "train_prior"],
)
def test_accumulated_batches_are_one_large_batch(
    load, folder, tmp_path, monkeypatch, script, model_class, recipe, arguments
):
    (tmp_path / "recipe.py").write_text(recipe)
    module = load(script)
    build = module.build

    def with_codes_in_place(*arguments):  # or the first batch, small or large, would place them
        model = build(*arguments)
        for layer in model._flatten_layers():
            if hasattr(layer, "initialized"):
                layer.initialized.assign(1)
        return model

    monkeypatch.setattr(module, "build", with_codes_in_place)
    weights = []
    for batch, steps, parts in ((4, 2, 1), (2, 4, 2)):
        output = tmp_path / f"{batch}-{parts}"
        flags.FLAGS(
            [
                script,
                f"--output={output}",
                f"--recipe={tmp_path}/recipe.py",
                f"--batch_size={batch}",
                f"--steps={steps}",
                f"--accumulate_steps={parts}",
                *(text.format(folder=folder) for text in arguments),
            ]
        )
        module.train(Replicas(1))
        model = model_class.from_preset(output / "preset")
        weights.append([keras.ops.convert_to_numpy(v) for v in model.trainable_variables])
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
