"""Nats a code of a generator's priors, beside a baseline that knows only positions.

    python examples/evaluate_priors.py --preset=imagenette_128 --codes=runs/codes

The baseline gives each code the frequency, plus one, that it has at its position in the training
split. Prints a table in Markdown and writes it to --output.
"""

import math
import sys
from pathlib import Path

import keras
import numpy as np
from absl import app, flags

import keras_vqvae2
from keras_vqvae2.data.codes_from_tfds import open_code_dataset
from keras_vqvae2.files import replacing

FLAGS = flags.FLAGS
flags.DEFINE_string("preset", None, "Name or directory of a HierarchicalImageGenerator preset.")
flags.DEFINE_string("codes", None, "Directory of the data set of codes.")
flags.DEFINE_string("output", None, "File for the table; none by default.")
flags.DEFINE_integer("batch_size", 32, "Maps at a time.", lower_bound=1)
flags.mark_flags_as_required(["preset", "codes"])


def read(split, vqvae):
    """All codes of a split, as arrays."""
    batches = list(keras_vqvae2.data.codes_from_tfds(FLAGS.codes, 1024, split=split, vqvae=vqvae))
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def position_nats(train, validation, num_embeddings):
    """Cross-entropy under the frequencies at each position, `(N, rows, columns)` both."""
    train, validation = (codes.reshape(len(codes), -1) for codes in (train, validation))
    counts = np.ones((train.shape[1], num_embeddings))
    for position in range(train.shape[1]):
        counts[position] += np.bincount(train[:, position], minlength=num_embeddings)
    nats = -np.log(counts / counts.sum(axis=1, keepdims=True))
    return float(nats[np.arange(train.shape[1]), validation].mean())


def evaluate():
    generator = keras_vqvae2.HierarchicalImageGenerator.from_preset(FLAGS.preset)
    open_code_dataset(FLAGS.codes, generator.vqvae)
    train, validation = (read(split, generator.vqvae) for split in ("train", "validation"))
    some = {name: values[: len(validation["label"])] for name, values in train.items()}
    lines = [
        "| level | validation | training | position only | uniform | bits per dim |",
        "|---|---|---|---|---|---|",
    ]
    for level, prior in generator.priors.items():
        prior.compile()
        held_out, seen = (
            prior.evaluate(codes, batch_size=FLAGS.batch_size, return_dict=True)
            for codes in (validation, some)
        )
        baseline = position_nats(train[level], validation[level], prior.num_embeddings)
        numbers = [held_out["loss"], seen["loss"], baseline, math.log(prior.num_embeddings)]
        cells = [f"{number:.3f}" for number in numbers]
        cells.append(f"{held_out['bits_per_dim']:.4f}" if prior.image_shape else "")
        lines.append(f"| {level} | {' | '.join(cells)} |")
    table = "\n".join(lines)
    print(table)
    if FLAGS.output:
        with replacing(Path(FLAGS.output)) as temporary:
            temporary.write_text(table + "\n")


def main(_):
    try:
        keras.utils.set_random_seed(0)
        evaluate()
    except (ValueError, FileNotFoundError, ImportError) as error:
        sys.exit(f"evaluate_priors: {error}")


if __name__ == "__main__":
    app.run(main)
