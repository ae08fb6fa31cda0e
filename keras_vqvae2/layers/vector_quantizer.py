from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Config, Shape, Tensor
from keras_vqvae2.layers.gradient_estimators import ESTIMATORS
from keras_vqvae2.layers.nearest_code import nearest_code
from keras_vqvae2.layers.quantizer import Quantizer
from keras_vqvae2.validation import check_share

GOLDEN_RATIO = (np.sqrt(5.0) - 1.0) / 2.0


@keras.saving.register_keras_serializable(package="keras_vqvae2")
class VectorQuantizer(Quantizer):
    """Replaces each vector by the nearest of `num_embeddings` codes, which a loss trains.

    For an encoder output `z` and codes `e_1 … e_K`:

    ```
    k     = argmin_j |z - e_j|^2                                        (first of equals)
    q     = e_k, with dL/dz := dL/dq                                    (straight-through)
    loss  = commitment_cost * mean((z - sg(q))^2) + mean((sg(z) - q)^2)
    ```

    The loss is added with `add_loss`; means run over vectors and dimensions. Distances, losses and
    the codebook are float32 under every dtype policy. Memory is bounded: no matrix of vectors by
    codes is ever held as a whole.

    **Start.** With `data_initialization` the first training batch places the codes: code `k` moves
    onto a vector of that batch. The choice is a golden-ratio sequence over the batch, so it needs
    no random state and is the same on every backend and for any number of replicas.

    **Dead codes.** `ema_counts` follows how many vectors of a batch choose each code,
    `N_k <- decay * N_k + (1 - decay) * n_k`. After each training step, a code with
    `N_k < restart_threshold * mean(N)` moves onto a vector of the batch, chosen as at the start,
    and gets twice that count: unless vectors choose it, it moves again some 70 updates later (for
    a decay of 0.99). `restart_threshold=0` switches this off.

    With `training=False` or `trainable=False` no state changes.

    The codebook is the sum of `anchors`, placed by the two rules above, and `offsets`, which the
    optimizer trains: state that layers move and weights that optimizers move stay apart.

    Args:
        num_embeddings: Positive integer, the number of codes `K`.
        embedding_dim: Positive integer, the width `D` of a code.
        commitment_cost: Non-negative float, weight of the commitment loss (the paper's beta).
            Defaults to 0.25 (paper, table 3 of the appendix).
        decay: Float in `[0, 1)`, decay of the running counts. Defaults to 0.99 (paper).
        data_initialization: Boolean, whether the first training batch places the codes.
        restart_threshold: Float in `[0, 1)`, the share of the mean count below which a code is
            moved. Defaults to 0.1.
        gradient: `"straight_through"` (the paper's) or `"rotation"` (arXiv 2410.06424).
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments and what comes back: those of `Quantizer`. Vectors that are masked or not finite
    move no state.

    Raises:
        ValueError: If the last dimension of the inputs is not `embedding_dim`, or an argument is
            out of range.

    Example:

    ```python
    import numpy as np
    import keras_vqvae2

    quantizer = keras_vqvae2.layers.VectorQuantizer(num_embeddings=16, embedding_dim=4)
    vectors = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    quantized, indices = quantizer(vectors, training=True)
    print(quantized.shape, indices.shape)  # (2, 8, 8, 4) (2, 8, 8)
    ```

    Reference:
        - van den Oord et al. 2017, "Neural Discrete Representation Learning", arXiv 1711.00937,
          equation 3.
        - Razavi et al. 2019, arXiv 1906.00446, section 2.1.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        commitment_cost: float = 0.25,
        decay: float = 0.99,
        data_initialization: bool = True,
        restart_threshold: float = 0.1,
        gradient: str = "straight_through",
        **kwargs: Any,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, **kwargs)
        if commitment_cost < 0:
            raise ValueError(
                f"Expected a non-negative weight. Received: commitment_cost={commitment_cost}"
            )
        check_share("decay", decay)
        check_share("restart_threshold", restart_threshold)
        if gradient not in ESTIMATORS:
            raise ValueError(
                f"Expected one of {sorted(ESTIMATORS)}. Received: gradient={gradient!r}"
            )
        self.commitment_cost = commitment_cost
        self.decay = decay
        self.data_initialization = data_initialization
        self.restart_threshold = restart_threshold
        self.gradient = gradient
        sequence = np.arange(1, self.num_embeddings + 1) * GOLDEN_RATIO
        self._sequence = (sequence % 1.0).astype("float32")  # (K,), evenly spread over [0, 1)

    # === State ===

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.ema_counts = self._add_state("ema_counts", (self.num_embeddings,), "ones")
        self.updates = self._add_state("updates", (), "zeros", "int32", "only_first_replica")
        self.initialized = self._add_state(
            "initialized", (), "zeros", "int32", "only_first_replica"
        )
        self._build_codes((self.num_embeddings, self.embedding_dim))

    def _add_state(self, name, shape, initializer, dtype="float32", aggregation="mean"):
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            dtype=dtype,
            trainable=False,
            autocast=False,
            aggregation=aggregation,
        )

    def _build_codes(self, shape):
        self.anchors = self._add_state("anchors", shape, "uniform")
        self.offsets = self.add_weight(
            name="offsets", shape=shape, initializer="zeros", dtype="float32", autocast=False
        )

    @property
    def codebook(self) -> Tensor:
        """The codes, float32 of shape `(num_embeddings, embedding_dim)`."""
        return ops.add(self.anchors, self.offsets)

    @property
    def mean_code(self) -> Tensor:
        """The codes' mean, weighted by how often each is chosen. Shape `(embedding_dim,)`."""
        weights = ops.expand_dims(self.ema_counts / ops.sum(self.ema_counts), -1)  # (K, 1)
        return ops.sum(weights * self.codebook, axis=0)

    def set_codebook(self, codebook: Tensor) -> None:
        """Puts given codes in place, as if they had just been placed from data.

        Args:
            codebook: Array of shape `(num_embeddings, embedding_dim)`.

        Raises:
            ValueError: If the shape differs.
        """
        expected = (self.num_embeddings, self.embedding_dim)
        if tuple(codebook.shape) != expected:
            raise ValueError(
                f"Expected a codebook of shape {expected}. Received: shape={tuple(codebook.shape)}"
            )
        if not self.built:
            self.build((None, self.embedding_dim))
        self._place_codes(
            ops.ones((self.num_embeddings,), dtype="bool"),
            ops.convert_to_tensor(codebook, dtype="float32"),
            count=1.0,
        )
        self.initialized.assign(1)

    # === Call ===

    def quantize_vectors(
        self, vectors: Tensor, training: bool = False, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        shape = ops.shape(vectors)
        z = ops.reshape(vectors, (-1, self.embedding_dim))  # (N, D)
        real = None if mask is None else ops.reshape(mask, (-1,))  # (N,)
        vectors = ops.stop_gradient(z)
        if training:
            candidates = self._candidates(vectors, real)
            if self.data_initialization:
                fresh = ops.broadcast_to(self.initialized.value == 0, (self.num_embeddings,))
                self._place_candidates(fresh, candidates, count=1.0)
            self.initialized.assign(1)

        codebook = self.codebook
        indices = nearest_code(vectors, codebook)  # (N,)
        quantized = ops.take(codebook, indices, axis=0)  # (N, D)
        loss = self._loss_of_real(z, quantized, real)
        if training:
            self._learn(vectors, indices, real)
            if self.restart_threshold:
                threshold = self.restart_threshold * ops.mean(self.ema_counts)
                dead = self.ema_counts.value < threshold  # (K,)
                self._place_candidates(dead, candidates, count=2.0 * threshold)
            self.updates.assign(self.updates + 1)

        quantized = ESTIMATORS[self.gradient](z, ops.stop_gradient(quantized))
        return ops.reshape(quantized, shape), ops.reshape(indices, shape[:-1]), loss

    def lookup(self, codes: Tensor) -> Tensor:
        known = ops.expand_dims(codes >= 0, -1)  # (..., 1)
        vectors = ops.take(self.codebook, ops.maximum(codes, 0), axis=0)  # (..., D)
        return ops.where(known, vectors, self.mean_code)

    def _loss_of_real(self, z, quantized, real):
        if real is None:
            return self._loss(z, quantized)
        z, quantized = (ops.where(real[:, None], x, 0.0) for x in (z, quantized))
        share = ops.mean(ops.cast(real, "float32"))
        return self._loss(z, quantized) / ops.maximum(share, 1e-12)

    def _loss(self, z, quantized):
        commitment = mean_squared_error(z, ops.stop_gradient(quantized))
        codebook_loss = mean_squared_error(ops.stop_gradient(z), quantized)
        return self.commitment_cost * commitment + codebook_loss

    # === Learning ===

    def _learn(self, vectors, indices, real):
        """Updates the running statistics of the codes from one batch, over all replicas."""
        counted = ops.isfinite(ops.sum(vectors, axis=-1))  # (N,)
        if real is not None:
            counted = ops.logical_and(counted, real)
        # What does not count goes to one more code, which is cut off.
        indices = ops.where(counted, indices, self.num_embeddings)
        counts = self._sum_by_code(ops.ones_like(vectors[:, 0]), indices)  # (K,)
        keep = self._keep(counts)
        self._learn_codes(vectors, indices, keep)
        self.ema_counts.assign(self._decayed(self.ema_counts, counts, keep))

    def _sum_by_code(self, rows, indices):
        sums = backend.segment_sum(rows, indices, self.num_embeddings + 1)
        return backend.replica_sum(sums[: self.num_embeddings])

    def _learn_codes(self, vectors, indices, keep):
        """The loss trains the codes; `VectorQuantizerEMA` averages here instead."""

    def _keep(self, counts):
        """Decay of each code's statistics. Shape `(K,)`.

        A code that nothing has chosen for long (count below 1e-20) keeps what it has: float32
        would lose the ratio of its sum and its count.
        """
        forgotten = self._decayed(self.ema_counts, counts, self.decay) < 1e-20
        return ops.where(forgotten, 1.0, self.decay)

    def _decayed(self, average, value, keep):
        return keep * average + (1.0 - self.decay) * value

    def _candidates(self, vectors, real):
        """A vector of the batch for each code, the same on every replica. Shape `(K, D)`.

        Position `p` in `[0, 1)` of the global batch lies with replica `floor(p * replicas)`. Where
        that has no vector that is not masked, the row is NaN.
        """
        shift = ops.cast(ops.mod(self.updates, 4096), "float32") * float(np.sqrt(2.0) - 1.0)
        replicas = backend.replica_count()
        position = ops.mod(ops.add(shift, self._sequence), 1.0) * replicas  # (K,)
        owner = ops.floor(position)
        count = ops.shape(vectors)[0]
        if real is not None:
            count = ops.sum(ops.cast(real, "int32"))
        row = ops.cast((position - owner) * ops.cast(count, "float32"), "int32")
        row = ops.minimum(row, count - 1)
        if real is not None:
            order = ops.argsort(ops.where(real, 0, 1))  # what is real first
            row = ops.take(order, ops.maximum(row, 0), axis=0)
        rows = ops.take(vectors, row, axis=0)  # (K, D)
        if real is not None:
            rows = ops.where(count > 0, rows, float("nan"))
        if replicas == 1:
            return rows
        mine = ops.equal(owner, ops.cast(backend.replica_index(), "float32"))
        return backend.replica_sum(ops.where(mine[:, None], rows, ops.zeros_like(rows)))

    def _place_candidates(self, wanted, candidates, count):
        finite = ops.isfinite(ops.sum(candidates, axis=-1))  # (K,)
        self._place_codes(ops.logical_and(wanted, finite), candidates, count)

    def _place_codes(self, mask, codes, count):
        """Moves the codes of `mask`, shape `(K,)`, to the rows of `codes`, shape `(K, D)`."""
        self.anchors.assign(ops.where(mask[:, None], codes - self.offsets, self.anchors.value))
        self.ema_counts.assign(ops.where(mask, count, self.ema_counts.value))

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_embeddings": self.num_embeddings,
            "embedding_dim": self.embedding_dim,
            "commitment_cost": self.commitment_cost,
            "decay": self.decay,
            "data_initialization": self.data_initialization,
            "restart_threshold": self.restart_threshold,
            "gradient": self.gradient,
        }


@ops.custom_gradient
def mean_squared_error(a, b):
    """`mean((a - b)^2)` of two `(N, D)` tensors, of which neither the difference nor its square,
    each as large as the vectors, stays in memory for the backward pass."""
    scale = 1.0 / ops.cast(ops.size(a), "float32")

    def gradient(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        difference = (2.0 * scale * upstream) * (a - b)
        return difference, -difference

    return scale * backend.sum_squared_error(a, b), gradient
