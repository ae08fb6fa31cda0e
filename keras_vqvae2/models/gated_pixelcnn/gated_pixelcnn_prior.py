from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_vqvae2.decoding.steps import Steps
from keras_vqvae2.hints import Config, DTypePolicy, Size
from keras_vqvae2.models.code_prior import AutoregressivePrior
from keras_vqvae2.models.gated_pixelcnn.gated_pixelcnn_layers import ColourHead, GatedPixelCNNLayer
from keras_vqvae2.models.gated_pixelcnn.gated_pixelcnn_steps import GatedPixelCNNSteps
from keras_vqvae2.models.pixelsnail.pixelsnail_layers import ConditioningStack
from keras_vqvae2.models.pixelsnail.pixelsnail_prior import condition_map
from keras_vqvae2.validation import check_positive


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class GatedPixelCNNPrior(AutoregressivePrior):
    """Gated PixelCNN over a level's codes: the prior of the first VQ-VAE.

    ```
    x            = embedding of the codes
    v, h         = layer (v, h), from x, x: the vertical stack sees all rows above, the horizontal
                   one what is left in its row and, through a 1x1 convolution, the vertical one
    gate         = tanh(a + V_a told) sigmoid(b + V_b told)      told: label, coarser levels
    logits       = W relu(W h)
    ```

    Two stacks have no blind spot, but each layer reaches only `kernel_size // 2` further: a
    position sees `first_kernel_size // 2 + (num_layers - 1) (kernel_size // 2)` rows up.

    With `VQVAE2(num_levels=1)` it is the VQ-VAE of 2017.

    Args:
        code_shape: As in `CodePrior`.
        num_embeddings: As in `CodePrior`.
        level: As in `CodePrior`.
        condition_factors: As in `CodePrior`.
        num_classes: As in `CodePrior`.
        hidden_units: Positive integer, features of each stack. Defaults to 384 (Gated PixelCNN on
            ImageNet, as `num_layers` and `kernel_size`).
        num_layers: Positive integer. Defaults to 20.
        kernel_size: Odd integer, or `(rows, columns)`, from the second layer on. Defaults to 5.
        first_kernel_size: Of the first layer. Defaults to 7.
        head_units: Positive integer, features before the logits. Defaults to 1024.
        condition_units: Positive integer, channels of the stack that reads a coarser level,
            `hidden_units` by default.
        condition_blocks: Non-negative integer, its residual blocks. Defaults to 2.
        condition_embeddings: As in `CodePrior`.
        image_shape: As in `CodePrior`.
        codes_fingerprint: As in `CodePrior`.
        label_dropout: As in `CodePrior`.
        condition_dropout: As in `CodePrior`.
        dtype: Dtype policy of the layers. Logits and loss are float32.
        **kwargs: `name` and `trainable`.

    Raises:
        ValueError: If a size is not positive, or the coarser maps do not fit.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_vqvae2

    codes = {"top": np.zeros((4, 8, 8), "int32"), "label": np.array([0, 1, 0, 1])}
    prior = keras_vqvae2.GatedPixelCNNPrior(
        (8, 8), num_classes=2, hidden_units=16, num_layers=3, kernel_size=3, head_units=32,
    )
    prior.compile(optimizer=keras.optimizers.Adam(1e-3))
    prior.fit(codes, batch_size=2, verbose=0)
    print(prior.generate(2, labels=[0, 1], verbose=0).shape)  # (2, 8, 8)
    ```

    Reference:
        - van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders", arXiv
          1606.05328, section 2.
        - van den Oord, Vinyals, Kavukcuoglu 2017, "Neural Discrete Representation Learning", arXiv
          1711.00937, section 3.3, for the prior over codes.
    """

    def __init__(
        self,
        code_shape: Sequence[int],
        num_embeddings: int = 512,
        level: str = "top",
        condition_factors: Mapping[str, Size] | None = None,
        num_classes: int | None = None,
        hidden_units: int = 384,
        num_layers: int = 20,
        kernel_size: Size = 5,
        first_kernel_size: Size = 7,
        head_units: int = 1024,
        condition_units: int | None = None,
        condition_blocks: int = 2,
        condition_embeddings: Mapping[str, int] | None = None,
        image_shape: Sequence[int] | None = None,
        codes_fingerprint: str | None = None,
        label_dropout: float = 0.0,
        condition_dropout: float = 0.0,
        dtype: DTypePolicy = None,
        **kwargs: Any,
    ) -> None:
        code_shape, condition_factors = tuple(code_shape), dict(condition_factors or {})
        inputs = self.code_inputs(code_shape, level, condition_factors, num_classes)
        counts = self.embeddings_of_conditions(
            condition_factors, condition_embeddings, num_embeddings
        )
        check_positive(hidden_units=hidden_units, num_layers=num_layers, head_units=head_units)
        # Hidden labels are one more.
        num_labels = num_classes + 1 if num_classes and label_dropout else num_classes

        # === Layers ===
        dtype = keras.dtype_policies.get(dtype)
        embedding = keras.layers.Embedding(
            num_embeddings, hidden_units, dtype=dtype, name="embedding"
        )
        conditioners = {
            name: ConditioningStack(
                condition_units or hidden_units,
                counts[name],
                factor,
                condition_blocks,
                condition_units or hidden_units,
                dtype=dtype,
                name=f"conditioner_{name}",
            )
            for name, factor in condition_factors.items()
        }
        layers = [
            GatedPixelCNNLayer(
                hidden_units,
                kernel_size if i else first_kernel_size,
                first=i == 0,
                num_classes=num_labels,
                dtype=dtype,
                name=f"layer_{i}",
            )
            for i in range(num_layers)
        ]
        head = ColourHead((head_units,), num_embeddings, dtype=dtype, name="head")

        # === Functional Model ===
        told = self.drop_conditions(inputs, level, num_classes, label_dropout, condition_dropout)
        condition = condition_map(conditioners, told) if conditioners else None
        vertical = horizontal = embedding(inputs[level])
        for layer in layers:
            vertical, horizontal = layer(vertical, horizontal, condition, told.get("label"))
        super().__init__(
            inputs,
            head(horizontal),
            code_shape,
            num_embeddings,
            level,
            condition_factors,
            num_classes,
            condition_embeddings,
            image_shape,
            codes_fingerprint,
            label_dropout,
            condition_dropout,
            dtype=dtype,
            **kwargs,
        )

        # === Config ===
        self.hidden_units = hidden_units
        self.num_layers = num_layers
        self.kernel_size = kernel_size
        self.first_kernel_size = first_kernel_size
        self.head_units = head_units
        self.condition_units = condition_units
        self.condition_blocks = condition_blocks

    # === Drawing ===

    _condition_map = staticmethod(condition_map)

    def _steps(self) -> Steps:
        embedding = self.get_layer("embedding")

        def embed(codes):  # -1, where none could be drawn, is as good as another
            return embedding(ops.maximum(codes, 0))

        return GatedPixelCNNSteps(
            [self.get_layer(f"layer_{i}") for i in range(self.num_layers)],
            self.get_layer("head"),
            embed,
            self.code_shape[1],
            self.hidden_units,
        )

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "hidden_units": self.hidden_units,
            "num_layers": self.num_layers,
            "kernel_size": self.kernel_size,
            "first_kernel_size": self.first_kernel_size,
            "head_units": self.head_units,
            "condition_units": self.condition_units,
            "condition_blocks": self.condition_blocks,
        }
