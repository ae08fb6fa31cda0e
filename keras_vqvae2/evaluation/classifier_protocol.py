"""How the classifier of the classification accuracy score is built and trained."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_vqvae2.hints import Config, Tensor
from keras_vqvae2.validation import check_positive


def import_keras_cv() -> Any:
    try:
        import keras_cv
    except ImportError as error:
        raise ImportError(
            "The classification accuracy score needs keras-cv and TensorFlow: "
            "`pip install keras-cv tensorflow`."
        ) from error
    return keras_cv


def _build_resnet(
    image_shape: Sequence[int],
    num_classes: int,
    filters: Sequence[int],
    blocks: Sequence[int],
    block_type: str,
) -> keras.Model:
    """A ResNet from images in `[0, 1]` of a shape `(height, width, 3)` to logits."""
    backbone = import_keras_cv().models.ResNetBackbone(
        stackwise_filters=list(filters),
        stackwise_blocks=list(blocks),
        stackwise_strides=[1] + [2] * (len(filters) - 1),
        include_rescaling=False,
        block_type=block_type,
        input_shape=image_shape,
    )
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # 0.99 remembers its first values for longer than small runs last
    inputs = keras.Input(image_shape)
    # Mean and spread of ImageNet's pixels, over channels.
    x = keras.layers.Rescaling(1 / 0.226, offset=-0.449 / 0.226)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(backbone(x))
    return keras.Model(inputs, keras.layers.Dense(num_classes)(x))


# Three stages of one block each, for images of about 64x64 on a CPU: 1.24 M parameters.
build_small_resnet = functools.partial(
    _build_resnet, filters=(64, 128, 256), blocks=(1, 1, 1), block_type="basic_block"
)
# The network of the published scores: 25.6 M parameters for 1,000 classes.
build_resnet50 = functools.partial(
    _build_resnet, filters=(64, 128, 256, 512), blocks=(3, 4, 6, 3), block_type="block"
)


@dataclasses.dataclass(frozen=True)
class ClassifierProtocol:
    """How the classifier of `classification_accuracy_score` is trained.

    Stochastic gradient descent with Nesterov momentum 0.9. The learning rate rises from 0 over the
    first 18th of the steps and is divided by ten after a third, two thirds and eight ninths of
    them: epochs 5, 30, 60 and 80 of 90. Images are scaled to 8/7 of `image_size` (256 for 224) and
    cut; tests see the middle. The defaults are small: minutes on a CPU.

    Args:
        build: Function of `(image_shape, num_classes)` that returns a `keras.Model` from images in
            `[0, 1]` to logits.
        image_size: Positive integer, height and width of the classifier's images.
        random_resized_crop: Whether training sees parts of 8% to 100% of the area in aspect ratios
            of 3/4 to 4/3, scaled to `image_size`, or parts of `image_size` anywhere. Both are
            mirrored half of the time.
        epochs: Positive integer.
        batch_size: Positive integer.
        learning_rate: Positive float, the highest, for each 256 images of a batch.
        weight_decay: Non-negative float. `weight_decay / 2` times the sum of the squared kernels is
            added to the loss; biases and normalisations are left out.

    Raises:
        ValueError: If a number is out of range.

    Example:

    ```python
    import dataclasses
    import functools
    from keras_vqvae2.evaluation import ClassifierProtocol

    protocol = ClassifierProtocol(epochs=10)
    print(dataclasses.replace(protocol, image_size=112).epochs)  # 10
    ```

    Reference:
        - Goyal et al. 2017, "Accurate, Large Minibatch SGD", arXiv 1706.02677, for the schedule.
    """

    build: Callable[[Sequence[int], int], keras.Model] = build_small_resnet
    image_size: int = 64
    random_resized_crop: bool = False
    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 0.2
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        check_positive(image_size=self.image_size, epochs=self.epochs, batch_size=self.batch_size)
        if not self.learning_rate > 0:
            raise ValueError(
                f"Expected a positive number. Received: learning_rate={self.learning_rate}"
            )
        if not self.weight_decay >= 0:
            raise ValueError(
                f"Expected a number of at least 0. Received: weight_decay={self.weight_decay}"
            )


def resnet50_imagenet_protocol() -> ClassifierProtocol:
    """The full-size protocol, for ImageNet at 256x256 on accelerators.

    ResNet-50, 90 epochs of random resized crops of 224x224, learning rate 0.1 for each 256 images,
    weight decay 1e-4. It is the usual protocol of ResNet-50 on ImageNet, in which real images
    reach about 76%; details of the published scores' own (73.09% with real images at 256x256) may
    differ, so the score of real images belongs beside every other.

    Returns:
        `ClassifierProtocol`.

    Example:

    ```python
    from keras_vqvae2.evaluation import resnet50_imagenet_protocol

    print(resnet50_imagenet_protocol().epochs)  # 90
    ```

    Reference:
        - Ravuri, Vinyals 2019, arXiv 1905.10887; Goyal et al. 2017, arXiv 1706.02677.
    """
    return ClassifierProtocol(
        build_resnet50,
        image_size=224,
        random_resized_crop=True,
        epochs=90,
        batch_size=256,
        learning_rate=0.1,
        weight_decay=1e-4,
    )


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class StepwiseDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up over an 18th of the steps, then divided by ten at 3/9, 6/9 and 8/9."""

    def __init__(self, peak: float, steps: int) -> None:
        self.peak = peak
        self.steps = steps

    def __call__(self, step: Tensor) -> Tensor:
        # The first step is not at zero, where it would teach nothing.
        done = (ops.cast(step, "float32") + 1.0) / self.steps
        drops = sum(ops.cast(done > part / 9, "float32") for part in (3, 6, 8))
        return self.peak * ops.minimum(1.0, 18.0 * done) * ops.power(0.1, drops)

    def get_config(self) -> Config:
        return {"peak": self.peak, "steps": self.steps}
