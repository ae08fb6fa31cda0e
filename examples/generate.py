"""Invents images with a VQVAE2 and its priors, and shows them in a grid, a row a class.

    python examples/generate.py --preset=imagenette_128 --output=runs/samples

From parts that were trained here, kept as one preset on the way:

    python examples/generate.py --vqvae=vqvae2_imagenette_128 --codes=runs/codes \\
        --priors=runs/prior_top/preset,runs/prior_bottom/preset --save_preset=runs/generator \\
        --output=runs/samples

The data set --codes gives the classes their names. --temperature, --top_k, --top_p,
--guidance_scale and --guidance_power become the saved generator's own settings.

--output receives image-NNNNNN.png, one a sample, grid.png, and images.plan.json, what they are made
with: another generator, precision, setting, seed, class or number of images is refused there.
Image i of a seed is always the same: after a kill the same command draws only what is missing, and
several processes that share --output draw a part each, in any order:

    for worker in 0 1 2 3; do
        CUDA_VISIBLE_DEVICES=$worker python examples/generate.py --num_workers=4 \\
            --worker=$worker --preset=imagenette_128 --images_per_class=500 --output=runs/samples &
    done; wait

The one that finds all images makes the grid; worker 0 writes what --save_preset asks for.
"""

import json
from pathlib import Path

import command_line
import keras
import numpy as np
import output_plan
import reports
from absl import flags

import keras_vqvae2
from keras_vqvae2.files import replacing

PLAN, IMAGES = "images.plan.json", "image-*.png"

FLAGS = flags.FLAGS
command_line.define("preset", "output", "images_per_class", "seed", "batch_size", "precision")
command_line.define("num_workers", "worker", "codes", "register")
flags.DEFINE_string("vqvae", None, "In place of --preset: the preset of a VQVAE2, and")
flags.DEFINE_list("priors", None, "the presets of its priors.")
flags.DEFINE_string("save_preset", None, "Directory to save the generator in, priors in float16.")
flags.DEFINE_list("classes", None, "Names of classes, or else numbers; all by default.")
for option, what in (
    ("temperature", "Divides the logits"),
    ("top_k", "Only the k most probable codes"),
    ("top_p", "Only the codes that together reach this probability"),
    ("guidance_scale", "How much to obey the label; priors trained with label_dropout"),
    ("guidance_power", "The scale rises from 1 over the map, the later the higher the power"),
):
    flags.DEFINE_string(option, None, f"{what}: a number, or one a level as top=0.9,bottom=0.8.")
flags.mark_flags_as_required(["output"])


def open_generator():
    if (FLAGS.preset is None) == (FLAGS.vqvae is None) or bool(FLAGS.vqvae) != bool(FLAGS.priors):
        raise ValueError(
            "Expected --preset, or --vqvae and --priors. Received: "
            f"--preset={FLAGS.preset}, --vqvae={FLAGS.vqvae}, --priors={FLAGS.priors}"
        )
    options = command_line.precision()
    if FLAGS.preset is not None:
        return keras_vqvae2.HierarchicalImageGenerator.from_preset(FLAGS.preset, **options)
    vqvae = keras_vqvae2.VQVAE2.from_preset(FLAGS.vqvae, **options)
    priors = [keras_vqvae2.CodePrior.from_preset(prior, **options) for prior in FLAGS.priors]
    names = None
    if FLAGS.codes is not None:
        features = keras_vqvae2.codes.open_code_dataset(FLAGS.codes, vqvae).info.features
        if "label" not in features:
            raise ValueError(
                "Expected a data set of codes with labels; without --codes the classes have "
                f"numbers. Received: --codes={FLAGS.codes}"
            )
        names = features["label"].names
    return keras_vqvae2.HierarchicalImageGenerator(vqvae, priors, names)


def recorded_parts():
    """Recipe and commit of each part whose preset says so, to be kept with the generator."""
    parts = {}
    for folder in map(Path, [FLAGS.vqvae or "", *(FLAGS.priors or ())]):
        if (folder / "metadata.json").is_file():
            recorded = json.loads((folder / "metadata.json").read_text())
            level = json.loads((folder / "config.json").read_text())["config"].get("level")
            part = f"prior_{level}" if level else "vqvae"
            parts[part] = {name: recorded.get(name) for name in ("recipe", "commit")}
    return parts


