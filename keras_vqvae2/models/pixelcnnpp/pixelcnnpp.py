from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.decoding.steps import Steps
from keras_vqvae2.hints import Config, Dataset, DTypePolicy, Tensor, TensorTree
from keras_vqvae2.image_batches import to_numpy
from keras_vqvae2.layers import DiscretizedLogisticMixture, PixelDistribution
from keras_vqvae2.models.pixelcnnpp.pixelcnnpp_layers import (
    ABOVE,
    ABOVE_LEFT,
    StreamBlock,
    StreamHead,
    StreamStart,
)
from keras_vqvae2.models.pixelcnnpp.pixelcnnpp_steps import SIZES, TURN, PixelCNNPlusPlusSteps
from keras_vqvae2.models.pixelcnnpp.weight_norm_conv2d import (
    WeightNorm,
    WeightNormConv2D,
    WeightNormUpsampling,
)
from keras_vqvae2.models.pixels.pixel_model import PixelModel
from keras_vqvae2.validation import check_positive, check_share, first_batch, is_arrays

STREAMS = {"above": ABOVE, "left": ABOVE_LEFT}


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class PixelCNNPlusPlus(PixelModel):
    """PixelCNN++: whole pixels as mixtures of logistics, from two streams at three sizes.

    ```
    p(image | label) = product over pixels in raster order of p(pixel | pixels before, label)

    u, ul  = start (image)                   u sees rows above, ul also what is left in the row
    up     : groups of blocks at 1, 1/2, 1/4 of the size;  u = block (u), ul = block (ul, u)
    down   : groups at 1/4, 1/2, 1;          u = block (u, u of the way up),
                                             ul = block (ul, [u, ul of the way up])
    parameters of DiscretizedLogisticMixture = W elu (ul)
    ```

    Streams are causal by shifts, not masks. All convolutions are weight-normed, and start from the
    data: before the first step of a fresh model `fit` makes one pass over its first batch, after
    which every layer gives features of mean 0 and deviation 1 (0.1 where a gate begins). Where each
    process of a job reads data of its own, call `start` with the same images in all of them.

    For samples and test numbers from averaged weights (Polyak), as in the paper, compile with an
    optimizer that has `use_ema=True`.

    Args:
        image_shape: `(height, width, colours)`: multiples of 4, and 1 or 3 colours. Defaults to
            `(32, 32, 3)` (CIFAR-10).
        num_classes: None, or the number of labels, which enter every block.
        hidden_units: Positive integer, features of a stream. Defaults to 160 (paper).
        num_blocks: Positive integer, blocks of a group on the way up; groups down have one more but
            for the first. Defaults to 5 (paper).
        num_mixtures: Positive integer. Defaults to 10 (paper).
        dropout: Float in `[0, 1)`, in every block. Defaults to 0.5 (paper).
        levels: Integer of at least 2, values of a colour. Defaults to 256.
        dtype: Dtype policy of the layers. Parameters and loss are float32.
        **kwargs: `name` and `trainable`.

    Raises:
        ValueError: If a size is not positive, does not divide by 4, or colours are not 1 or 3.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_vqvae2

    images = np.random.default_rng(0).integers(256, size=(8, 16, 16, 3)).astype("uint8")
    model = keras_vqvae2.PixelCNNPlusPlus(
        (16, 16, 3), num_classes=2, hidden_units=8, num_blocks=1, num_mixtures=2, dropout=0.0
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-3, beta_2=0.9995, use_ema=True))
    data = {"image": images, "label": np.arange(8) % 2}
    model.fit(data, batch_size=4, verbose=0)
    print(model.evaluate(data, verbose=0, return_dict=True)["bits_per_dim"])
    print(model.generate(2, labels=1, verbose=0).shape)  # uint8 (2, 16, 16, 3)
    ```

    Reference:
        - Salimans et al. 2017, "PixelCNN++: Improving the PixelCNN with Discretized Logistic
          Mixture Likelihood and Other Modifications", arXiv 1701.05517;
          github.com/openai/pixel-cnn.
    """

    def __init__(
        self,
        image_shape: Sequence[int] = (32, 32, 3),
        num_classes: int | None = None,
        hidden_units: int = 160,
        num_blocks: int = 5,
        num_mixtures: int = 10,
        dropout: float = 0.5,
        levels: int = 256,
        dtype: DTypePolicy = None,
        **kwargs: Any,
    ) -> None:
        inputs = self.pixel_inputs(image_shape, num_classes, TURN)
        label = inputs.get("label")
        check_positive(hidden_units=hidden_units, num_blocks=num_blocks)
        check_share("dropout", dropout)
        mixture = DiscretizedLogisticMixture(tuple(image_shape)[-1], num_mixtures, levels)

        # === Layers ===
        dtype = keras.dtype_policies.get(dtype)
        start = StreamStart(hidden_units, levels, dtype=dtype, name="start")
        head = StreamHead(mixture.num_parameters, dtype=dtype, name="head")

        def block(name, stream):
            return StreamBlock(
                **STREAMS[stream],
                dropout=dropout,
                num_classes=num_classes,
                dtype=dtype,
                name=f"{name}_{stream}",
            )

        def resize(kind, level, stream):
            options: dict[str, Any] = {"dtype": dtype, "name": f"{kind}_{level}_{stream}"}
            if kind == "shrink":
                return WeightNormConv2D(hidden_units, **STREAMS[stream], strides=2, **options)
            columns = STREAMS[stream]["kernel_size"][1]
            return WeightNormUpsampling(hidden_units, columns, **options)

        # === Functional Model ===
        u, ul = start(inputs["image"])
        stored = [(u, ul)]
        for level in range(SIZES):
            if level:
                u, ul = (resize("shrink", level - 1, s)(x) for s, x in (("above", u), ("left", ul)))
                stored.append((u, ul))
            for n in range(num_blocks):
                u = block(f"up_{level}_{n}", "above")(u, None, label)
                ul = block(f"up_{level}_{n}", "left")(ul, u, label)
                stored.append((u, ul))
        u, ul = stored.pop()
        for level in range(SIZES - 1, -1, -1):
            if level < SIZES - 1:
                u, ul = (resize("grow", level, s)(x) for s, x in (("above", u), ("left", ul)))
            for n in range(num_blocks + (level < SIZES - 1)):
                u_before, ul_before = stored.pop()
                u = block(f"down_{level}_{n}", "above")(u, u_before, label)
                both = ops.concatenate([u, ul_before], axis=-1)
                ul = block(f"down_{level}_{n}", "left")(ul, both, label)
        super().__init__(inputs, head(ul), image_shape, num_classes, levels, dtype=dtype, **kwargs)

        # === Config ===
        self.hidden_units = hidden_units
        self.num_blocks = num_blocks
        self.num_mixtures = num_mixtures
        self.dropout = dropout

    def _distribution(self) -> PixelDistribution:
        return DiscretizedLogisticMixture(self.image_shape[-1], self.num_mixtures, self.levels)

    def _steps(self) -> Sequence[Sequence[Steps]]:
        kinds = range(TURN)
        return [[PixelCNNPlusPlusSteps(self, row, column) for column in kinds] for row in kinds]

    # === The start ===

    def _weight_norms(self):
        layers = self._flatten_layers(include_self=False)
        return [layer for layer in layers if isinstance(layer, WeightNorm)]

    @property
    def is_fresh(self) -> bool:
        """Whether no layer has started: every g is 1 and every bias 0."""
        first = self.get_layer("head").conv
        g, bias = (ops.convert_to_numpy(x.value) for x in (first.g, first.bias))
        return bool((g == 1).all() and (bias == 0).all())

    def start(self, images: TensorTree) -> np.ndarray:
        """Sets scales and biases from data, layer after layer.

        Args:
            images: A batch, as for `fit`; some hundred images are plenty.

        Returns:
            The parameters of its pixels afterwards: mean 0 and deviation 1 for each.

        Raises:
            ValueError: If the images do not fit.
        """
        self.check_batch(images)
        images = keras.tree.map_structure(to_numpy, self._own(images))
        layers = self._weight_norms()
        for layer in layers:
            layer.starting = True
        try:
            with backend.alone():
                parameters = self(images, training=False)
        finally:
            for layer in layers:
                layer.starting = False
        return ops.convert_to_numpy(parameters)

    def fit(
        self, x: Tensor | Dataset | None = None, *args: Any, **kwargs: Any
    ) -> keras.callbacks.History:
        """As `PixelModel.fit`; a fresh model first starts from the first batch (`start`)."""
        if self.is_fresh:
            x = self._check_data(x, with_loss=True)
            batch, x = first_batch(x)
            if batch is not None:
                if is_arrays(x):
                    batch = keras.tree.map_structure(lambda array: array[:START], batch)
                self.start(self._finite_images(batch))
        return super().fit(x, *args, **kwargs)

    def _finite_images(self, batch):
        """A batch without the images whose steps training skips; with all, if no others are."""
        batch = keras.tree.map_structure(to_numpy, self._own(batch))
        finite = ~np.isnan(batch["image"]).any(axis=(1, 2, 3))
        kept = finite if finite.any() else slice(None)
        return keras.tree.map_structure(lambda array: array[kept], batch)

    def get_config(self) -> Config:
        config = super().get_config()
        config.pop("condition_channels")
        return {
            **config,
            "hidden_units": self.hidden_units,
            "num_blocks": self.num_blocks,
            "num_mixtures": self.num_mixtures,
            "dropout": self.dropout,
        }


START = 128  # images of an array that a start looks at: openai/pixel-cnn's batch on 8 GPUs
