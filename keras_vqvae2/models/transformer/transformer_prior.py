from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_vqvae2.decoding.steps import Steps
from keras_vqvae2.hints import Config, DTypePolicy, Size
from keras_vqvae2.layers import TransformerBlock
from keras_vqvae2.layers.self_attention import EPSILON
from keras_vqvae2.models.code_prior import AutoregressivePrior
from keras_vqvae2.models.transformer.layout_map import get_layout_map
from keras_vqvae2.models.transformer.transformer_layers import (
    CodeConditioner,
    CodeSequence,
    condition_map,
    grid,
)
from keras_vqvae2.models.transformer.transformer_steps import TransformerSteps
from keras_vqvae2.validation import check_integer, check_positive, check_share


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class TransformerPrior(AutoregressivePrior):
    """A causal transformer over the label and a level's codes in raster order: LlamaGen's.

    ```
    x_i    = embedding of code i - 1, the label's at i = 0,  + features of coarser levels at i
    x      = blocks (x): pre-norm (RMS), causal attention turned by rows and columns, SwiGLU
    logits = W rms_norm(x_i)                 of code i
    ```

    Coarser levels pass transformer blocks of their own, in which all positions see each other, are
    brought to the size of the map, and are added position by position. Without them the network is
    LlamaGen's, whose checkpoints `converters.convert_llamagen` reads: its label has no position, so
    that every code sees it with a score of 0.

    Drawing remembers keys and values; `quantize("int8")` reaches nearly all weights.

    Args:
        code_shape: As in `CodePrior`.
        num_embeddings: As in `CodePrior`.
        level: As in `CodePrior`.
        condition_factors: As in `CodePrior`.
        num_classes: As in `CodePrior`.
        hidden_units: Positive integer, channels. Defaults to 768, LlamaGen-B's.
        num_layers: Positive integer, transformer blocks. Defaults to 12, LlamaGen-B's.
        num_heads: Positive integer; channels are a multiple of 4 times it. Defaults to 12.
        feed_forward_units: Positive integer; `8 / 3` of the channels, rounded up to a multiple of
            256, by default, as LlamaGen's.
        qk_norm: Whether queries and keys are normalised. LlamaGen does not.
        absolute_positions: Whether each position has a learned vector beside its rotation. LlamaGen
            has none.
        rope_base: Positive float, base of the rotations' frequencies. Defaults to 10,000.
        condition_blocks: Non-negative integer, transformer blocks over each coarser map.
        dropout: Float in `[0, 1)`, of tokens and behind the parts of each block. Defaults to 0.1.
        condition_embeddings: As in `CodePrior`.
        image_shape: None, or `(height, width, channels)` of the images, for `bits_per_dim`.
        codes_fingerprint: None, or `VQVAE2.fingerprint()` of the model whose codes these are.
        label_dropout: As in `CodePrior`.
        condition_dropout: As in `CodePrior`.
        gradient_checkpointing: Whether a training step computes blocks again for their gradients in
            place of keeping what is inside them.
        dtype: Dtype policy of the layers. Logits and loss are float32.
        **kwargs: `name` and `trainable`.

    Raises:
        ValueError: If a size is not positive, or the heads or the coarser maps do not fit.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_vqvae2

    codes = {"top": np.zeros((4, 8, 8), "int32"), "label": np.array([0, 1, 0, 1])}
    prior = keras_vqvae2.TransformerPrior(
        (8, 8), num_classes=2, hidden_units=16, num_layers=2, num_heads=2, feed_forward_units=48,
    )
    prior.compile(optimizer=keras.optimizers.AdamW(1e-3, weight_decay=0.05, beta_2=0.95))
    prior.fit(codes, batch_size=2, verbose=0)
    print(prior.generate(2, labels=[0, 1], verbose=0).shape)  # (2, 8, 8)
    ```

    Reference:
        - Sun et al. 2024, "Autoregressive Model Beats Diffusion: Llama for Scalable Image
          Generation", arXiv 2406.06525, section 3.2.
    """

    def __init__(
        self,
        code_shape: Sequence[int],
        num_embeddings: int = 512,
        level: str = "top",
        condition_factors: Mapping[str, Size] | None = None,
        num_classes: int | None = None,
        hidden_units: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        feed_forward_units: int | None = None,
        qk_norm: bool = False,
        absolute_positions: bool = False,
        rope_base: float = 10_000.0,
        condition_blocks: int = 2,
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
        inputs = self.code_inputs(code_shape, level, condition_factors, num_classes)
        counts = self.embeddings_of_conditions(
            condition_factors, condition_embeddings, num_embeddings
        )
        feed_forward_units = feed_forward_units or llama_units(hidden_units)
        check_sizes(hidden_units, num_layers, num_heads, feed_forward_units)
        check_integer("condition_blocks", condition_blocks, 0)
        check_share("dropout", dropout)

        # === Layers ===
        dtype = keras.dtype_policies.get(dtype)
        common: dict[str, Any] = {
            "num_heads": num_heads,
            "feed_forward_units": feed_forward_units,
            "qk_norm": qk_norm,
            "rope_base": rope_base,
            "dropout": dropout,
            "gradient_checkpointing": gradient_checkpointing,
            "dtype": dtype,
        }
        conditioners = {
            name: CodeConditioner(
                hidden_units,
                counts[name],
                factor,
                condition_blocks,
                untold=condition_dropout > 0,
                name=f"conditioner_{name}",
                **common,
            )
            for name, factor in condition_factors.items()
        }
        sequence = CodeSequence(
            hidden_units,
            num_embeddings,
            (num_classes or 1) + (label_dropout > 0),
            absolute_positions,
            dropout,
            dtype=dtype,
            name="sequence",
        )
        blocks = [
            TransformerBlock(causal=True, name=f"block_{i}", **common) for i in range(num_layers)
        ]
        norm = keras.layers.RMSNormalization(epsilon=EPSILON, dtype=dtype, name="norm")
        to_logits = keras.layers.Dense(
            num_embeddings, use_bias=False, kernel_initializer="zeros", dtype=dtype, name="logits"
        )

        # === Functional Model ===
        told = self.drop_conditions(inputs, level, num_classes, label_dropout, condition_dropout)
        condition = condition_map(conditioners, told)
        x = sequence(inputs[level], told.get("label"), condition)  # (B, N, C)
        positions = grid(code_shape, tokens_before=1)[:-1]
        for block in blocks:
            x = block(x, positions)
        logits = ops.cast(to_logits(norm(x)), "float32")  # (B, N, K)
        super().__init__(
            inputs,
            ops.reshape(logits, (-1, *code_shape, num_embeddings)),
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
        self.num_heads = num_heads
        self.feed_forward_units = feed_forward_units
        self.qk_norm = qk_norm
        self.absolute_positions = absolute_positions
        self.rope_base = rope_base
        self.condition_blocks = condition_blocks
        self.dropout = dropout
        self.gradient_checkpointing = gradient_checkpointing

    get_layout_map = staticmethod(get_layout_map)

    # === Drawing ===

    _condition_map = staticmethod(condition_map)

    def _steps(self) -> Steps:
        return TransformerSteps(self)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "hidden_units": self.hidden_units,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "feed_forward_units": self.feed_forward_units,
            "qk_norm": self.qk_norm,
            "absolute_positions": self.absolute_positions,
            "rope_base": self.rope_base,
            "condition_blocks": self.condition_blocks,
            "dropout": self.dropout,
            "gradient_checkpointing": self.gradient_checkpointing,
        }


def llama_units(hidden_units: int, multiple: int = 256) -> int:
    """Width of the gate that has the weights of a plain one of `4 * hidden_units`, rounded up."""
    return -(-(8 * hidden_units // 3) // multiple) * multiple


def check_sizes(
    hidden_units: int, num_layers: int, num_heads: int, feed_forward_units: int
) -> None:
    """Raises `ValueError` unless a transformer can have these sizes."""
    check_positive(
        hidden_units=hidden_units,
        num_layers=num_layers,
        num_heads=num_heads,
        feed_forward_units=feed_forward_units,
    )
    if hidden_units % (4 * num_heads):
        raise ValueError(
            "Expected channels that are a multiple of 4 times the heads: half of a head's pairs "
            "turn by rows, half by columns. "
            f"Received: hidden_units={hidden_units}, num_heads={num_heads}"
        )
