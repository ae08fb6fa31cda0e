"""Compares temperatures and top-p of a generator by how near its samples come to real images.

    pip install -e '.[features]'
    python examples/choose_settings.py --preset=runs/generator --validation=clothing/validation \\
        --output=runs/settings

For each pair of --temperatures and --top_ps, the same at all levels, as many samples are drawn as
there are validation images, with their labels, and compared with them: Fréchet distance,
precision, recall, density and coverage of EfficientNet-Lite0's features. --output receives
`settings.md`, and `settings.jsonl`, from which the same command goes on after a kill. The setting
that is chosen goes with the generator: examples/generate.py --save_preset with --temperature and
--top_p.
"""

import itertools
import json

import command_line
import image_sources
import keras
from absl import flags
from reports import markdown_table

import keras_vqvae2

FLAGS = flags.FLAGS
command_line.define("preset", "output", "cache", "seed", "register")
flags.DEFINE_string("validation", None, "Folder of held-out images, a folder a class.")
flags.DEFINE_list("temperatures", ["1", "0.9", "0.8"], "Temperatures to compare.")
flags.DEFINE_list("top_ps", ["1", "0.95", "0.9"], "Probabilities of top-p to compare.")
flags.mark_flags_as_required(["preset", "validation", "output"])


def choose():
    output = command_line.folder_to_write("output")
    temperatures = command_line.numbers("temperatures")
    pairs = list(itertools.product(temperatures, command_line.numbers("top_ps", most=1)))
    generator = keras_vqvae2.HierarchicalImageGenerator.from_preset(FLAGS.preset)
    if not generator.num_classes:
        raise ValueError(f"Expected a generator with classes. Received: --preset={FLAGS.preset}")
    data = image_sources.check_classes(generator.label_names, "validation")
    path = output / "settings.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    command_line.announce(
        f"generator {FLAGS.preset}",
        command_line.parts(generator),
        data,
        f"{len(pairs)} pairs of temperature and top-p, as many images each; seed {FLAGS.seed}",
        f"{output}, which holds {len(rows)} pairs",
    )
    keras.utils.set_random_seed(FLAGS.seed)
    extractor = keras_vqvae2.features.efficientnet_lite0()
    size = generator.vqvae.image_shape[:2]
    images, labels = image_sources.read_images(FLAGS.validation, size)
    reference = image_sources.read_features(extractor, images)
    for temperature, top_p in pairs:
        setting = {"temperature": temperature, "top_p": top_p}
        if any(setting.items() <= row.items() for row in rows):
            continue
        samples = generator.generate(len(labels), labels, seed=FLAGS.seed, **setting)
        features = extractor.extract(samples)
        measured = keras_vqvae2.evaluation.evaluate_samples(features, reference, extractor)
        rows.append({**setting, **measured})
        command_line.write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    text = markdown_table(list(rows[0]), [row.values() for row in rows])
    command_line.write_text(output / "settings.md", text)
    print(text)


if __name__ == "__main__":
    command_line.run("choose_settings", choose, "The same command goes on.")
