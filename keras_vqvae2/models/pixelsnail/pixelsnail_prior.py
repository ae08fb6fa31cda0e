from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_vqvae2.decoding.steps import Steps
from keras_vqvae2.hints import Config, DTypePolicy, Size
from keras_vqvae2.layers import CodeConv2D
from keras_vqvae2.models.code_prior import AutoregressivePrior
from keras_vqvae2.models.pixelsnail.causal_block import CausalBlock
from keras_vqvae2.models.pixelsnail.layout_map import get_layout_map
from keras_vqvae2.models.pixelsnail.pixelsnail_layers import (
    ConditioningStack,
    OutputStack,
    PositionPlanes,
    RowContext,
)
from keras_vqvae2.models.pixelsnail.pixelsnail_steps import PixelSnailSteps
from keras_vqvae2.validation import check_integer, check_positive


def condition_map(stacks, codes):
    """Features of all coarser levels, shape `(batch, rows, columns, channels)`."""
    maps = [stack(codes[name]) for name, stack in stacks.items()]
    return ops.concatenate(maps, axis=-1) if len(maps) > 1 else maps[0]


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class PixelSnailPrior(AutoregressivePrior):
    """The distribution of one level's codes, one after the other, given labels and coarser levels.

    ```
    p(codes | label, coarser) = product over p in raster order of p(code_p | codes before p, ...)

    x = CodeConv2D, mask A (codes) [+ row context (codes)]
    x = causal block (x): gated residual blocks of mask B, then attention or a 1x1 convolution
    logits = output stack (x)
    ```

    Labels and coarser levels enter the gate of every residual block of the causal blocks; a
    conditioning stack makes a coarser level's codes into a map of this level's size. Every logit
    depends on every earlier position: through attention, whose keys see the codes themselves, or,
    where there is none, through the row context, which hands each position the whole row above.
    Masked convolutions alone leave a blind spot to the right (`row_context=False` without
    attention).

    Loss, metrics and data are those of `CodePrior`.

    For samples from averaged weights compile with an optimizer that has `use_ema=True`; Keras puts
    the averages in place when `fit` ends.

    Args:
        code_shape: `(rows, columns)` of the level.
        num_embeddings: Positive integer, codes of the level. Defaults to 512.
        level: Name of the level that is modelled.
        condition_factors: As in `CodePrior`.
        num_classes: None, or the number of labels.
        hidden_units: Positive integer, channels. Defaults to 512 (paper, top of ImageNet, as all
            defaults).
        residual_units: Positive integer, inner channels of residual blocks. Defaults to 2048.
        num_blocks: Positive integer, causal blocks. Defaults to 4.
        block_layers: Positive integer, residual blocks in each. Defaults to 5.
        kernel_size: Odd integer, or `(rows, columns)`, of the causal convolutions. Defaults to 5.
        first_kernel_size: Of the first convolution, `kernel_size` by default.
        mask_type: `"B"`, or `"A"` for residual blocks that leave out the position itself, as in
            the PyTorch port.
        attention_heads: Non-negative integer; 0 for no attention. Defaults to 8.
        attention_units: Positive integer, half of `hidden_units` by default.
        attend_to_codes: Whether keys and values see the codes (PixelSNAIL as released) or what
            enters the block, as in the PyTorch port.
        row_context: Whether there is a row context. By default where attention does not see codes.
        condition_units: Positive integer, channels of a conditioning stack, `hidden_units` by
            default.
        condition_residual_units: Its inner channels, `residual_units` by default.
        condition_blocks: Non-negative integer, its residual blocks. Defaults to 20 (paper, bottom).
        condition_kernel_size: Odd integer. Defaults to 5.
        upsampling: `"nearest"`, or `"learned"` for a transposed convolution.
        output_blocks: Non-negative integer, 1x1 residual blocks before the logits. Defaults to 20.
        dropout: Float in `[0, 1)`, in residual blocks and on attention weights. Defaults to 0.1.
        condition_embeddings: As in `CodePrior`.
        image_shape: None, or `(height, width, channels)` of the images, for `bits_per_dim`.
        codes_fingerprint: None, or `VQVAE2.fingerprint()` of the model whose codes these are.
        label_dropout: As in `CodePrior`, as is `condition_dropout`.
        condition_dropout: Share of examples whose coarser levels are hidden while training.
        gradient_checkpointing: Whether a training step computes causal blocks again for their
            gradients in place of keeping what is inside them.
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
    prior = keras_vqvae2.PixelSnailPrior(
        (8, 8), num_classes=2, hidden_units=16, residual_units=16, num_blocks=1, block_layers=2,
        attention_heads=2, output_blocks=1,
    )
    prior.compile(optimizer=keras.optimizers.Adam(3e-4, use_ema=True))
    prior.fit(codes, batch_size=2, verbose=0)
    print(prior.predict(codes, verbose=0).shape)  # logits (4, 8, 8, 512)
    ```

    Reference:
        - Razavi, van den Oord, Vinyals 2019, "Generating Diverse High-Fidelity Images with
          VQ-VAE-2", arXiv 1906.00446, section 3.2 and appendix A.2.
        - Chen et al. 2018, "PixelSNAIL", arXiv 1712.09763.
    """

    def __init__(
        self,
        code_shape: Sequence[int],
        num_embeddings: int = 512,
        level: str = "top",
        condition_factors: Mapping[str, Size] | None = None,
        num_classes: int | None = None,
        hidden_units: int = 512,
        residual_units: int = 2048,
        num_blocks: int = 4,
        block_layers: int = 5,
        kernel_size: Size = 5,
        first_kernel_size: Size | None = None,
        mask_type: str = "B",
        attention_heads: int = 8,
        attention_units: int | None = None,
        attend_to_codes: bool = True,
        row_context: bool | None = None,
        condition_units: int | None = None,
        condition_residual_units: int | None = None,
        condition_blocks: int = 20,
        condition_kernel_size: Size = 5,
        upsampling: str = "nearest",
        output_blocks: int = 20,
        dropout: float = 0.1,
        condition_embeddings: Mapping[str, int] | None = None,
        image_shape: Sequence[int] | None = None,
        codes_fingerprint: str | None = None,
        label_dropout: float = 0.0,
        condition_dropout: float = 0.0,
        gradient_checkpointing: bool = False,
        dtype: DTypePolicy = None,
        **kwargs: Any,
    ) -> None:
        code_shape, condition_factors = tuple(code_shape), dict(condition_factors or {})
        attention_units = attention_units or max(1, hidden_units // 2)
        if row_context is None:
            row_context = not (attention_heads and attend_to_codes)
        inputs = self.code_inputs(code_shape, level, condition_factors, num_classes)
        counts = self.embeddings_of_conditions(
            condition_factors, condition_embeddings, num_embeddings
        )
        check_positive(
            hidden_units=hidden_units,
            residual_units=residual_units,
            num_blocks=num_blocks,
            block_layers=block_layers,
        )
        check_integer("output_blocks", output_blocks, 0)
        if mask_type not in ("A", "B"):
            raise ValueError(f"Expected 'A' or 'B'. Received: mask_type={mask_type!r}")
        if upsampling not in ("nearest", "learned"):
            raise ValueError(
                f"Expected 'nearest' or 'learned'. Received: upsampling={upsampling!r}"
            )

        # Hidden labels are one more.
        num_labels = num_classes + 1 if num_classes and label_dropout else num_classes

        # === Layers ===
        dtype = keras.dtype_policies.get(dtype)
        first = CodeConv2D(
            hidden_units,
            first_kernel_size or kernel_size,
            num_embeddings,
            mask_type="A",
            dtype=dtype,
            name="first",
        )
        planes = PositionPlanes(dtype=dtype, name="position_planes")
        context = embedding = None
        if row_context:
            context = RowContext(hidden_units, num_embeddings, dtype=dtype, name="row_context")
        if attention_heads and attend_to_codes:
            embedding = CodeConv2D(
                attention_units, 1, num_embeddings, mask_type=None, dtype=dtype, name="embedding"
            )
        conditioners = {
            name: ConditioningStack(
                condition_units or hidden_units,
                counts[name],
                factor,
                condition_blocks,
                condition_residual_units or residual_units,
                condition_kernel_size,
                upsampling,
                dropout,
                dtype=dtype,
                name=f"conditioner_{name}",
            )
            for name, factor in condition_factors.items()
        }
        blocks = [
            CausalBlock(
                residual_units,
                block_layers,
                kernel_size,
                mask_type,
                attention_heads,
                attention_units,
                dropout,
                num_labels,
                gradient_checkpointing,
                dtype=dtype,
                name=f"block_{i}",
            )
            for i in range(num_blocks)
        ]
        output_stack = OutputStack(
            num_embeddings, output_blocks, residual_units, dropout, dtype=dtype, name="output_stack"
        )

        # === Functional Model ===
        told = self.drop_conditions(inputs, level, num_classes, label_dropout, condition_dropout)
        codes, labels = inputs[level], told.get("label")
        condition = condition_map(conditioners, told) if conditioners else None
        background = planes(codes)
        x = first(codes)
        if context is not None:
            x = x + context(codes)
        raw = None if embedding is None else embedding(codes)
        for block in blocks:
            x = block(x, x if raw is None else raw, background, condition, labels)
        super().__init__(
            inputs,
            output_stack(x),
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
        self.residual_units = residual_units
        self.num_blocks = num_blocks
        self.block_layers = block_layers
        self.kernel_size = kernel_size
        self.first_kernel_size = first_kernel_size
        self.mask_type = mask_type
        self.attention_heads = attention_heads
        self.attention_units = attention_units
        self.attend_to_codes = attend_to_codes
        self.row_context = row_context
        self.condition_units = condition_units
        self.condition_residual_units = condition_residual_units
        self.condition_blocks = condition_blocks
        self.condition_kernel_size = condition_kernel_size
        self.upsampling = upsampling
        self.output_blocks = output_blocks
        self.dropout = dropout
        self.gradient_checkpointing = gradient_checkpointing

    get_layout_map = staticmethod(get_layout_map)

    # === Drawing ===

    _condition_map = staticmethod(condition_map)

    def _steps(self) -> Steps:
        return PixelSnailSteps(self)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "hidden_units": self.hidden_units,
            "residual_units": self.residual_units,
            "num_blocks": self.num_blocks,
            "block_layers": self.block_layers,
            "kernel_size": self.kernel_size,
            "first_kernel_size": self.first_kernel_size,
            "mask_type": self.mask_type,
            "attention_heads": self.attention_heads,
            "attention_units": self.attention_units,
            "attend_to_codes": self.attend_to_codes,
            "row_context": self.row_context,
            "condition_units": self.condition_units,
            "condition_residual_units": self.condition_residual_units,
            "condition_blocks": self.condition_blocks,
            "condition_kernel_size": self.condition_kernel_size,
            "upsampling": self.upsampling,
            "output_blocks": self.output_blocks,
            "dropout": self.dropout,
            "gradient_checkpointing": self.gradient_checkpointing,
        }
