"""Compares temperatures and top-p of a generator by how near its samples come to real images.

    pip install -e '.[features]'
    python examples/choose_settings.py --preset=runs/generator --validation=clothing/validation \\
        --output=runs/settings

For each pair of --temperatures and --top_p, the same at all levels, as many samples are drawn as
there are validation images, with their labels, and compared with them: Fréchet distance,
precision, recall, density and coverage of EfficientNet-Lite0's features. --output receives
`settings.md`, and `settings.jsonl`, from which the same command goes on after a kill. The setting
that is chosen goes with the generator: examples/generate.py --save_preset with --temperature and
--top_p.
"""

import itertools
import json
import sys
from pathlib import Path

import keras
from absl import app, flags
from sample_quality import cached_features, compare, markdown_table, read_images

import keras_vqvae2
from keras_vqvae2.files import replacing

FLAGS = flags.FLAGS
flags.DEFINE_string("preset", None, "Name or directory of a HierarchicalImageGenerator preset.")
flags.DEFINE_string("validation", None, "Folder of validation images, a folder a class.")
flags.DEFINE_string("output", None, "Folder of the table.")
flags.DEFINE_string("cache", "~/.keras/keras_vqvae2/features", "Folder of real images' features.")
flags.DEFINE_integer("seed", 0, "Seed of the samples.", lower_bound=0)
flags.DEFINE_list("temperatures", ["1", "0.9", "0.8"], "Temperatures to compare.")
flags.DEFINE_list("top_p", ["1", "0.95", "0.9"], "Probabilities of top-p to compare.")
flags.mark_flags_as_required(["preset", "validation", "output"])


def choose():
    output = Path(FLAGS.output)
    generator = keras_vqvae2.HierarchicalImageGenerator.from_preset(FLAGS.preset)
    extractor = keras_vqvae2.features.efficientnet_lite0()
    images, labels = read_images(FLAGS.validation, generator.vqvae.image_shape[:2])
    reference = cached_features(extractor, images, Path(FLAGS.cache).expanduser())
    path = output / "settings.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for temperature, top_p in itertools.product(FLAGS.temperatures, FLAGS.top_p):
        setting = {"temperature": float(temperature), "top_p": float(top_p)}
        if any(setting.items() <= row.items() for row in rows):
            continue
        samples = generator.generate(len(labels), labels, seed=FLAGS.seed, **setting)
        if len(samples) < len(labels):
            sys.exit("choose_settings: interrupted. The same command goes on.")
        features = extractor.extract(samples)
        rows.append({**setting, **compare(extractor, features, reference)})
        with replacing(path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = markdown_table(list(rows[0]), [row.values() for row in rows])
    with replacing(output / "settings.md") as temporary:
        temporary.write_text(text)
    print(text)


def main(_):
    try:
        keras.utils.set_random_seed(0)
        choose()
    except (ValueError, FileNotFoundError, ImportError) as error:
        sys.exit(f"choose_settings: {error}")


if __name__ == "__main__":
    app.run(main)
