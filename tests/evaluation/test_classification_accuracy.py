import dataclasses

import keras
import numpy as np
import pytest
from PIL import Image

from keras_vqvae2.data import images_from_arrays
from keras_vqvae2.evaluation.classification_accuracy import (
    _accuracies,
    _test_batches,
    _training_batches,
    classification_accuracy_score,
)
from keras_vqvae2.evaluation.classifier_protocol import (
    ClassifierProtocol,
    StepwiseDecay,
    build_resnet50,
    build_small_resnet,
    resnet50_imagenet_protocol,
)

BUILT = []


def build(image_shape, num_classes):
    x = inputs = keras.Input(image_shape)
    x = keras.layers.Conv2D(4, 3, strides=2)(x)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(num_classes)(x))
    BUILT.append(model)
    return model


TINY = ClassifierProtocol(build, image_size=8, epochs=8, batch_size=16, learning_rate=2.0)


@pytest.fixture
def colours(rng):
    """Noise with more red, green or blue, and which of them."""
    labels = np.arange(48) % 3
    images = 0.5 * rng.uniform(size=(48, 10, 10, 3)) + 0.4 * np.eye(3)[labels][:, None, None]
    return images.astype("float32"), labels


def test_samples_of_the_classes_teach_them_and_others_do_not(colours):
    images, labels = colours
    tests = (images[::-1], labels[::-1])
    good = classification_accuracy_score(colours, tests, 3, TINY, verbose=0)
    assert good["top1"] > 0.9 and good["top5"] == 1.0
    again = classification_accuracy_score(colours, tests, 3, TINY, verbose=0)
    assert again["loss"] == pytest.approx(good["loss"], rel=1e-3)
    other = classification_accuracy_score(colours, tests, 3, TINY, seed=1, verbose=0)
    assert abs(other["loss"] - good["loss"]) > 1e-4
    wrong = (images, (labels + 1) % 3)
    assert classification_accuracy_score(wrong, tests, 3, TINY, verbose=0)["top1"] < 0.1


def test_folders_and_data_sets_of_the_same_images(colours, tmp_path):
    images, labels = colours
    pixels = (images * 255).astype("uint8")
    for i, (image, label) in enumerate(zip(pixels, labels)):
        (tmp_path / f"class_{label}").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / f"class_{label}" / f"{i}.png")
    batches = images_from_arrays(pixels, 8, 16, labels=labels, shuffle=True)
    for train, test in [(tmp_path, colours), (batches, str(tmp_path)), (colours, batches)]:
        assert classification_accuracy_score(train, test, 3, TINY, verbose=0)["top1"] > 0.9
    (tmp_path / "other").mkdir()
    Image.fromarray(pixels[0]).save(tmp_path / "other" / "0.png")
    with pytest.raises(ValueError, match="Expected folders of the same 3 classes.*'other'"):
        classification_accuracy_score(colours, tmp_path, 3, TINY)


def test_ranks_of_known_logits():
    logits = np.array([[9, 8, 7, 6, 5, 4, 3.0]] * 5)
    logits[3] = 0.0  # all equal: nothing is known
    logits[4] = np.nan
    labels = np.array([0, 4, 5, 0, 0])

    class Model:
        def predict_on_batch(self, images):
            return logits[images]

    batches = [(np.arange(3), labels[:3]), (np.arange(3, 5), labels[3:])]
    assert _accuracies(Model(), batches) == {"top1": 1 / 5, "top5": 2 / 5}


def test_the_schedule_of_ninety_epochs():
    rates = [float(StepwiseDecay(0.4, 900)(step)) for step in range(900)]
    expected = []
    for step in range(900):
        drops = sum(step >= 10 * epoch for epoch in (30, 60, 80))
        expected.append(0.4 * min(1, (step + 1) / 50) / 10**drops)
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    again = StepwiseDecay.from_config(StepwiseDecay(0.4, 900).get_config())
    assert float(again(0)) == rates[0]


def test_kernels_alone_decay(colours):
    protocol = dataclasses.replace(TINY, epochs=1, weight_decay=0.02)
    classification_accuracy_score(colours, colours, 3, protocol, verbose=0)
    model = BUILT[-1]
    kernels = [w for w in model.get_weights() if w.ndim > 1]
    assert len(kernels) == 2
    expected = 0.01 * sum((kernel**2).sum() for kernel in kernels)
    losses = [float(keras.ops.convert_to_numpy(loss)) for loss in model.losses]
    assert sum(losses) == pytest.approx(expected, rel=1e-4)
    assert model.optimizer.momentum == 0.9 and model.optimizer.nesterov


