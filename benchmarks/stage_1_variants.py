"""What decides how good reconstructions are: one budget, one change at a time.

    pip install -e '.[perceptual]'
    python benchmarks/stage_1_variants.py --data=clothing/train --validation=clothing/validation \\
        --output=runs/variants.jsonl

The first variant is the recipe (examples/recipes/vqvae2_clothing_64.py) without its extras: plain
squared error over the variance, codes that start from data, straight-through gradient, warm-up and
cosine decay. Every other one differs in what its name says. All train for --steps steps on the
same images in the same order, from the same seed, and are measured on the validation images. With
--prior_steps a small PixelSNAIL of each level learns the training images' codes for as many steps:
what it needs for those of the validation images says how hard they are to learn, and what an image
takes with entropy coding.

Rows are kept in --output as they are finished; the same command goes on after the last.
"""

import json
import math
import tempfile
import time
from pathlib import Path

import keras
import measure
from absl import app, flags

import keras_vqvae2
from keras_vqvae2.layers import (
    BinarySphericalQuantizer,
    FiniteScalarQuantizer,
    GumbelVectorQuantizer,
    IndexBackpropagationQuantizer,
    LookupFreeQuantizer,
    ResidualVectorQuantizer,
    SimVectorQuantizer,
    VectorQuantizer,
    VectorQuantizerEMA,
)
from keras_vqvae2.losses import LPIPSDistance, SquaredError

# What a variant changes: arguments of the model, of its quantizers, or these themselves, losses (by
# their weights; the squared error over the variance is the recipe's) and training.
VARIANTS = {
    "the recipe's basis": {},
    "residual units 32": {"model": {"residual_units": 32}},
    "plain loss (variance 1)": {"losses": {"squared_error": 1.0}},
    "codes start at random": {"quantizers": {"data_initialization": False}},
    "averages start at zero": {
        "quantizers": {
            "data_initialization": False,
            "restart_threshold": 0.0,
            "zero_debias": True,
            "epsilon": 1e-5,
        }
    },
    "k-means start": {"quantizers": {"kmeans_rounds": 10}},
    "drawn codes": {"quantizers": {"sample_temperature": 0.1}},
    "no restart of dead codes": {"quantizers": {"restart_threshold": 0.0}},
    "rotation trick": {"quantizers": {"gradient": "rotation"}},
    "constant learning rate": {"training": {"schedule": "constant"}},
    "learning rate 4e-4": {"training": {"learning_rate": 4e-4}},
    "averaged weights (0.99)": {"training": {"ema_momentum": 0.99}},
    "quantizer dropout 0.1": {"model": {"quantizer_dropout": 0.1}},
    "quantizer dropout 0.25": {"model": {"quantizer_dropout": 0.25}},
    "LPIPS 0.1": {"losses": {"lpips": 0.1}},
    "LPIPS 0.3": {"losses": {"lpips": 0.3}},
    "gradients train the codes": {"quantizer": VectorQuantizer(512, 64)},
    "cosine similarity at width 8": {"quantizer": VectorQuantizerEMA(512, 8, similarity="cosine")},
    "orthogonal codes": {"quantizer": VectorQuantizer(512, 64, orthogonal_weight=10.0)},
    "DiVeQ": {"quantizer": VectorQuantizer(512, 64, gradient="diveq")},
    "FSQ 8x8x8": {"quantizer": FiniteScalarQuantizer([8, 8, 8])},
    "FSQ 8x8x8 symmetric": {"quantizer": FiniteScalarQuantizer([8, 8, 8], symmetric=True)},
    "LFQ of 9 bits": {"quantizer": LookupFreeQuantizer(9)},
    "BSQ of 9 bits": {"quantizer": BinarySphericalQuantizer(9)},
    "SimVQ": {"quantizer": SimVectorQuantizer(512, 64)},
    "Gumbel": {"quantizer": GumbelVectorQuantizer(512, 64)},
    "IBQ": {"quantizer": IndexBackpropagationQuantizer(512, 64)},
    # More codes a position than the rest: for what they cost, see bits_per_pixel.
    "SimVQ of 65536 codes": {"quantizer": SimVectorQuantizer(65_536, 64)},
    "FSQ 8x8x8x5x5x5": {"quantizer": FiniteScalarQuantizer([8, 8, 8, 5, 5, 5])},
    "two heads": {"quantizer": VectorQuantizerEMA(512, 64, num_heads=2)},
    "residual of depth 4": {"quantizer": ResidualVectorQuantizer(VectorQuantizerEMA(512, 64), 4)},
    "residual of depth 4 with one codebook": {
        "quantizer": ResidualVectorQuantizer(VectorQuantizerEMA(512, 64), 4, shared_codebook=True)
    },
}
COLUMNS = ["psnr", "ssim", "lpips", "psnr_top", "perplexity_top", "perplexity_bottom"]
COLUMNS += ["usage_top", "usage_bottom", "bits_per_pixel"]
PRIOR_COLUMNS = ["nats_top", "nats_bottom", "prior_bits_per_pixel"]
PRIOR = {"hidden_units": 32, "residual_units": 32, "num_blocks": 1, "attention_heads": 4}

