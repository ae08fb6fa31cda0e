"""Measures a generator: every number and picture of its card, from one command.

    pip install -e '.[perceptual,features]'
    python examples/evaluate.py --preset=clothing_64 --train=clothing/train \\
        --validation=clothing/test --output=runs/clothing_64_card

--train and --validation are folders with a folder a class, as at training. --sections chooses what
is measured; sections that --output holds of the same weights, images and seed stay. It receives
`metrics.json`, `tables.md` with the same numbers as the card shows them, and pictures:

reconstruction  PSNR, SSIM, LPIPS, codebook usage of the validation images; `reconstructions.png`
                (of bundled photographs)
priors          nats a code of each prior on validation and training images, beside a baseline that
                knows only positions (it gives each code the frequency, plus one, that it has at
                its position in the training images and their mirror images)
nearest         `samples.png`, and `nearest.png`: samples above the training images nearest to them.
                How near is judged by the root mean square of differences of pixels at a quarter of
                the resolution, mirror images included, and compared with how near the validation
                images are
samples         Fréchet distance, precision, recall, density, coverage and Inception score of
                samples against the validation images, without rejection sampling and with it at
                each of --rates; the same of reconstructions, of training images, and of samples
                whose coarser codes are those of training images, which tells the levels' priors
                apart; `rates.png`, and `best.png`, samples at the lowest rate. A candidate's score
                is the probability of its label by softmax regression on the same features of the
                training images
accuracy        classification accuracy score: top-1 and top-5 on the validation images of a ResNet
                trained on training images, on their reconstructions, and on as many samples

With --images in place of --preset, a folder with a folder a class, `samples` compares those images.
Features are those of --features; of the real ones they are kept in --cache under a digest of the
images.
"""

import functools
import json
import time

import command_line
import image_sources
import keras
import numpy as np
import output_plan
from absl import flags
from image_sources import read_features, read_images
from reports import labels_of_rows, markdown_table, save_grid

import keras_vqvae2
from keras_vqvae2 import evaluation, metrics
from keras_vqvae2 import features as feature_extractors
from keras_vqvae2.plots import reconstruction_rows, save_curves, save_image_rows

SECTIONS = ["reconstruction", "priors", "nearest", "samples", "accuracy"]
EXTRACTORS = {
    "efficientnet_lite0": feature_extractors.efficientnet_lite0,
    "inception_2015": feature_extractors.inception_2015,
}

FLAGS = flags.FLAGS
command_line.define("preset", "output", "batch_size", "images_per_class", "seed", "cache")
command_line.define("register")
flags.DEFINE_string("train", None, "Folder of training images, a folder a class.")
flags.DEFINE_string("validation", None, "Folder of held-out images, a folder a class.")
flags.DEFINE_string("images", None, "Folder of generated images, in place of --preset.")
flags.DEFINE_integer("image_size", 64, "Size to compare at, without --preset.", lower_bound=16)
flags.DEFINE_multi_enum("sections", SECTIONS, SECTIONS, "What to measure; may be repeated.")
flags.DEFINE_enum("features", "efficientnet_lite0", list(EXTRACTORS), "Network of the features.")
flags.DEFINE_string("feature_weights", None, "Its weights; see keras_vqvae2.features.")
flags.DEFINE_list("rates", ["1", "0.5", "0.25", "0.1"], "Acceptance rates, highest first.")
flags.DEFINE_integer(
    "num_samples", None, "Samples a rate; by default as many as validation images.", lower_bound=2
)
flags.DEFINE_integer(
    "accuracy_images", None, "Training images of `accuracy`; all by default.", lower_bound=1
)
flags.DEFINE_integer("accuracy_epochs", 30, "Epochs of each ResNet.", lower_bound=1)
flags.mark_flags_as_required(["train", "validation", "output"])


def measure_reconstructions(generator, validation, output):
    rows = reconstruction_rows(
        generator.vqvae,
        keras_vqvae2.data.sample_photographs(generator.vqvae.image_shape[:2]) / 255.0,
    )
    save_image_rows(rows, output / "reconstructions.png", FLAGS.preset)
    return evaluation.evaluate_reconstructions(generator.vqvae, validation[0])


def without_likelihood(generator):
    """The priors that cannot say how likely codes are."""
    shapes = generator.vqvae.code_shapes()
    codes = {level: np.zeros((1, *shape), "int32") for level, shape in shapes.items()}
    codes["label"] = np.zeros(1, "int32")
    return [
        f"{type(prior).__name__} of {level!r}"
        for level, prior in generator.priors.items()
        if prior.nats(codes) is None
    ]


def measure_priors(generator, train, validation):
    """Likelihood of the validation images' codes, and of the training images' beside it."""
    encode = functools.partial(generator.vqvae.encode, verbose=1)
    codes, mirrored = encode(train[0]), encode(train[0][:, :, ::-1])
    both = {level: np.concatenate([codes[level], mirrored[level]]) for level in codes}
    measure = functools.partial(
        evaluation.evaluate_likelihood, generator, batch_size=FLAGS.batch_size
    )
    measured = measure(*validation, train_codes=both)
    on_train = measure(codes, train[1])
    for level, numbers in measured["levels"].items():
        numbers["nats_per_code_train"] = on_train["levels"][level]["nats_per_code"]
    return measured


