import math
import os

import keras
import numpy as np
from keras import ops

from keras_vqvae2.data import class_names, images_from_arrays, images_from_folder
from keras_vqvae2.data.image_folder import list_images
from keras_vqvae2.evaluation.classifier_protocol import (
    ClassifierProtocol,
    StepwiseDecay,
    import_keras_cv,
)
from keras_vqvae2.hints import Dataset, FilePath, Tensor


def classification_accuracy_score(
    train: tuple[Tensor, Tensor] | FilePath | Dataset,
    test: tuple[Tensor, Tensor] | FilePath | Dataset,
    num_classes: int,
    protocol: ClassifierProtocol | None = None,
    seed: int = 0,
    verbose: int = 1,
) -> dict[str, float]:
    """Trains a classifier on samples only and tests it on real images.

    A generator whose samples teach a classifier as much as real images do has caught what tells the
    classes apart. The score means something only beside the same for reconstructions and for real
    training images, with the same protocol and number of images.

    The seed decides weights, order, crops and mirroring: it is set for Keras, NumPy and Python
    (`keras.utils.set_random_seed`). Two runs agree up to what rounding makes of it; random resized
    crops are drawn in parallel and differ.

    Args:
        train: Samples: a pair `(images, labels)`, floats in `[0, 1]` or uint8 of shape
            `(N, H, W, 3)` and integers; or a directory with a folder a class; or a
            `tf.data.Dataset` of batches of float images and labels, of known length, which is
            taken as it is.
        test: Real images, in either form.
        num_classes: Positive integer; labels are below it.
        protocol: `ClassifierProtocol`; its defaults if None.
        seed: Non-negative integer.
        verbose: 1 shows Keras' progress bars.

    Returns:
        Dict of the floats `top1` and `top5`, the shares of test images whose label is the
        classifier's first or among its first five, and `loss`, that of the last epoch, decay
        included. Of equal logits the label's is taken for the lowest.

    Raises:
        ValueError: If images, labels or the folders of classes do not fit, there are none, or
            training ends with a loss that is not finite.
        ImportError: If keras-cv or TensorFlow is not installed.

    Example:

    ```python
    import keras
    import numpy as np
    from keras_vqvae2.evaluation import ClassifierProtocol, classification_accuracy_score

    def build(image_shape, num_classes):
        x = inputs = keras.Input(image_shape)
        x = keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(x))
        return keras.Model(inputs, keras.layers.Dense(num_classes)(x))

    labels = np.arange(32) % 2
    samples = np.zeros((32, 8, 8, 3)) + labels[:, None, None, None]
    protocol = ClassifierProtocol(build, image_size=8, epochs=20, batch_size=8)
    pair = (samples, labels)
    score = classification_accuracy_score(pair, pair, 2, protocol, verbose=0)
    print(score["top1"])  # 1.0
    ```

    Reference:
        - Ravuri, Vinyals 2019, "Classification Accuracy Score for Conditional Generative Models",
          arXiv 1905.10887.
        - Razavi, van den Oord, Vinyals 2019, arXiv 1906.00446, section 5.3.
    """
    protocol = protocol or ClassifierProtocol()
    _check_folders(train, test, num_classes)
    keras.utils.set_random_seed(seed)
    batches, steps = _training_batches(train, protocol, num_classes, seed)
    tests = _test_batches(test, protocol, num_classes)
    model = protocol.build((protocol.image_size, protocol.image_size, 3), num_classes)
    for variable in model.trainable_variables:
        if variable.name == "kernel":
            variable.regularizer = keras.regularizers.L2(protocol.weight_decay / 2)
    peak = protocol.learning_rate * protocol.batch_size / 256
    model.compile(
        keras.optimizers.SGD(
            StepwiseDecay(peak, steps * protocol.epochs), momentum=0.9, nesterov=True
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["sparse_categorical_accuracy"],
    )
    history = model.fit(
        batches, epochs=protocol.epochs, steps_per_epoch=steps, shuffle=False, verbose=verbose
    ).history
    if not math.isfinite(history["loss"][-1]):
        raise ValueError(
            "Expected a finite loss at the end of training; a lower learning_rate may help. "
            f"Received: {history['loss'][-1]}"
        )
    return {**_accuracies(model, tests), "loss": history["loss"][-1]}


def _check_folders(train, test, num_classes):
    """Raises `ValueError` unless the class folders stand for the same labels."""
    names = [
        class_names(source) for source in (train, test) if isinstance(source, (str, os.PathLike))
    ]
    if any(len(of_folder) != num_classes or of_folder != names[0] for of_folder in names):
        raise ValueError(f"Expected folders of the same {num_classes} classes. Received: {names}")


def _training_batches(source, protocol, num_classes, seed):
    """Endless `tf.data.Dataset` of batches, and how many of them are an epoch."""
    if hasattr(source, "element_spec"):
        _check_dataset(source, protocol.image_size)
        steps = int(source.cardinality())
        if steps < 1:
            raise ValueError(
                "Expected a training data set of known length (tf.data.experimental."
                f"assert_cardinality tells it). Received: cardinality {steps}"
            )
        return source.repeat(), steps
    crop = {"crop": "random"}
    if protocol.random_resized_crop:
        layer = import_keras_cv().layers.RandomCropAndResize(
            target_size=(protocol.image_size, protocol.image_size),
            crop_area_factor=(0.08, 1.0),
            aspect_ratio_factor=(3 / 4, 4 / 3),
        )
        crop = {"image_size": _scaled(protocol.image_size), "augment": layer}
    batches, count = _read(
        source, protocol, num_classes, shuffle=True, repeat=True, flip=True, seed=seed, **crop
    )
    return batches, -(-count // protocol.batch_size)


def _test_batches(source, protocol, num_classes):
    if hasattr(source, "element_spec"):
        _check_dataset(source, protocol.image_size)
        return source
    return _read(source, protocol, num_classes)[0]


def _scaled(image_size):
    return round(image_size * 8 / 7)


def _read(source, protocol, num_classes, **options):
    """`tf.data.Dataset` of batches, and the number of images."""
    size = protocol.image_size
    options = {
        "image_size": size, "batch_size": protocol.batch_size, "resize": _scaled(size), **options
    }  # fmt: skip
    if isinstance(source, (str, os.PathLike)):
        return images_from_folder(source, labels=True, **options), len(list_images(source))
    images, labels = source
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"Expected images of shape (N, H, W, 3). Received: shape {images.shape}")
    fits = labels.dtype.kind in "iu" and labels.size
    if not fits or labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"Expected integer labels in [0, {num_classes}), at least one. Received: "
            f"{np.unique(labels)[:10]}, dtype {labels.dtype}"
        )
    return images_from_arrays(images, labels=labels, **options), len(images)


def _check_dataset(source, size):
    spec = source.element_spec
    if not isinstance(spec, tuple) or tuple(spec[0].shape[1:]) != (size, size, 3):
        raise ValueError(
            f"Expected batches of images of shape (batch, {size}, {size}, 3) and labels. "
            f"Received: {spec}"
        )


def _accuracies(model, batches):
    """Top-1 and top-5 accuracy, dict of floats."""
    ranks = []
    for images, labels in batches:
        logits = ops.convert_to_numpy(model.predict_on_batch(ops.convert_to_numpy(images)))
        labels = ops.convert_to_numpy(labels)
        own = logits[np.arange(len(labels)), labels][:, None]
        # How many logits of other classes are not below; this is so of one that is not a number.
        ranks.append((~(logits < own)).sum(axis=1) - 1)
    if not ranks:
        raise ValueError("Expected test images. Received: none")
    ranks = np.concatenate(ranks)
    return {f"top{k}": float((ranks < k).mean()) for k in (1, 5)}