def numbers(name, kind):
    """The value of a flag: None, a number, or a dict from level to one."""
    text = getattr(FLAGS, name)
    if text is None:
        return None
    try:
        if "=" not in text:
            return kind(text)
        pairs = (part.split("=") for part in text.split(","))
        return {level.strip(): kind(value) for level, value in pairs}
    except ValueError as error:
        raise ValueError(
            f"Expected a number, or one a level as top=1,bottom=1. Received: --{name}={text}"
        ) from error


def chosen_classes(generator):
    """The numbers of --classes, and the names of their rows."""
    _, there = reports.labels_of_rows(generator, 1)
    numbers = {str(i): i for i in range(len(there))}
    numbers |= {name: i for i, name in enumerate(there)}
    unknown = [text for text in FLAGS.classes or () if text not in numbers]
    if unknown:
        raise ValueError(f"Expected classes of {there}. Received: --classes={','.join(unknown)}")
    chosen = [numbers[text] for text in FLAGS.classes or there]
    return chosen, [there[i] for i in chosen]


def generate():
    command_line.check_worker()
    output = command_line.folder_to_write("output")
    kinds = {"temperature": float, "top_k": int, "top_p": float}
    kinds |= {"guidance_scale": float, "guidance_power": float}
    settings = {name: numbers(name, kind) for name, kind in kinds.items()}
    generator = open_generator()
    generator = keras_vqvae2.HierarchicalImageGenerator(
        generator.vqvae,
        generator.priors,
        generator.label_names,
        generator.level_settings(**settings),
    )
    classes, names = chosen_classes(generator)
    each = FLAGS.images_per_class
    labels = np.repeat(classes, each) if generator.num_classes else None
    count = len(classes) * each
    plan = output_plan.of_generator(generator)
    plan |= {"seed": FLAGS.seed, "classes": names, "images_per_class": each}
    output_plan.keep(output / PLAN, plan, IMAGES)
    paths = [output / f"image-{i:06d}.png" for i in range(count)]
    starts = range(0, count, FLAGS.batch_size)
    first, last = (
        worker * len(starts) // FLAGS.num_workers for worker in (FLAGS.worker, FLAGS.worker + 1)
    )
    own = paths[first * FLAGS.batch_size : last * FLAGS.batch_size]
    what = FLAGS.preset or f"of {FLAGS.vqvae}, {', '.join(FLAGS.priors)}"
    command_line.announce(
        f"generator {what}",
        command_line.parts(generator),
        f"{len(classes)} classes; settings {generator.settings}",
        f"{len(own):,} of {count:,} images, {each} a class, {FLAGS.batch_size} at a time, "
        f"{sum(path.exists() for path in own):,} are there; seed {FLAGS.seed}",
        ", ".join(filter(None, (f"{output}", FLAGS.save_preset))),
    )
    if FLAGS.save_preset is not None and FLAGS.worker == 0:
        generator.save_to_preset(
            FLAGS.save_preset, weights_dtype="float16", metadata={"parts": recorded_parts()}
        )
    for start in starts[first:last]:
        part = slice(start, min(start + FLAGS.batch_size, count))
        if all(path.exists() for path in paths[part]):
            continue
        images = generator.generate(
            part.stop - start,
            labels=None if labels is None else labels[part],
            seed=FLAGS.seed,
            first_image=start,
            batch_size=FLAGS.batch_size,
        )
        # Of workers that start together each may have found no images and written its own plan.
        output_plan.keep(output / PLAN, plan, IMAGES)
        for path, image in zip(paths[part], images):
            with replacing(path) as temporary:
                keras.utils.save_img(temporary, np.rint(255 * image), scale=False)
    if not all(path.exists() for path in paths):
        print(f"Wrote part {FLAGS.worker} of {count} images in {output}.")
        return
    images = np.stack([keras.utils.img_to_array(keras.utils.load_img(path)) for path in paths])
    reports.save_grid(images / 255, names, output / "grid.png")
    print(f"Wrote {count} images and {output}/grid.png.")


if __name__ == "__main__":
    command_line.run("generate", generate, "The same command goes on.")
