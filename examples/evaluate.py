"""Measures a generator: every number and picture of its card, from one command.

    pip install -e '.[perceptual]'
    python examples/evaluate.py --preset=clothing_64 --train=clothing/train \\
        --validation=clothing/validation --output=runs/clothing_64_card

--train and --validation are folders with a folder a class, as at training. --output receives:

- `metrics.json`, and `tables.md` with the same numbers as the card shows them: reconstruction of
  the validation images; nats a code of each prior on validation and training images, beside a
  baseline that knows only positions (it gives each code the frequency, plus one, that it has at
  its position in the training images and their mirror images);
- `reconstructions.png` (of bundled photographs), `samples.png`, and `nearest.png`: samples above
  the training images nearest to them. How near is judged by the root mean square of differences of
  pixels at a quarter of the resolution, mirror images included, and compared with how near the
  validation images are.
"""

import json
import math
import sys
from pathlib import Path

import keras
import numpy as np
from absl import app, flags

import keras_vqvae2
from keras_vqvae2.callbacks.reconstruction_grid import reconstruction_rows
from keras_vqvae2.files import replacing
from keras_vqvae2.plots import save_image_rows

FLAGS = flags.FLAGS
flags.DEFINE_string("preset", None, "Name or directory of a HierarchicalImageGenerator preset.")
flags.DEFINE_string("train", None, "Folder of training images, a folder a class.")
flags.DEFINE_string("validation", None, "Folder of validation images, likewise.")
flags.DEFINE_string("output", None, "Folder for the numbers and the pictures.")
flags.DEFINE_integer("batch_size", 32, "Maps at a time.", lower_bound=1)
flags.DEFINE_integer("images_per_class", 6, "Samples of each class.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of the samples.", lower_bound=0)
flags.mark_flags_as_required(["preset", "train", "validation", "output"])


def read(folder, size):
    """Images `(N, H, W, 3)`, uint8, and labels `(N,)` of a folder."""
    batches = keras_vqvae2.data.images_from_folder(folder, size, 64, labels=True)
    pairs = [(np.rint(x * 255).astype("uint8"), y) for x, y in batches.as_numpy_iterator()]
    images, labels = zip(*pairs)
    return np.concatenate(images), np.concatenate(labels)


def position_nats(train, validation, num_embeddings):
    """Cross-entropy under the frequencies at each position, `(N, rows, columns)` both."""
    train, validation = (codes.reshape(len(codes), -1) for codes in (train, validation))
    counts = np.ones((train.shape[1], num_embeddings))
    for position in range(train.shape[1]):
        counts[position] += np.bincount(train[:, position], minlength=num_embeddings)
    nats = -np.log(counts / counts.sum(axis=1, keepdims=True))
    return float(nats[np.arange(train.shape[1]), validation].mean())


def measure_priors(generator, train, validation):
    """Dict from level to its prior's numbers, from pairs of images and labels."""
    encode = generator.vqvae.encode
    codes = {
        "train": {**encode(train[0], verbose=1), "label": train[1]},
        "validation": {**encode(validation[0], verbose=1), "label": validation[1]},
    }
    mirrored = encode(train[0][:, :, ::-1], verbose=1)
    measured = {}
    for level, prior in generator.priors.items():
        prior.compile()
        both = np.concatenate([codes["train"][level], mirrored[level]])
        baseline = position_nats(both, codes["validation"][level], prior.num_embeddings)
        measured[level] = {"position_only": baseline, "uniform": math.log(prior.num_embeddings)}
        for split, values in codes.items():
            result = prior.evaluate(values, batch_size=FLAGS.batch_size, return_dict=True)
            measured[level][split] = result["loss"]
        measured[level]["bits_per_dim"] = result.get("bits_per_dim")
    return measured


