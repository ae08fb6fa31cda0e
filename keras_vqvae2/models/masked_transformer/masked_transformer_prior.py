import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.decoding.mask_schedules import (
    check_schedule,
    halton_ranks,
    masked_counts,
    masked_share,
)
from keras_vqvae2.decoding.parallel_decoder import ParallelDecoder
from keras_vqvae2.decoding.sampling import Sampling
from keras_vqvae2.hints import Config, DTypePolicy, Size, Tensor, TensorTree
from keras_vqvae2.layers import PostNormTransformerBlock, TransformerBlock
from keras_vqvae2.layers.initializers import small_normal
from keras_vqvae2.layers.post_norm_transformer_block import EPSILON as POST_NORM_EPSILON
from keras_vqvae2.layers.self_attention import EPSILON
from keras_vqvae2.models.code_prior import CodePrior
from keras_vqvae2.models.guarded_model import MeanOfSome, zero_unless
from keras_vqvae2.models.masked_transformer.masked_layers import Bias, CodeTokens, SequenceStart
from keras_vqvae2.models.transformer.layout_map import get_layout_map
from keras_vqvae2.models.transformer.transformer_layers import CodeConditioner, condition_map, grid
from keras_vqvae2.models.transformer.transformer_prior import check_sizes, llama_units
from keras_vqvae2.validation import (
    check_integer,
    check_positive,
    check_share,
    first_batch,
    weigh_examples,
)