@pytest.mark.parametrize("random_resized_crop", [False, True])
def test_what_training_and_test_see(rng, random_resized_crop):
    pytest.importorskip("keras_cv")
    images = np.ones((6, 40, 40, 3)) * np.linspace(0, 1, 40)[None, None, :, None]  # left to right
    protocol = ClassifierProtocol(
        build, image_size=28, batch_size=4, random_resized_crop=random_resized_crop
    )
    pair = (images.astype("float32"), np.arange(6) % 2)
    batches, steps = _training_batches(pair, protocol, 2, seed=0)
    assert steps == 2
    seen = [x.numpy() for x, _ in batches.take(12)]
    assert {x.shape for x in seen} == {(4, 28, 28, 3)}
    slopes = np.concatenate([x[:, 14, -1, 0] - x[:, 14, 0, 0] for x in seen])
    assert (slopes > 0).any() and (slopes < 0).any()  # mirrored
    spread = np.ptp(np.abs(slopes))
    assert spread > 0.3 if random_resized_crop else spread < 1e-3  # scaled
    tests = np.concatenate([x.numpy() for x, _ in _test_batches(pair, protocol, 2)])
    np.testing.assert_allclose(tests, tests[:1].repeat(6, axis=0))
    # The middle 28 of 32 columns.
    assert tests[0, 14, 0, 0] == pytest.approx(2.5 / 32, abs=0.02)
    assert tests[0, 14, -1, 0] == pytest.approx(1 - 2.5 / 32, abs=0.02)


def test_networks():
    pytest.importorskip("keras_cv")
    small = build_small_resnet((64, 64, 3), 10)
    assert small.count_params() == 1_237_962
    assert small.predict_on_batch(np.zeros((2, 64, 64, 3))).shape == (2, 10)
    with keras.StatelessScope(initialize_variables=False):
        large = build_resnet50((224, 224, 3), 1000)
    keras.backend.clear_session()  # or Keras makes up for the weights in a later test
    # As many as torchvision's has.
    assert large.output_shape == (None, 1000)
    assert sum(np.prod(v.shape) for v in large.trainable_variables) == 25_557_032
    protocol = resnet50_imagenet_protocol()
    assert (protocol.epochs, protocol.image_size, protocol.weight_decay) == (90, 224, 1e-4)


@pytest.mark.parametrize("name", ["image_size", "epochs", "batch_size", "learning_rate"])
def test_bad_protocols(name):
    with pytest.raises(ValueError, match=f"Received: {name}=0"):
        ClassifierProtocol(**{name: 0})
    with pytest.raises(ValueError, match="Received: weight_decay=-1"):
        ClassifierProtocol(weight_decay=-1)


def test_bad_data(colours):
    images, labels = colours
    dataset = images_from_arrays(images, 8, 16, labels=labels)
    cases = [
        ((images, labels + 1), colours, r"integer labels in \[0, 3\).*Received: \[1 2 3\]"),
        (colours, (images, labels * 1.0), "dtype float64"),
        (colours, (images, labels[:5]), "a label for each of the 48 images, an integer"),
        ((images[..., :1], labels), colours, r"shape \(N, H, W, 3\). Received: .*10, 1\)"),
        ((2 * images, labels), colours, r"floats in \[0, 1\]"),
        (dataset.repeat(), colours, "data set of known length.*Received: cardinality -1"),
        (images_from_arrays(images, 10, labels=labels), colours, r"\(batch, 8, 8, 3\) and labels"),
        (images_from_arrays(images, 8), colours, "and labels. Received: TensorSpec"),
        (colours, dataset.take(0), "Expected test images. Received: none"),
    ]
    protocol = dataclasses.replace(TINY, epochs=1)
    for train, test, message in cases:
        with pytest.raises(ValueError, match=message):
            classification_accuracy_score(train, test, 3, protocol, verbose=0)
    diverging = dataclasses.replace(protocol, learning_rate=1e30)
    with pytest.raises(ValueError, match="Expected a finite loss at the end of training"):
        classification_accuracy_score(colours, colours, 3, diverging, verbose=0)
