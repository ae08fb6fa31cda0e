"""Invents images with a VQVAE2 and its priors, and shows them in a grid, a row a class.

    python examples/generate.py --preset=imagenette_128 --output=runs/samples

From parts that were trained here, kept as one preset on the way:

    python examples/generate.py --vqvae=vqvae2_imagenette_128 --codes=runs/codes \\
        --priors=runs/prior_top/preset,runs/prior_bottom/preset --save_preset=runs/generator \\
        --output=runs/samples

--temperature, --top_k and --top_p become the saved generator's own settings.

--output receives image-NNNNNN.png, one a sample, and grid.png. Image i of a seed is always the
same: after a kill the same command draws only what is missing, and several processes that share
--output draw a part each, in any order:

    for worker in 0 1 2 3; do
        CUDA_VISIBLE_DEVICES=$worker python examples/generate.py --num_workers=4 \\
            --worker=$worker --preset=imagenette_128 --images_per_class=500 --output=runs/samples &
    done; wait

The one that finds all images makes the grid; worker 0 writes what --save_preset asks for.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np
from absl import app, flags

import keras_vqvae2
from keras_vqvae2.data.codes_from_tfds import open_code_dataset
from keras_vqvae2.files import replacing
from keras_vqvae2.plots import save_image_rows

FLAGS = flags.FLAGS
flags.DEFINE_string("preset", None, "Name or directory of a HierarchicalImageGenerator preset.")
flags.DEFINE_string("vqvae", None, "Or, of the VQVAE2 preset,")
flags.DEFINE_list("priors", None, "the presets of its priors,")
flags.DEFINE_string("codes", None, "and the data set of codes that names the labels (optional).")
flags.DEFINE_string("save_preset", None, "Directory to save the generator in, priors in float16.")
flags.DEFINE_string("output", None, "Folder of the pictures; made if it is missing.")
flags.DEFINE_list("labels", None, "Names or numbers of classes; all of them by default.")
flags.DEFINE_integer("images_per_class", 8, "Images a class, a row of the grid.", lower_bound=1)
for option, what in (
    ("temperature", "Divides the logits"),
    ("top_k", "Only the k most probable codes"),
    ("top_p", "Only the codes that together reach this probability"),
):
    flags.DEFINE_string(option, None, f"{what}: a number, or one a level as top=0.9,bottom=0.8.")
flags.DEFINE_integer("seed", 0, "Seed of the samples.", lower_bound=0)
flags.DEFINE_integer("batch_size", 32, "Images at a time.", lower_bound=1)
flags.DEFINE_integer("num_workers", 1, "Processes that share the work.", lower_bound=1)
flags.DEFINE_integer("worker", 0, "Which of them this one is.", lower_bound=0)
flags.DEFINE_string("dtype", None, "Dtype policy, such as mixed_bfloat16.")
flags.mark_flags_as_required(["output"])


def open_generator():
    if (FLAGS.preset is None) == (FLAGS.vqvae is None):
        raise ValueError("Expected --preset, or --vqvae and --priors.")
    if FLAGS.preset is not None:
        return keras_vqvae2.HierarchicalImageGenerator.from_preset(FLAGS.preset, dtype=FLAGS.dtype)
    options = {} if FLAGS.dtype is None else {"dtype": FLAGS.dtype}
    vqvae = keras_vqvae2.VQVAE2.from_preset(FLAGS.vqvae, **options)
    priors = [
        keras_vqvae2.PixelSnailPrior.from_preset(prior, **options) for prior in FLAGS.priors or ()
    ]
    names = None
    if FLAGS.codes is not None:
        names = open_code_dataset(FLAGS.codes, vqvae).info.features["label"].names
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


def with_settings(generator, settings):
    """The same generator, with the settings of the flags as its own."""
    own = {level: dict(values) for level, values in generator.settings.items()}
    for name, value in settings.items():
        values = value if isinstance(value, dict) else dict.fromkeys(own, value)
        for level, number in values.items():
            if number is not None:
                own.setdefault(level, {})[name] = number
    return keras_vqvae2.HierarchicalImageGenerator(
        generator.vqvae, generator.priors, generator.label_names, own
    )


def generate():
    output = Path(FLAGS.output)
    settings = {
        "temperature": numbers("temperature", float),
        "top_k": numbers("top_k", int),
        "top_p": numbers("top_p", float),
    }
    if FLAGS.worker >= FLAGS.num_workers:
        raise ValueError(
            f"Expected a --worker below {FLAGS.num_workers}. Received: --worker={FLAGS.worker}"
        )
    generator = with_settings(open_generator(), settings)
    if FLAGS.save_preset is not None and FLAGS.worker == 0:
        generator.save_to_preset(
            FLAGS.save_preset, weights_dtype="float16", metadata={"parts": recorded_parts()}
        )
    names = generator.label_names or [str(i) for i in range(generator.num_classes or 1)]
    classes = FLAGS.labels or names
    # Image i is of class i // images_per_class.
    labels = [label for label in classes for _ in range(FLAGS.images_per_class)]
    if generator.label_names is None:
        labels = [int(label) for label in labels] if generator.num_classes else None
    count = len(classes) * FLAGS.images_per_class
    paths = [output / f"image-{i:06d}.png" for i in range(count)]
    starts = range(0, count, FLAGS.batch_size)
    first, last = (
        worker * len(starts) // FLAGS.num_workers for worker in (FLAGS.worker, FLAGS.worker + 1)
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
        if len(images) < part.stop - start:
            sys.exit("generate: interrupted. The same command goes on.")
        for path, image in zip(paths[part], images):
            with replacing(path) as temporary:
                keras.utils.save_img(temporary, 255 * image, scale=False)
    if not all(path.exists() for path in paths):
        print(f"Wrote part {FLAGS.worker} of {count} images in {output}.")
        return
    images = np.stack([keras.utils.img_to_array(keras.utils.load_img(path)) for path in paths])
    rows = (images / 255).reshape(len(classes), FLAGS.images_per_class, *images.shape[1:])
    save_image_rows(dict(zip(map(str, classes), rows)), output / "grid.png")
    print(f"Wrote {count} images and {output}/grid.png.")


def main(_):
    try:
        generate()
    except (ValueError, FileNotFoundError, ImportError) as error:
        sys.exit(f"generate: {error}")


if __name__ == "__main__":
    app.run(main)
