import math

import numpy as np
import pytest
from keras import ops

from keras_vqvae2 import VQVAE2, HierarchicalImageGenerator, PixelSnailPrior
from keras_vqvae2.evaluation import evaluate_likelihood, position_nats


def prior(level, code_shape, **changes):
    model = PixelSnailPrior(
        code_shape, 12, level, hidden_units=8, residual_units=6, num_blocks=1, block_layers=1,
        kernel_size=3, attention_heads=2, condition_blocks=0, condition_kernel_size=3,
        output_blocks=0, **{"num_classes": 2, "image_shape": (16, 16, 3), **changes},
    )  # fmt: skip
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(0.3 * rng.normal(size=variable.shape))
    return model


@pytest.fixture(scope="module")
def generator():
    vqvae = VQVAE2((16, 16, 3), num_embeddings=12, hidden_units=8, residual_units=4)
    priors = [prior("top", (2, 2)), prior("bottom", (4, 4), condition_factors={"top": 2})]
    return HierarchicalImageGenerator(vqvae, priors)


@pytest.fixture
def images(rng):
    return rng.uniform(size=(5, 16, 16, 3)).astype("float32")


LABELS = np.array([0, 1, 1, 0, 1])


def test_levels_and_sum_against_logits_and_evaluate(generator, images):
    measured = evaluate_likelihood(generator, images, LABELS, batch_size=2)
    codes = {**generator.vqvae.encode(images), "label": LABELS}
    total = 0.0
    for level, model in generator.priors.items():
        logits = ops.convert_to_numpy(model(codes)).astype("float64")
        chances = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
        nats = -np.log(np.take_along_axis(chances, codes[level][..., None], axis=-1))
        of_level = measured["levels"][level]
        assert of_level["nats_per_code"] == pytest.approx(nats.mean(), rel=1e-5)
        assert of_level == {"nats_per_code": of_level["nats_per_code"], "uniform": math.log(12)}
        total += nats.sum() / 5
    assert measured["nats_per_image"] == pytest.approx(total, rel=1e-5)
    assert measured["bits_per_dim"] == pytest.approx(total / math.log(2) / (16 * 16 * 3), rel=1e-5)
    assert measured["images"] == 5
    bits = 0.0
    for level, model in generator.priors.items():
        model.compile()
        evaluated = model.evaluate(codes, batch_size=5, verbose=0, return_dict=True)
        nats = measured["levels"][level]["nats_per_code"]
        assert nats == pytest.approx(evaluated["loss"], rel=1e-4)
        bits += evaluated["bits_per_dim"]
    assert measured["bits_per_dim"] == pytest.approx(bits, rel=1e-4)


def test_all_forms_of_data_measure_the_same(generator, images):
    codes = generator.vqvae.encode(images)
    batches = [(images[:3], LABELS[:3]), (images[3:], LABELS[3:])]
    pixels = np.round(images * 255).astype("uint8")
    train = {level: value[::-1] for level, value in codes.items()}
    expected = evaluate_likelihood(generator, images, LABELS, train)
    labelled = {**codes, "label": LABELS}
    parts = [{k: v[part] for k, v in labelled.items()} for part in (slice(3), slice(3, 5))]
    forms = [
        ((codes, LABELS), {}),
        ((labelled,), {"batch_size": 3}),
        ((batches,), {}),
        ((parts,), {}),
    ]
    for arguments, keywords in forms:
        measured = evaluate_likelihood(generator, *arguments, train_codes=train, **keywords)
        assert measured["images"] == 5
        assert measured["nats_per_image"] == pytest.approx(expected["nats_per_image"], rel=1e-5)
        for level, values in measured["levels"].items():
            assert values == pytest.approx(expected["levels"][level], rel=1e-5)
    of_pixels = evaluate_likelihood(generator, pixels, LABELS)
    of_floats = evaluate_likelihood(generator, (pixels / 255.0).astype("float32"), LABELS)
    assert of_pixels["nats_per_image"] == pytest.approx(of_floats["nats_per_image"], rel=1e-5)


def test_the_baseline_of_positions_against_a_loop(generator, images, rng):
    train, codes = rng.integers(7, size=(20, 2, 3)), rng.integers(7, size=(9, 2, 3))
    nats = 0.0
    for one in codes:
        for row in range(2):
            for column in range(3):
                seen = sum(other[row, column] == one[row, column] for other in train)
                nats -= math.log((seen + 1) / (20 + 7))
    assert position_nats(train, codes, 7) == pytest.approx(nats / codes.size, rel=1e-12)
    of_images = generator.vqvae.encode(images)
    train = {level: value[:3] for level, value in of_images.items()}
    measured = evaluate_likelihood(generator, of_images, LABELS, train, batch_size=2)
    for level, values in measured["levels"].items():
        expected = position_nats(train[level], of_images[level], 12)
        assert values["position_only"] == pytest.approx(expected, rel=1e-12)


def test_a_generator_without_classes(images):
    vqvae = VQVAE2(
        (16, 16, 3), num_embeddings=12, hidden_units=8, residual_units=4, num_levels=1
    )  # fmt: skip
    generator = HierarchicalImageGenerator(vqvae, [prior("bottom", (4, 4), num_classes=None)])
    measured = evaluate_likelihood(generator, images)
    # Labels that stand beside the images of a data set do no harm.
    beside = evaluate_likelihood(generator, [(images, LABELS)])
    assert measured["nats_per_image"] == pytest.approx(beside["nats_per_image"], rel=1e-5)


def test_bad_data(generator, images):
    codes = generator.vqvae.encode(images)
    cases = [
        ((images,), r"Expected labels below 2. Received: none"),
        ((codes, LABELS[:3]), "Expected as many of each. Received: .*'label': 3"),
        ((codes, LABELS + 1), r"Expected labels in \[0, 2\). Received: 'label'"),
        (({"top": codes["top"]}, LABELS), "Expected a dict with the keys"),
        (
            ({**codes, "top": codes["top"] + 12}, LABELS),
            r"Expected codes in \[0, 12\). Received: 'top'",
        ),
        ((2 * images, LABELS), r"Expected pixels in \[0, 1\]"),
        ((images[:, :8], LABELS), r"shape \(batch, 2, 2\).* Received: 'top' of shape"),
        (([images], LABELS), "Expected labels beside each batch"),
        (([],), "Expected images or codes. Received: none"),
        ((images[:0], LABELS[:0]), "Expected at least one image"),
        ((images, LABELS, {"top": codes["top"]}), r"Expected train_codes of \('top', 'bottom'\)"),
        ((images, LABELS, None, 0), "Received: batch_size=0"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            evaluate_likelihood(generator, *arguments)


def test_bad_codes_of_a_baseline():
    good = np.zeros((2, 3, 4), int)
    cases = [
        (good[0], good, r"shape \(batch, rows, columns\).* Received: codes of shape \(3, 4\)"),
        (good[:0], good, "at least one"),
        (good * 1.0, good, "dtype float64"),
        (good, good[:, :2], r"shape \(batch, 3, 4\).* Received: codes of shape \(2, 2, 4\)"),
        (good, good - 1, r"Expected codes in \[0, 5\). Received: codes from -1 to -1"),
        (good + 5, good, "from 5 to 5"),
    ]
    for train, codes, message in cases:
        with pytest.raises(ValueError, match=message):
            position_nats(train, codes, 5)