def features(images, factor=4):
    """Rows of pixels in `[0, 1]` at a quarter of the resolution."""
    n, height, width, channels = images.shape
    cells = images.reshape(n, height // factor, factor, width // factor, factor, channels)
    small = cells.mean(axis=(2, 4), dtype="float32") / (255 if images.dtype == np.uint8 else 1)
    return small.reshape(n, -1)


def nearest(queries, images):
    """Index of the nearest of `images` or their mirror images, and its distance, for each query."""
    queries, squares = features(queries), []
    for rows in (features(images), features(images[:, :, ::-1])):
        square = (queries**2).sum(1)[:, None] - 2 * queries @ rows.T + (rows**2).sum(1)
        squares.append(np.maximum(square, 0) / queries.shape[1])
    square = np.minimum(*squares)
    return square.argmin(axis=1), np.sqrt(square.min(axis=1))


def draw_samples(generator, train, validation, output):
    """Writes the pictures of samples. Returns how near samples and validation images are."""
    each, classes = FLAGS.images_per_class, generator.num_classes or 1
    names = generator.label_names or [f"class {i}" for i in range(classes)]
    labels = np.repeat(np.arange(classes), each) if generator.num_classes else None
    samples = generator.generate(classes * each, labels, seed=FLAGS.seed)
    rows = samples.reshape(classes, each, *samples.shape[1:])
    save_image_rows(dict(zip(names, rows)), output / "samples.png", FLAGS.preset)
    places, distances = nearest(samples, train)
    shown = slice(0, None, max(1, -(-len(samples) // 10)))
    rows = {"sample": samples[shown], "nearest": train[places[shown]] / 255.0}
    save_image_rows(rows, output / "nearest.png", f"{FLAGS.preset}: nearest training images")
    _, held_out = nearest(validation, train)
    return {"samples": float(np.median(distances)), "validation": float(np.median(held_out))}


def tables(metrics):
    """The numbers as Markdown."""
    lines = ["| | |", "|---|---|"]
    for name, value in metrics["reconstruction"].items():
        lines.append(f"| {name} | {value if isinstance(value, int) else format(value, '.4g')} |")
    lines += ["", "| level | validation | training | position only | uniform | bits per dim |"]
    lines.append("|---|---|---|---|---|---|")
    for level, prior in metrics["priors"].items():
        numbers = [prior[k] for k in ("validation", "train", "position_only", "uniform")]
        cells = [f"{number:.3f}" for number in numbers]
        bits = "" if prior["bits_per_dim"] is None else f"{prior['bits_per_dim']:.4f}"
        lines.append(f"| {level} | {' | '.join(cells)} | {bits} |")
    near = metrics["distance_to_nearest_training_image"]
    lines += ["", "| median distance to the nearest training image | |", "|---|---|"]
    lines += [f"| {name} | {value:.4f} |" for name, value in near.items()]
    return "\n".join(lines) + "\n"


def evaluate():
    output = Path(FLAGS.output)
    output.mkdir(parents=True, exist_ok=True)
    generator = keras_vqvae2.HierarchicalImageGenerator.from_preset(FLAGS.preset)
    size = generator.vqvae.image_shape[:2]
    for folder in (FLAGS.train, FLAGS.validation):
        names = keras_vqvae2.data.class_names(folder)
        if generator.label_names not in (None, names):
            raise ValueError(
                f"Expected the classes {generator.label_names}. Received: {names} in {folder}"
            )
    train, validation = read(FLAGS.train, size), read(FLAGS.validation, size)
    metrics = {
        "preset": FLAGS.preset,
        "parameters": {
            "vqvae": generator.vqvae.count_params(),
            **{level: prior.count_params() for level, prior in generator.priors.items()},
        },
        "reconstruction": keras_vqvae2.metrics.evaluate_reconstructions(
            generator.vqvae, validation[0]
        ),
        "priors": measure_priors(generator, train, validation),
        "distance_to_nearest_training_image": draw_samples(
            generator, train[0], validation[0], output
        ),
    }
    photographs = keras_vqvae2.data.sample_photographs(size) / 255.0
    rows = reconstruction_rows(generator.vqvae, photographs)
    save_image_rows(rows, output / "reconstructions.png", FLAGS.preset)
    text = tables(metrics)
    for name, content in (("metrics.json", json.dumps(metrics, indent=4)), ("tables.md", text)):
        with replacing(output / name) as temporary:
            temporary.write_text(content)
    print(text)


def main(_):
    try:
        keras.utils.set_random_seed(0)
        evaluate()
    except (ValueError, FileNotFoundError, ImportError) as error:
        sys.exit(f"evaluate: {error}")


if __name__ == "__main__":
    app.run(main)
