"""Compares settings of a generator by how near its samples come to real images.

    pip install -e '.[features]'
    python examples/choose_settings.py --preset=runs/generator --validation=clothing/validation \\
        --output=runs/settings

For each of --temperatures, --top_ps and --guidance_scales, at all --levels alike, as many samples
are drawn as there are validation images, with their labels, and compared with them: Fréchet
distance, precision, recall, density and coverage of EfficientNet-Lite0's features, and with
--classifier (examples/fit_classifier.py) the share of samples in which it finds the label that they
were drawn for, beside that of the validation images. Other levels keep the generator's own
settings: choose for one level, then for the next. --output receives
`settings.md`, and `settings.jsonl`, from which the same command goes on after a kill. Further
settings and levels join those that are there; another generator, seed, --validation or --classifier
than theirs, by `settings.plan.json`, is refused. The setting that is chosen goes with the
generator: examples/generate.py --save_preset with --temperature, --top_p and --guidance_scale.
"""

import itertools
import json

import command_line
import image_sources
import keras
import output_plan
from absl import flags
from reports import markdown_table

import keras_vqvae2
from keras_vqvae2.evaluation import LabelClassifier

FLAGS = flags.FLAGS
command_line.define("preset", "output", "cache", "seed", "register")
flags.DEFINE_string("validation", None, "Folder of held-out images, a folder a class.")
flags.DEFINE_list("temperatures", ["1", "0.9", "0.8"], "Temperatures to compare.")
flags.DEFINE_list("top_ps", ["1", "0.95", "0.9"], "Probabilities of top-p to compare.")
flags.DEFINE_list("guidance_scales", ["1"], "Scales of guidance to compare.")
flags.DEFINE_string("classifier", None, "A .npz file: reports how often it finds the label.")
flags.DEFINE_list("levels", None, "Levels to compare them at; all by default.")
flags.mark_flags_as_required(["preset", "validation", "output"])


def by_level(setting, levels):
    """A setting as `generate` takes it: a dict from level to a number, for each of its names."""
    return {name: dict.fromkeys(levels, number) for name, number in setting.items()}


def keep_plan(output, generator, classifier, rows):
    """Refuses to measure anything with which the rows that are there were not measured."""
    plan = output_plan.of_generator(generator)
    plan |= {"seed": FLAGS.seed, "validation": output_plan.of_images(FLAGS.validation)}
    found = any("label found" in row for row in rows)
    if classifier or not found:
        plan["classifier"] = output_plan.digest([classifier.weights]) if classifier else None
    may_change = () if found else ["classifier"]
    output_plan.keep(output / "settings.plan.json", plan, "settings.jsonl", may_change)


def choose():
    output = command_line.folder_to_write("output")
    values = (
        command_line.numbers("temperatures"),
        command_line.numbers("top_ps", most=1),
        command_line.numbers("guidance_scales"),
    )
    generator = keras_vqvae2.HierarchicalImageGenerator.from_preset(FLAGS.preset)
    if not generator.num_classes:
        raise ValueError(f"Expected a generator with classes. Received: --preset={FLAGS.preset}")
    levels = FLAGS.levels or generator.vqvae.levels
    settings = [
        dict(zip(("temperature", "top_p", "guidance_scale"), combination))
        for combination in itertools.product(*values)
    ]
    for setting in settings:
        generator.level_settings(**by_level(setting, levels))
    data = image_sources.check_classes(generator.label_names, "validation")
    extractor = keras_vqvae2.features.efficientnet_lite0()
    classifier = None
    if FLAGS.classifier:
        classifier = LabelClassifier.load(FLAGS.classifier, extractor)
        if classifier.label_names != generator.class_names:
            raise ValueError(
                f"Expected a classifier of {generator.class_names}. "
                f"Received: one of {classifier.label_names}"
            )
    path = output / "settings.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    keep_plan(output, generator, classifier, rows)
    command_line.announce(
        f"generator {FLAGS.preset}",
        command_line.parts(generator),
        data,
        f"{len(settings)} settings of {', '.join(levels)}, as many images each; seed {FLAGS.seed}",
        f"{output}, which holds {len(rows)} of them",
    )
    keras.utils.set_random_seed(FLAGS.seed)
    size = generator.vqvae.image_shape[:2]
    images, labels = image_sources.read_images(FLAGS.validation, size)
    reference = image_sources.read_features(extractor, images)
    for setting in settings:
        row = {"levels": ",".join(levels), **setting}
        done = [there for there in rows if row.items() <= there.items()]
        if done and (classifier is None or "label found" in done[0]):
            continue
        options = by_level(setting, levels)
        samples = generator.generate(len(labels), labels, seed=FLAGS.seed, **options)
        features = extractor.extract(samples)
        measured = keras_vqvae2.evaluation.evaluate_samples(features, reference, extractor)
        if classifier:
            measured["label found"] = classifier.accuracy(features, labels)
        rows = [there for there in rows if there not in done] + [{**row, **measured}]
        command_line.write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = markdown_table(names, [[row.get(name, "") for name in names] for row in rows])
    command_line.write_text(output / "settings.md", text)
    print(text)
    if classifier:
        print(f"label found in validation images: {classifier.accuracy(reference, labels):.4f}")


if __name__ == "__main__":
    command_line.run("choose_settings", choose, "The same command goes on.")