FLAGS = flags.FLAGS
flags.DEFINE_string("data", None, "Folder of training images.")
flags.DEFINE_string("validation", None, "Folder of validation images.")
flags.DEFINE_string("output", None, "File for the rows; what it holds already is not run again.")
flags.DEFINE_list("variants", list(VARIANTS), "Names of variants, all by default.")
flags.DEFINE_integer("steps", 500, "Training steps of a variant.", lower_bound=1)
flags.DEFINE_integer("batch_size", 32, "Images a step.", lower_bound=1)
flags.DEFINE_integer("prior_steps", 0, "Training steps of each prior; 0: none.", lower_bound=0)
flags.DEFINE_string("dtype", "float32", "Dtype policy, such as mixed_bfloat16.")
flags.DEFINE_integer("hidden_units", 128, "Channels of the maps.", lower_bound=2)
flags.mark_flags_as_required(["data", "validation", "output"])


def basis():
    """The recipe's model and data, without what other variants add."""
    recipe = measure.load_recipe("vqvae2_clothing_64")()
    model = {**recipe["model"], "hidden_units": FLAGS.hidden_units, "quantizer_dropout": 0.0}
    return model, recipe["data"]


def optimizer(schedule="cosine", learning_rate=1e-3, ema_momentum=None, steps=None):
    steps = steps or FLAGS.steps
    warmup = steps // 10
    if schedule == "cosine":
        learning_rate = keras.optimizers.schedules.CosineDecay(
            1e-5,
            steps - warmup,
            alpha=0.01,
            warmup_target=learning_rate,
            warmup_steps=warmup,
        )
    averaged = {} if ema_momentum is None else {"use_ema": True, "ema_momentum": ema_momentum}
    return keras.optimizers.Adam(learning_rate, **averaged)


def run(variant):
    """Trains and measures one variant. Returns its row as a dict."""
    changes = VARIANTS[variant]
    arguments, data = basis()
    _, weight = arguments["reconstruction_losses"]["squared_error"]
    weights = {"squared_error": weight, **changes.get("losses", {})}
    losses = {"squared_error": SquaredError(), "lpips": LPIPSDistance("alexnet")}
    arguments["reconstruction_losses"] = {k: (losses[k], weight) for k, weight in weights.items()}
    default = VectorQuantizerEMA(512, 64, **changes.get("quantizers", {}))
    arguments["quantizer"] = changes.get("quantizer", default)
    keras.utils.set_random_seed(0)
    model = keras_vqvae2.VQVAE2(**{**arguments, **changes.get("model", {})}, dtype=FLAGS.dtype)
    model.compile(optimizer=optimizer(**changes.get("training", {})))
    size = model.image_shape[:2]
    images = keras_vqvae2.data.images_from_folder(
        FLAGS.data, size, FLAGS.batch_size, shuffle=True, repeat=True, **data
    )
    started = time.time()
    model.fit(images, epochs=1, steps_per_epoch=FLAGS.steps)
    seconds = time.time() - started
    validation = keras_vqvae2.data.images_from_folder(FLAGS.validation, size, FLAGS.batch_size)
    measured = keras_vqvae2.evaluation.evaluate_reconstructions(model, validation)
    if FLAGS.prior_steps:
        measured |= prior_nats(model)
    return {"variant": variant, "steps": FLAGS.steps, "seconds": seconds, **measured}


def prior_nats(model):
    """Nats a code of the validation images, by priors that learned the training images' codes."""

    def images(folder):
        return keras_vqvae2.data.images_from_folder(
            folder, model.image_shape[:2], FLAGS.batch_size, reshuffle=False
        )

    priors = []
    with tempfile.TemporaryDirectory() as folder:
        keras_vqvae2.codes.encode_dataset(model, images(FLAGS.data), folder, flips=True, verbose=0)
        for level in model.num_embeddings:
            keras.utils.set_random_seed(0)
            arguments = keras_vqvae2.codes.prior_arguments(folder, level)
            priors.append(keras_vqvae2.PixelSnailPrior(**arguments, **PRIOR))
            priors[-1].compile(
                optimizer=optimizer(learning_rate=2e-3, steps=FLAGS.prior_steps), jit_compile=False
            )
            codes = keras_vqvae2.codes.codes_from_tfds(
                folder, FLAGS.batch_size, shuffle=True, repeat=True
            )
            priors[-1].fit(codes, epochs=1, steps_per_epoch=FLAGS.prior_steps)
    generator = keras_vqvae2.HierarchicalImageGenerator(model, priors)
    likelihood = keras_vqvae2.evaluation.evaluate_likelihood(generator, images(FLAGS.validation))
    pixels = math.prod(model.image_shape[:2])
    return {
        **{f"nats_{k}": v["nats_per_code"] for k, v in likelihood["levels"].items()},
        "prior_bits_per_pixel": likelihood["nats_per_image"] / math.log(2) / pixels,
    }


def main(_):
    unknown = set(FLAGS.variants) - set(VARIANTS)
    if unknown:
        raise app.UsageError(f"Expected some of {list(VARIANTS)}. Received: {sorted(unknown)}")
    path = Path(FLAGS.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for variant in FLAGS.variants:
        if not any(row["variant"] == variant for row in rows):
            rows.append(run(variant))
            with path.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            keras.backend.clear_session()
    columns = COLUMNS + PRIOR_COLUMNS * all(PRIOR_COLUMNS[0] in row for row in rows)
    cells = [
        [row["variant"], *(f"{row[name]:.3f}" for name in columns), f"{row['seconds']:.0f}"]
        for row in rows
    ]
    print(measure.markdown_table(["variant", *columns, "seconds"], cells), end="\n\n")
    print(measure.environment())


if __name__ == "__main__":
    app.run(main)