def measure_nearest(generator, train, validation, output):
    """Draws samples. Returns how near they and the validation images are to training images."""
    labels, names = labels_of_rows(generator, FLAGS.images_per_class)
    samples = generator.generate(len(names) * FLAGS.images_per_class, labels, seed=FLAGS.seed)
    save_grid(samples, names, output / "samples.png", FLAGS.preset)
    places, distances = evaluation.nearest_images(samples, train[0])
    shown = slice(0, None, max(1, -(-len(samples) // 10)))
    rows = {"sample": samples[shown], "nearest": train[0][places[shown]] / 255.0}
    save_image_rows(rows, output / "nearest.png", f"{FLAGS.preset}: nearest training images")
    _, held_out = evaluation.nearest_images(validation[0], train[0])
    return {"samples": float(np.median(distances)), "validation": float(np.median(held_out))}


def measure_samples(generator, extractor, rates, train, validation, output):
    """The rows of the table of samples, and what they were measured with."""
    order = np.random.default_rng(0).permutation(len(validation[0]))
    images, labels = validation[0][order], validation[1][order]
    real, known = read_features(extractor, images), read_features(extractor, train[0])
    names = keras_vqvae2.data.class_names(FLAGS.train)
    classifier = evaluation.LabelClassifier.fit(extractor, known, train[1], names)
    count = min(FLAGS.num_samples or len(labels), len(labels), len(train[1]))

    def row(features, labels=None):
        found = {} if labels is None else {"label found": classifier.accuracy(features, labels)}
        return {**evaluation.evaluate_samples(features, real, extractor), **found}

    if generator is None:
        generated, _ = read_images(FLAGS.images, images.shape[1:3])
        rows = {FLAGS.images: row(extractor.extract(generated))}
    else:
        vqvae = generator.vqvae
        again = extractor.extract(vqvae.decode(vqvae.encode(images)))
        some = np.random.default_rng(1).permutation(len(train[1]))[:count]
        rows = {
            "training images": row(known[some], train[1][some]),
            "reconstructions": row(again[:count], labels[:count]),
        }
        codes = vqvae.encode(train[0][some])
        for i, level in enumerate(vqvae.levels[:-1]):
            given = {name: codes[name] for name in vqvae.levels[: i + 1]}
            drawn = generator.generate(count, train[1][some], seed=FLAGS.seed, codes=given)
            rows[f"samples, real {level}"] = row(extractor.extract(drawn), train[1][some])
        kept = evaluation.features_at_rates(
            generator, classifier, labels[:count], rates, seed=FLAGS.seed
        )
        for rate in rates:
            star = metrics.frechet_distance(kept[rate][0], again)
            rows[f"samples, rate {rate:g}"] = {
                **row(*kept[rate]),
                f"{extractor.distance_name}*": star,
            }
        draw_samples(generator, classifier, rates, rows, output)
    return {
        "images": count,
        "real_images": len(real),
        "classifier_accuracy": classifier.accuracy(real, labels),
        "rows": rows,
    }


def draw_samples(generator, classifier, rates, rows, output):
    """The pictures of `samples`: what rates do to the measures, and the lowest rate's images."""
    curves = {
        name: (rates, [rows[f"samples, rate {rate:g}"][name] for rate in rates])
        for name in ("precision", "recall", "density", "coverage")
    }
    save_curves(curves, output / "rates.png", "acceptance rate", "share")
    labels, names = labels_of_rows(generator, FLAGS.images_per_class)
    rate = min(rates)
    best = generator.generate_best(len(labels), classifier, rate, labels, seed=FLAGS.seed)
    title = f"{FLAGS.preset}: the best {100 * rate:g}%"
    save_grid(best.images, names, output / "best.png", title)


def measure_accuracy(generator, train, validation):
    """Classification accuracy scores, a row for each kind of training images."""
    some = np.random.default_rng(0).permutation(len(train[0]))[: FLAGS.accuracy_images]
    images, labels = train[0][some], train[1][some]
    protocol = evaluation.ClassifierProtocol(epochs=FLAGS.accuracy_epochs)
    sources = {
        "training images": lambda: images,
        "reconstructions": lambda: generator.vqvae.decode(generator.vqvae.encode(images)),
        "samples": lambda: generator.generate(len(labels), labels, seed=FLAGS.seed + 1),
    }
    classes = generator.num_classes
    return {
        "images": len(labels),
        "rows": {
            name: evaluation.classification_accuracy_score(
                (make(), labels), validation, classes, protocol, seed=FLAGS.seed
            )
            for name, make in sources.items()
        },
    }


def tables(measured):
    """The numbers of all sections as Markdown."""
    parts = []
    if "reconstruction" in measured:
        parts.append(markdown_table(["reconstruction", ""], measured["reconstruction"].items()))
    if "priors" in measured:
        numbers = measured["priors"]
        columns = ["nats a code", "validation", "training", "position only", "uniform"]
        names = ("nats_per_code", "nats_per_code_train", "position_only", "uniform")
        rows = [[k, *(level[name] for name in names)] for k, level in numbers["levels"].items()]
        parts.append(markdown_table(columns, rows))
        totals = [[name, numbers[name]] for name in ("nats_per_image", "bits_per_dim")]
        parts.append(markdown_table(["all levels, validation", ""], totals))
    if "nearest" in measured:
        title = "median distance to the nearest training image"
        parts.append(markdown_table([title, ""], measured["nearest"].items()))
    for section, first in (("samples", "images"), ("accuracy", "the ResNet learned from")):
        if section in measured:
            rows = measured[section]["rows"]
            columns = list(dict.fromkeys(name for row in rows.values() for name in row))
            cells = [[k, *(row.get(name, "") for name in columns)] for k, row in rows.items()]
            parts.append(markdown_table([first, *columns], cells))
    return "\n".join(parts)


def measured_before(output, generator):
    """What `output` holds of the same generator, images and seed."""
    measured_with = {
        "generator": output_plan.of_generator(generator) if generator else FLAGS.images,
        "seed": FLAGS.seed,
        "train": output_plan.of_images(FLAGS.train),
        "validation": output_plan.of_images(FLAGS.validation),
    }
    path = output / "metrics.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    same = before.get("preset") == FLAGS.preset and before.get("measured_with") == measured_with
    empty = {"preset": FLAGS.preset, "measured_with": measured_with, "seconds": {}}
    return before if same else empty


def evaluate():
    output = command_line.folder_to_write("output")
    rates = command_line.numbers("rates", most=1)
    if (FLAGS.preset is None) == (FLAGS.images is None):
        raise ValueError(
            "Expected --preset or --images, one of them. "
            f"Received: --preset={FLAGS.preset}, --images={FLAGS.images}"
        )
    generator, sections = None, FLAGS.sections
    if FLAGS.preset is None:
        sections, size = ["samples"], (FLAGS.image_size, FLAGS.image_size)
        names = keras_vqvae2.data.class_names(FLAGS.train)
        data = image_sources.check_classes(names, "train", "validation", "images")
        parts = {}
    else:
        generator = keras_vqvae2.HierarchicalImageGenerator.from_preset(FLAGS.preset)
        size = generator.vqvae.image_shape[:2]
        data = image_sources.check_classes(generator.label_names, "train", "validation")
        if not generator.num_classes and {"samples", "accuracy"} & {*sections}:
            raise ValueError(
                "Expected a generator with classes for the sections samples and accuracy: choose "
                f"others by --sections. Received: --preset={FLAGS.preset}"
            )
        missing = without_likelihood(generator) if "priors" in sections else []
        if missing:
            raise ValueError(
                "Expected priors that have an exact likelihood for the section priors: choose "
                f"others by --sections. Received: {', '.join(missing)}, which has none"
            )
        parts = {"vqvae": generator.vqvae, **generator.priors}
    extractor = None
    if "samples" in sections:
        extractor = EXTRACTORS[FLAGS.features](FLAGS.feature_weights)
    measured = measured_before(output, generator)
    kept = ", ".join(name for name in SECTIONS if name in measured and name not in sections)
    command_line.announce(
        f"generator {FLAGS.preset}" if generator else f"none, the images of {FLAGS.images}",
        list(parts.values()),
        data,
        f"measure {', '.join(sections)}; seed {FLAGS.seed}",
        f"{output}, which keeps {kept or 'nothing of before'}",
    )
    keras.utils.set_random_seed(FLAGS.seed)
    train, validation = read_images(FLAGS.train, size), read_images(FLAGS.validation, size)
    measure = {
        "reconstruction": lambda: measure_reconstructions(generator, validation, output),
        "priors": lambda: measure_priors(generator, train, validation),
        "nearest": lambda: measure_nearest(generator, train, validation, output),
        "samples": lambda: measure_samples(generator, extractor, rates, train, validation, output),
        "accuracy": lambda: measure_accuracy(generator, train, validation),
    }
    if parts:
        measured["parameters"] = {name: part.count_params() for name, part in parts.items()}
    for section in sections:
        started = time.time()
        measured[section] = measure[section]()
        measured["seconds"][section] = round(time.time() - started)
        # Each section is kept as it ends: the later ones take long.
        text = tables(measured)
        command_line.write_text(output / "metrics.json", json.dumps(measured, indent=4))
        command_line.write_text(output / "tables.md", text)
    print(text)


if __name__ == "__main__":
    command_line.run(
        "evaluate", evaluate, "What is measured stays in --output; --sections chooses the rest."
    )