PROGRESS = 2**12  # steps of a uniform number that become numbers of masked codes
ORDERS = ("confidence", "halton")


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class MaskedTransformerPrior(CodePrior):
    """A transformer that fills in masked codes, all at once: MaskGIT's prior.

    ```
    training:  r ~ U(0, 1);  schedule(r) of the codes become [MASK];  cross-entropy at these only
    drawing:   all codes [MASK];  num_steps times: draw all, keep the surest, mask the rest again
    ```

    All tokens see each other, so codes may be given anywhere: what `complete` keeps below the part
    to invent is seen too. There is no exact likelihood: `nats` is None, and `fit` and `evaluate`
    report the `loss` (cross-entropy at masked codes, smoothed by `label_smoothing`, over the mean
    number of masked codes) and `masked_nats`, the same without smoothing over the masked codes
    there were. Neither compares with the nats of an autoregressive prior. The numbers r of a batch
    are spread evenly; `evaluate` masks the same positions each time.

    Sample `i` of a seed is the same whatever the batch, for the same `num_steps`. With
    `guidance_power` the scale rises over the passes.

    Args:
        code_shape: As in `CodePrior`.
        num_embeddings: As in `CodePrior`.
        level: As in `CodePrior`.
        condition_factors: As in `CodePrior`.
        num_classes: As in `CodePrior`.
        hidden_units: Positive integer, channels. Defaults to 768 (MaskGIT).
        num_layers: Positive integer, transformer blocks. Defaults to 24 (MaskGIT).
        num_heads: Positive integer; channels are a multiple of 4 times it. Defaults to 16.
        feed_forward_units: Positive integer. By default four times the channels with `post_norm`,
            and as in `TransformerPrior` without.
        post_norm: Whether blocks are BERT's, as MaskGIT's are: norms behind the sums, GELU, biases,
            a learned vector a token, logits tied to the embeddings. By default they are those of
            `TransformerPrior`, but not causal.
        qk_norm: As in `TransformerPrior`; not with `post_norm`.
        absolute_positions: As in `TransformerPrior`; always with `post_norm`.
        rope_base: As in `TransformerPrior`.
        condition_blocks: Non-negative integer, transformer blocks over each coarser map. Defaults
            to 0: features are added position by position, and all positions see each other.
        dropout: Float in `[0, 1)`, of tokens and behind the parts of each block. Defaults to 0.1.
        mask_schedule: `"cosine"` (MaskGIT), `"arccos"`, or another of
            `decoding.mask_schedules.masked_share`; of training and drawing.
        label_smoothing: Float in `[0, 1)`. Defaults to 0.1 (MaskGIT).
        num_steps: Positive integer, passes to draw with, at most the codes of a map. Defaults to 8
            (MaskGIT), or the codes there are.
        order: What is kept first: `"confidence"`, or `"halton"`: positions in an order that spreads
            them evenly.
        noise: Non-negative float, of the Gumbel noise on the confidence in the first pass; it falls
            to nothing in the last. Defaults to 4.5 (MaskGIT).
        condition_embeddings: As in `CodePrior`.
        image_shape: None, or `(height, width, channels)` of the images.
        codes_fingerprint: None, or `VQVAE2.fingerprint()` of the model whose codes these are.
        label_dropout: As in `CodePrior`.
        condition_dropout: As in `CodePrior`.
        gradient_checkpointing: As in `TransformerPrior`.
        dtype: Dtype policy of the layers. Logits and loss are float32.
        **kwargs: `name` and `trainable`.

    Raises:
        ValueError: If a size is not positive, the heads or the coarser maps do not fit, or a
            setting is unknown or out of range.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_vqvae2

    codes = {"top": np.zeros((4, 8, 8), "int32"), "label": np.array([0, 1, 0, 1])}
    prior = keras_vqvae2.MaskedTransformerPrior(
        (8, 8), num_classes=2, hidden_units=16, num_layers=2, num_heads=2, feed_forward_units=48,
    )
    prior.compile(optimizer=keras.optimizers.AdamW(1e-3, weight_decay=0.045, beta_2=0.96))
    prior.fit(codes, batch_size=2, verbose=0)
    print(prior.generate(2, labels=[0, 1], num_steps=4, verbose=0).shape)  # (2, 8, 8)
    ```

    Reference:
        - Chang et al. 2022, "MaskGIT: Masked Generative Image Transformer", arXiv 2202.04200.
        - Numbers r that are spread evenly: Kingma et al. 2021, arXiv 2107.00630, appendix I.1.
    """

    def __init__(
        self,
        code_shape: Sequence[int],
        num_embeddings: int = 512,
        level: str = "top",
        condition_factors: Mapping[str, Size] | None = None,
        num_classes: int | None = None,
        hidden_units: int = 768,
        num_layers: int = 24,
        num_heads: int = 16,
        feed_forward_units: int | None = None,
        post_norm: bool = False,
        qk_norm: bool = False,
        absolute_positions: bool = False,
        rope_base: float = 10_000.0,
        condition_blocks: int = 0,
        dropout: float = 0.1,
        mask_schedule: str = "cosine",
        label_smoothing: float = 0.1,
        num_steps: int | None = None,
        order: str = "confidence",
        noise: float = 4.5,
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
        length = math.prod(code_shape)
        if feed_forward_units is None:
            feed_forward_units = 4 * hidden_units if post_norm else llama_units(hidden_units)
        check_sizes(hidden_units, num_layers, num_heads, feed_forward_units)
        check_integer("condition_blocks", condition_blocks, 0)
        check_share("dropout", dropout)
        check_share("label_smoothing", label_smoothing)
        num_steps = min(8, length) if num_steps is None else num_steps
        Passes(num_steps, mask_schedule, order, noise, length)

        # === Layers ===
        dtype = keras.dtype_policies.get(dtype)
        common: dict[str, Any] = {
            "num_heads": num_heads,
            "feed_forward_units": feed_forward_units,
            "dropout": dropout,
            "gradient_checkpointing": gradient_checkpointing,
            "dtype": dtype,
        }
        rotated: dict[str, Any] = {"qk_norm": qk_norm, "rope_base": rope_base}
        conditioners = {
            name: CodeConditioner(
                hidden_units,
                counts[name],
                factor,
                condition_blocks,
                untold=condition_dropout > 0,
                name=f"conditioner_{name}",
                **common,
                **rotated,
            )
            for name, factor in condition_factors.items()
        }
        to_tokens = CodeTokens(
            num_embeddings, (num_classes or 0) + (label_dropout > 0), dtype=dtype, name="tokens"
        )
        words = keras.layers.ReversibleEmbedding(
            to_tokens.vocabulary,
            hidden_units,
            embeddings_initializer=small_normal(),
            dtype=dtype,
            name="words",
        )
        start = SequenceStart(
            absolute_positions or post_norm, post_norm, dropout, dtype=dtype, name="start"
        )

        # === Functional Model ===
        told = self.drop_conditions(inputs, level, num_classes, label_dropout, condition_dropout)
        tokens = to_tokens(inputs[level], told.get("label"))  # (B, 1 + N) with labels
        before = tokens.shape[1] - length
        x = start(words(tokens), condition_map(conditioners, told))  # (B, 1 + N, C)
        if post_norm:
            for i in range(num_layers):
                x = PostNormTransformerBlock(name=f"block_{i}", **common)(x)
            head = keras.layers.Dense(
                hidden_units, kernel_initializer=small_normal(), dtype=dtype, name="head"
            )
            norm = keras.layers.LayerNormalization(
                epsilon=POST_NORM_EPSILON, dtype=dtype, name="norm"
            )
            x = norm(ops.gelu(head(x), approximate=True))
            x = Bias(dtype=dtype, name="logits")(words(x, reverse=True))  # of the vocabulary
        else:
            for i in range(num_layers):
                block = TransformerBlock(name=f"block_{i}", **common, **rotated)
                x = block(x, grid(code_shape, before))
            norm = keras.layers.RMSNormalization(epsilon=EPSILON, dtype=dtype, name="norm")
            to_logits = keras.layers.Dense(
                num_embeddings,
                use_bias=False,
                kernel_initializer="zeros",
                dtype=dtype,
                name="logits",
            )
            x = ops.cast(to_logits(norm(x)), "float32")
        logits = x[:, before:, :num_embeddings]  # (B, N, K)
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
        self.post_norm = post_norm
        self.qk_norm = qk_norm
        self.absolute_positions = absolute_positions
        self.rope_base = rope_base
        self.condition_blocks = condition_blocks
        self.dropout = dropout
        self.mask_schedule = mask_schedule
        self.label_smoothing = label_smoothing
        self.num_steps = num_steps
        self.order = order
        self.noise = noise
        self.gradient_checkpointing = gradient_checkpointing

        self._passes_now: Passes | None = None
        self._mask_seed = keras.random.SeedGenerator()
        progress = (np.arange(PROGRESS) + 0.5) / PROGRESS
        counts = np.round(length * masked_share(mask_schedule, progress, length))
        self._mask_counts = np.maximum(1, counts).astype("int32")

    get_layout_map = staticmethod(get_layout_map)

    # === Training ===

    def _make_trackers(self):
        super(CodePrior, self)._make_trackers()
        self.masked_nats_tracker = MeanOfSome(name="masked_nats")

    def step_outputs(self, x: Mapping[str, Tensor], training: bool) -> TensorTree:
        x = self._integers(x)
        codes = x[self.level]
        masked = self._masks(codes, self._mask_seed if training else 0)  # (B, H, W)
        logits = self({**x, self.level: ops.where(masked, -1, codes)}, training=training)
        return {"logits": logits, "codes": codes, "masked": masked}

    def _masks(self, codes, seed):
        """Which codes to mask: booleans of their shape, as many as the schedule has at some r."""
        batch, length = ops.shape(codes)[0], math.prod(self.code_shape)
        # Drawn for the whole batch, of which a replica takes its part: replicas change nothing.
        replicas, replica = backend.replica_count(), backend.replica_index()
        shape = (replicas, batch, length + 1)
        uniforms = keras.random.uniform(shape, dtype="float32", seed=seed)
        example = ops.cast(replica * batch + ops.arange(batch), "float32")
        whole = ops.cast(replicas * batch, "float32")
        progress = (uniforms[0, 0, -1] + example / whole) % 1.0  # (B,)
        place = ops.cast(progress * PROGRESS, "int32") % PROGRESS
        count = ops.take(self._mask_counts, place, axis=0)[:, None]  # (B, 1)
        noise = ops.take(uniforms, replica, axis=0)[:, :-1]  # (B, N), multiples of 2**-24
        noise = ops.cast(noise * 2.0**24, "int32")
        # The count-th smallest of an example, its bits from the highest down. With a sort in it,
        # XLA takes TensorFlow's whole step several times as long on a CPU.
        last = ops.zeros_like(count)  # (B, 1)
        for bit in reversed(range(24)):
            smaller = ops.cast(noise < last + 2**bit, "int32")
            last = ops.where(ops.sum(smaller, axis=-1, keepdims=True) < count, last + 2**bit, last)
        return ops.reshape(noise <= last, (-1, *self.code_shape))

    def compute_loss(
        self,
        x: TensorTree | None = None,
        y: Tensor | None = None,
        y_pred: TensorTree = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        """Cross-entropy at masked codes, smoothed, over the mean number of masked codes.

        Args:
            x: The batch, not used.
            y: Not used.
            y_pred: What `step_outputs` returned for the batch.
            sample_weight: None, or weights of shape `(batch,)`.
            training: Not used.

        Returns:
            float32 of shape `()`.
        """
        nats, uniform_nats = self._masked_nats(y_pred)
        nats = (1 - self.label_smoothing) * nats + self.label_smoothing * uniform_nats
        nats = ops.sum(nats, axis=(1, 2)) / float(self._mask_counts.mean())  # (B,)
        return ops.mean(weigh_examples(nats, sample_weight)) + sum(self.losses)

    def _masked_nats(self, outputs):
        """`-log p` of the codes, and its mean over all codes; 0 where nothing is masked."""
        logs = ops.log_softmax(outputs["logits"], axis=-1)  # (B, H, W, K)
        codes = ops.cast(outputs["codes"], "int32")[..., None]
        picked = ops.take_along_axis(logs, codes, axis=-1)[..., 0]
        masked = ops.cast(outputs["masked"], "float32")
        return -picked * masked, -ops.mean(logs, axis=-1) * masked

    def update_step_metrics(
        self, x: TensorTree, outputs: TensorTree, loss: Tensor, weight: Tensor
    ) -> None:
        super(CodePrior, self).update_step_metrics(x, outputs, loss, weight)
        count = ops.sum(ops.cast(outputs["masked"], "float32"))
        nats = ops.sum(self._masked_nats(outputs)[0]) / count
        self.masked_nats_tracker.update_state(
            zero_unless(weight, nats), sample_weight=weight * count
        )

    def _check_data(self, x, with_loss):
        batch, x = first_batch(x)
        if batch is not None:
            # What is unknown can be predicted, but not learned.
            self.check_batch(batch, partial=() if with_loss else (self.level,))
        return self._own(x) if isinstance(x, dict) else x

    def nats(self, codes: Mapping[str, Tensor], batch_size: int = 32) -> None:
        """None: a prior that draws codes in passes has no exact likelihood.

        Raises:
            ValueError: If the codes do not fit.
        """
        check_positive(batch_size=batch_size)
        self.check_batch(codes)

    # === Drawing ===

    def generate(
        self,
        *args: Any,
        num_steps: int | None = None,
        mask_schedule: str | None = None,
        order: str | None = None,
        noise: float | None = None,
        **kwargs: Any,
    ) -> np.ndarray:
        """Draws maps of codes in passes; samples and other arguments as in `CodePrior.generate`.

        Args:
            *args: As in `CodePrior.generate`.
            num_steps: None, or passes in place of the prior's.
            mask_schedule: None, or a schedule in place of the prior's.
            order: None, or an order in place of the prior's.
            noise: None, or noise in place of the prior's.
            **kwargs: As in `CodePrior.generate`.

        Returns:
            int32 of shape `(N, rows, columns)`.

        Raises:
            ValueError: As `CodePrior.generate`, and if one of these is unknown or out of range.
        """
        given = {
            "num_steps": num_steps,
            "mask_schedule": mask_schedule,
            "order": order,
            "noise": noise,
        }
        given = {name: value for name, value in given.items() if value is not None}
        self._passes_now = replace(self._passes(), **given)
        try:
            return super().generate(*args, **kwargs)
        finally:
            self._passes_now = None

    def _passes(self):
        """How the prior draws, unless `generate` was told otherwise."""
        own = (self.num_steps, self.mask_schedule, self.order, self.noise)
        return self._passes_now or Passes(*own, math.prod(self.code_shape))

    @property
    def uniforms_shape(self) -> tuple[int, ...]:
        """For the codes and for the noise of each pass."""
        return (self._passes().num_steps, 2, *self.code_shape)

    def _draw_codes(
        self, sampling: Sampling, inputs: Mapping[str, np.ndarray], uniforms: np.ndarray
    ) -> Iterator[tuple[Any, Tensor]]:
        passes = self._passes()
        given = inputs[self.level][:: 2 if sampling.guided else 1]
        counts = masked_counts(passes.mask_schedule, passes.num_steps, (given < 0).sum((1, 2)))
        left = 1 - (np.arange(passes.num_steps) + 1) / passes.num_steps
        *_, codes = self._decoders[passes.order].passes(
            sampling,
            given,
            (uniforms[:, :, 0], uniforms[:, :, 1]),
            counts,
            passes.noise * left,
            {name: value for name, value in inputs.items() if name != self.level},
        )
        yield slice(None), codes

    @functools.cached_property
    def _decoders(self):
        """A `ParallelDecoder` for each order."""

        def logits_of(codes, inputs):
            return self({**inputs, self.level: codes}, training=False)

        ranks = {"confidence": None, "halton": halton_ranks(*self.code_shape)}
        return {order: ParallelDecoder(logits_of, self.variables, ranks[order]) for order in ORDERS}

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        super().quantize(*args, **kwargs)
        self.__dict__.pop("_decoders", None)  # their programs hold the variables of before

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "hidden_units": self.hidden_units,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "feed_forward_units": self.feed_forward_units,
            "post_norm": self.post_norm,
            "qk_norm": self.qk_norm,
            "absolute_positions": self.absolute_positions,
            "rope_base": self.rope_base,
            "condition_blocks": self.condition_blocks,
            "dropout": self.dropout,
            "mask_schedule": self.mask_schedule,
            "label_smoothing": self.label_smoothing,
            "num_steps": self.num_steps,
            "order": self.order,
            "noise": self.noise,
            "gradient_checkpointing": self.gradient_checkpointing,
        }


@dataclass(frozen=True)
class Passes:
    """How a map of `length` codes is drawn; raises `ValueError` where it cannot be."""

    num_steps: int
    mask_schedule: str
    order: str
    noise: float
    length: int

    def __post_init__(self) -> None:
        check_positive(num_steps=self.num_steps)
        if self.num_steps > self.length:
            raise ValueError(
                f"Expected at most {self.length} passes, the codes of a map. "
                f"Received: num_steps={self.num_steps}"
            )
        check_schedule(self.mask_schedule)
        if self.order not in ORDERS:
            raise ValueError(f"Expected one of {ORDERS}. Received: order={self.order!r}")
        if not (self.noise >= 0 and math.isfinite(self.noise)):
            raise ValueError(f"Expected a number of at least 0. Received: noise={self.noise}")
