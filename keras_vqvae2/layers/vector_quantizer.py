import functools
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Config, Shape, Tensor
from keras_vqvae2.layers.dropout import DrawnSeed
from keras_vqvae2.layers.gradient_estimators import ESTIMATORS, diveq, straight_through
from keras_vqvae2.layers.nearest_code import nearest_code
from keras_vqvae2.layers.quantizer import Quantizer
from keras_vqvae2.layers.sampled_code import CODES_AT_ONCE, sampled_code
from keras_vqvae2.layers.unit_sphere import unit
from keras_vqvae2.validation import check_integer, check_non_negative, check_share

SIMILARITIES = ("euclidean", "cosine")
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
    no random state and is the same on every backend and for any number of replicas. With
    `kmeans_rounds` that many rounds of k-means on that batch follow: each code moves onto the mean
    of the vectors nearest to it (none: it stays), and starts with their number, at least 1, as its
    count.

    **Dead codes.** `ema_counts` follows how many vectors of a batch choose each code,
    `N_k <- decay * N_k + (1 - decay) * n_k`. After each training step, a code with
    `N_k < restart_threshold * mean(N)` moves onto a vector of the batch, chosen as at the start,
    and gets twice that count: unless vectors choose it, it moves again some 70 updates later (for
    a decay of 0.99). `restart_threshold=0` switches this off.

    **Drawn codes.** With `sample_temperature=T` codes are drawn while training, code `k` with
    probability `softmax_k(-|z - e_k| / T)`, or of products over `T` if the similarity is cosine;
    otherwise the nearest is taken.

    With `training=False` or `trainable=False` no state changes.

    **Cosine similarity.** With `similarity="cosine"` vectors and codes are put on the unit sphere
    first, so that the nearest code is the one at the smallest angle; few dimensions, 8 to 32, suit
    it.

    **Heads.** With `num_heads=H` a vector is cut into `H` parts of `D / H` numbers, each with a
    codebook of its own, and has a code for each: codes are of shape `(..., H)`.

    **Orthogonal codes.** `orthogonal_weight` times `sum_ij (n(e_i) . n(e_j))^2 / K^2 - 1 / K` is
    added to the loss, with `n(e) = e / |e|`: codes are to point in different directions.

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
        gradient: `"straight_through"` (the paper's), `"rotation"` (arXiv 2410.06424), or `"diveq"`
            (arXiv 2509.26469): while training the output is `z + |q - z| sg(n(q - z + e))` with
            normal noise `e`, through which codes learn too, in place of both terms of the loss.
        noise_variance: Non-negative float, of DiVeQ's noise. Defaults to 0.005 (its paper).
        seed: None or an integer, of that noise and of drawn codes.
        similarity: `"euclidean"` (the paper's) or `"cosine"` (arXiv 2110.04627).
        num_heads: Positive integer that divides `embedding_dim`.
        orthogonal_weight: Non-negative float. Defaults to 0.0; vector-quantize-pytorch suggests 10.
        kmeans_rounds: Non-negative integer, rounds of k-means at the start from data. Defaults to
            0; vector-quantize-pytorch has 10.
        sample_temperature: Non-negative float, of drawn codes; 0 takes the nearest while training
            too. Defaults to 0.0.
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
        similarity: str = "euclidean",
        num_heads: int = 1,
        orthogonal_weight: float = 0.0,
        noise_variance: float = 0.005,
        seed: int | None = None,
        kmeans_rounds: int = 0,
        sample_temperature: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, **kwargs)
        check_non_negative(
            commitment_cost=commitment_cost,
            noise_variance=noise_variance,
            orthogonal_weight=orthogonal_weight,
            sample_temperature=sample_temperature,
        )
        check_integer("kmeans_rounds", kmeans_rounds, 0)
        if kmeans_rounds and not data_initialization:
            raise ValueError(
                "Expected data_initialization=True, the start that k-means goes on from. "
                f"Received: {kmeans_rounds=}, {data_initialization=}"
            )
        check_share("decay", decay)
        check_share("restart_threshold", restart_threshold)
        gradients = sorted([*ESTIMATORS, "diveq"])
        if gradient not in gradients:
            raise ValueError(f"Expected one of {gradients}. Received: gradient={gradient!r}")
        if similarity not in SIMILARITIES:
            raise ValueError(f"Expected one of {SIMILARITIES}. Received: {similarity=}")
        check_integer("num_heads", num_heads, 1)
        if embedding_dim % num_heads:
            raise ValueError(
                f"Expected a divisor of embedding_dim={embedding_dim}. Received: {num_heads=}"
            )
        self.commitment_cost = commitment_cost
        self.decay = decay
        self.data_initialization = data_initialization
        self.restart_threshold = restart_threshold
        self.gradient = gradient
        self.similarity = similarity
        self.num_heads = int(num_heads)
        self.orthogonal_weight = orthogonal_weight
        self.noise_variance = noise_variance
        self.seed = seed
        self.kmeans_rounds = int(kmeans_rounds)
        self.sample_temperature = sample_temperature
        if gradient == "diveq" or sample_temperature:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.code_axes = () if num_heads == 1 else (self.num_heads,)
        # The codes of all heads are rows of one codebook, a head's after those of the one before.
        self._codes = self.num_heads * self.num_embeddings
        self._width = self.embedding_dim // self.num_heads
        sequence = np.arange(1, self._codes + 1) * GOLDEN_RATIO
        self._sequence = (sequence % 1.0).astype("float32")  # (H*K,), evenly spread over [0, 1)

    def shift_candidates(self, number: int) -> None:
        """Makes codes start and restart on other vectors of a batch than those of quantizer 0."""
        shifted = self._sequence.astype("float64") + number * (np.sqrt(3.0) - 1.0)
        self._sequence = (shifted % 1.0).astype("float32")

    # === State ===

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.ema_counts = self._add_state("ema_counts", (self._codes,), "ones")
        self.updates = self._add_state("updates", (), "zeros", "int32", "only_first_replica")
        self.initialized = self._add_state(
            "initialized", (), "zeros", "int32", "only_first_replica"
        )
        self._build_codes((self._codes, self._width))

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
        """The codes, float32 of shape `(num_embeddings, embedding_dim)`.

        With heads of shape `(num_heads, num_embeddings, embedding_dim / num_heads)`.
        """
        rows = self._rows
        if self.num_heads == 1:
            return rows
        return ops.reshape(rows, (self.num_heads, self.num_embeddings, self._width))

    @property
    def _rows(self):
        """The codes of all heads, float32 of shape `(H*K, D/H)`."""
        rows = self._free_rows
        return unit(rows) if self.similarity == "cosine" else rows

    @property
    def _free_rows(self):
        return ops.add(self.anchors, self.offsets)

    @property
    def mean_code(self) -> Tensor:
        """The codes' mean, weighted by how often each is chosen. Shape `(embedding_dim,)`."""
        shape = (self.num_heads, self.num_embeddings)
        counts = ops.reshape(self.ema_counts.value, shape)  # (H, K)
        weights = counts / ops.sum(counts, axis=-1, keepdims=True)
        codes = ops.reshape(self._rows, (*shape, self._width))  # (H, K, D/H)
        return ops.reshape(ops.sum(weights[..., None] * codes, axis=1), (self.embedding_dim,))

    def set_codebook(self, codebook: Tensor) -> None:
        """Puts given codes in place, as if they had just been placed from data.

        Args:
            codebook: Array of the shape of `codebook`.

        Raises:
            ValueError: If the shape differs.
        """
        expected: tuple[int, ...] = (self.num_embeddings, self._width)
        if self.num_heads > 1:
            expected = (self.num_heads, *expected)
        if tuple(codebook.shape) != expected:
            raise ValueError(
                f"Expected a codebook of shape {expected}. Received: shape={tuple(codebook.shape)}"
            )
        if not self.built:
            self.build((None, self.embedding_dim))
        rows = ops.reshape(ops.convert_to_tensor(codebook, "float32"), (self._codes, self._width))
        self._place_codes(ops.ones((self._codes,), dtype="bool"), rows, count=1.0)
        self.initialized.assign(1)

    # === Call ===

    def quantize_vectors(
        self, vectors: Tensor, training: bool = False, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        z, real = self.to_rows(vectors, mask)  # (N*H, D/H), (N*H,)
        fixed = ops.stop_gradient(z)
        candidates = self.start(fixed, real) if training else None
        rows, quantized = self.choose(fixed, training)
        loss = self.loss_of(z, quantized, real)
        if training:
            self.learn(fixed, rows, real, candidates)
        quantized = ops.reshape(self.estimate(z, quantized, training), ops.shape(vectors))
        return quantized, self.to_codes(rows, ops.shape(vectors)[:-1]), loss

    def to_rows(self, vectors: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Vectors `(..., D)` as those of all heads `(N*H, D/H)`, and which of them are real."""
        z = ops.reshape(vectors, (-1, self._width))
        real = None if mask is None else ops.reshape(mask, (-1,))  # (N,)
        if real is not None and self.num_heads > 1:
            real = ops.repeat(real, self.num_heads)
        return (unit(z) if self.similarity == "cosine" else z), real

    def to_codes(self, rows: Tensor, places: Shape) -> Tensor:
        """Rows of the codebook of all heads, `(N*H,)`, as codes `(*places, *code_axes)`."""
        codes = rows if self.num_heads == 1 else ops.mod(rows, self.num_embeddings)
        return ops.reshape(codes, (*places, *self.code_axes))

    def lookup(self, codes: Tensor) -> Tensor:
        known = codes >= 0
        rows = ops.maximum(codes, 0)
        mean = self.mean_code
        if self.num_heads > 1:
            heads = np.arange(self.num_heads, dtype="int32")
            rows = ops.add(rows, heads * self.num_embeddings)
            mean = ops.reshape(mean, (self.num_heads, self._width))
        vectors = ops.take(self._rows, rows, axis=0)  # (..., D) or (..., H, D/H)
        vectors = ops.where(ops.expand_dims(known, -1), vectors, mean)
        if self.num_heads == 1:
            return vectors
        return ops.reshape(vectors, (*ops.shape(codes)[:-1], self.embedding_dim))

    # === Steps of a call: of rows, shape (N*H, D/H), of which `real` is None or `(N*H,)` ===

    def start(self, vectors: Tensor, real: Tensor | None) -> Tensor:
        """Places the codes, if these are the first vectors. Returns where codes may move to."""
        candidates = self.candidates(vectors, real)
        if self.data_initialization:
            fresh = self.initialized.value == 0
            places, counts = candidates, ops.ones((self._codes,))
            if self.kmeans_rounds:
                places, counts = self._clusters(vectors, real, candidates, fresh)
            self._place_candidates(ops.broadcast_to(fresh, (self._codes,)), places, counts)
        usable = ops.any(ops.isfinite(ops.sum(candidates, axis=-1)))  # or the next batch places
        self.initialized.assign(ops.maximum(self.initialized.value, ops.cast(usable, "int32")))
        return candidates

    def choose(self, vectors: Tensor, training: bool = False) -> tuple[Tensor, Tensor]:
        """The chosen codes: rows of the codebook of all heads, and what stands there."""
        codebook = self._rows
        find = self._nearest
        if training and self.sample_temperature:
            find = self._sampled
        rows = self._of_heads(find, vectors, codebook)
        return rows, ops.take(codebook, rows, axis=0)

    def learn(self, vectors: Tensor, rows: Tensor, real: Tensor | None, candidates: Tensor) -> None:
        """Moves the statistics by the rows that vectors chose, and dead codes to candidates."""
        learned = self._learn(vectors, rows, real)
        if self.restart_threshold:
            threshold = self.restart_threshold * ops.mean(self.ema_counts)
            dead = self.ema_counts.value < threshold  # (H*K,)
            self._place_candidates(dead, candidates, count=2.0 * threshold)
        self.updates.assign(self.updates + ops.cast(learned, "int32"))

    def loss_of(self, z: Tensor, quantized: Tensor, real: Tensor | None) -> Tensor:
        """The loss of vectors and their codes, float32 of shape `()`."""
        if self.gradient == "diveq":
            loss = ops.zeros(())
        elif real is None:
            loss = self._loss(z, quantized)
        else:
            z, quantized = (ops.where(real[:, None], x, 0.0) for x in (z, quantized))
            # Of all replicas, whose losses are averaged.
            share = backend.replica_sum(ops.mean(ops.cast(real, "float32")))
            share = share / backend.replica_count()
            loss = self._loss(z, quantized) / ops.maximum(share, 1e-12)
        if self.orthogonal_weight:
            loss = loss + self.orthogonal_weight * self._orthogonality()
        return loss

    def estimate(self, z: Tensor, quantized: Tensor, training: bool) -> Tensor:
        """What stands for the codes, so that gradients pass: of the shape of `z`."""
        if self.gradient != "diveq":
            return ESTIMATORS[self.gradient](z, ops.stop_gradient(quantized))
        if not training:
            return straight_through(z, ops.stop_gradient(quantized))
        # Drawn for the whole batch, of which a replica takes its part.
        shape = (backend.replica_count(), *ops.shape(z))
        noise = keras.random.normal(shape, dtype="float32", seed=self.seed_generator)
        noise = ops.take(noise, backend.replica_index(), axis=0)
        return diveq(z, quantized, float(np.sqrt(self.noise_variance)) * noise)

    def _of_heads(self, find, vectors, codebook):
        """What `find` finds in each head's part of `codebook`, rows of all of it. `(N*H,)`."""
        if self.num_heads == 1:
            return find(vectors, codebook)
        by_head = ops.reshape(vectors, (-1, self.num_heads, self._width))  # (N, H, D/H)
        rows = []
        for i in range(self.num_heads):
            start = i * self.num_embeddings
            own = codebook[start : start + self.num_embeddings]
            rows.append(start + find(by_head[:, i], own))
        return ops.reshape(ops.stack(rows, axis=1), (-1,))

    @property
    def _score(self):
        return "dot" if self.similarity == "cosine" else "euclidean"

    def _nearest(self, vectors, codebook):
        return nearest_code(vectors, codebook, similarity=self._score)

    def _sampled(self, vectors, codebook):
        drawn = DrawnSeed(self.seed_generator)
        # Drawn for the whole batch, of which a replica takes its part.
        shape = (backend.replica_count(), ops.shape(vectors)[0], CODES_AT_ONCE)

        def uniforms(i):
            u = keras.random.uniform(shape, dtype="float32", seed=drawn.apart(i))
            return ops.take(u, backend.replica_index(), axis=0)

        return sampled_code(vectors, codebook, self.sample_temperature, uniforms, self._score)

    def _orthogonality(self):
        codes = ops.reshape(unit(self._free_rows), (self.num_heads, -1, self._width))  # (H, K, d)
        # sum_ij (e_i . e_j)^2 is the squared norm of a small matrix: no K x K is needed.
        products = ops.matmul(ops.transpose(codes, (0, 2, 1)), codes)  # (H, d, d)
        mean = ops.sum(ops.square(products)) / self.num_heads
        return mean / self.num_embeddings**2 - 1.0 / self.num_embeddings

    def _loss(self, z, quantized):
        commitment = mean_squared_error(z, ops.stop_gradient(quantized))
        codebook_loss = mean_squared_error(ops.stop_gradient(z), quantized)
        return self.commitment_cost * commitment + codebook_loss

    # === Learning ===

    def _learn(self, vectors, indices, real):
        """Updates the running statistics of the codes from one batch, over all replicas.

        Returns whether there was a vector that counts: without one nothing changes.
        """
        indices = self._counted(vectors, indices, real)
        counts = backend.replica_sum(
            self._sum_by_code(ops.ones_like(vectors[:, 0]), indices)
        )  # (K,)
        learned = ops.any(counts > 0)
        keep = ops.where(learned, self._keep(counts), 1.0)
        self._learn_codes(vectors, indices, keep)
        self.ema_counts.assign(self._decayed(self.ema_counts, counts, keep))
        return learned

    def _counted(self, vectors, indices, real):
        """The indices, one more than there are where a vector does not count."""
        counted = ops.isfinite(ops.sum(vectors, axis=-1))  # (N,)
        if real is not None:
            counted = ops.logical_and(counted, real)
        return ops.where(counted, indices, self._codes)

    def _sum_by_code(self, rows, indices):
        """The sums of the rows of this replica that share an index below that one."""
        return backend.segment_sum(rows, indices, self._codes + 1)[: self._codes]

    def _clusters(self, vectors, real, means, fresh):
        """The means that rounds of k-means move these to, and how many vectors each then has.

        A round costs as much as a step, so the rounds are skipped unless `fresh`, but for the sums
        over replicas: TensorFlow's replicas cannot meet within a condition.
        """
        finite = ops.isfinite(ops.sum(means, axis=-1, keepdims=True))  # (K, 1)
        means = ops.where(finite, means, self._rows)
        counts = ops.ones((self._codes,))

        def sums_of(means):
            indices = self._counted(vectors, self._of_heads(self._nearest, vectors, means), real)
            return (
                self._sum_by_code(vectors, indices),
                self._sum_by_code(ops.ones_like(vectors[:, 0]), indices),
            )

        def nothing():
            return ops.zeros((self._codes, self._width)), ops.zeros((self._codes,))

        for _ in range(self.kmeans_rounds):
            sums, counts = map(
                backend.replica_sum, ops.cond(fresh, functools.partial(sums_of, means), nothing)
            )
            moved = sums / ops.maximum(counts, 1.0)[:, None]
            moved = unit(moved) if self.similarity == "cosine" else moved
            means = ops.where(counts[:, None] > 0, moved, means)
        return means, ops.maximum(counts, 1.0)

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

    def candidates(self, vectors: Tensor, real: Tensor | None) -> Tensor:
        """A vector of the batch for each code, the same on every replica. Shape `(H*K, D/H)`.

        Position `p` in `[0, 1)` of the global batch lies with replica `floor(p * replicas)`; of
        vectors that are masked here and there, with the one that has the `floor(p * count)`-th of
        those that are not. Where there are none at all, rows are NaN.
        """
        shift = ops.cast(ops.mod(self.updates, 4096), "float32") * float(np.sqrt(2.0) - 1.0)
        position = ops.mod(ops.add(shift, self._sequence), 1.0)  # (H*K,)
        replicas, heads = backend.replica_count(), self.num_heads
        by_head = ops.reshape(vectors, (-1, heads, self._width))  # (N, H, D/H)
        count = ops.shape(by_head)[0]
        if real is None:
            position = position * replicas
            owner = ops.floor(position)
            row = ops.cast((position - owner) * ops.cast(count, "float32"), "int32")
            row = ops.minimum(row, count - 1)
            mine = ops.equal(owner, ops.cast(backend.replica_index(), "float32"))
        else:
            real = real[::heads]  # (N,), the same for all heads
            order = ops.argsort(ops.where(real, 0, count) + ops.arange(count))  # the real first
            before, count, total = self._counts_of_replicas(real)
            row = ops.cast(position * ops.cast(total, "float32"), "int32")
            row = ops.minimum(row, total - 1) - before  # among the real ones of this replica
            mine = ops.logical_and(row >= 0, row < count)
            row = ops.take(order, ops.clip(row, 0, ops.shape(order)[0] - 1), axis=0)
        if heads > 1:
            head = np.repeat(np.arange(heads, dtype="int32"), self.num_embeddings)  # (H*K,)
            row = ops.add(row * heads, head)
        rows = ops.take(vectors, row, axis=0)  # (H*K, D/H)
        if replicas > 1:
            rows = backend.replica_sum(ops.where(mine[:, None], rows, ops.zeros_like(rows)))
        return rows if real is None else ops.where(total > 0, rows, float("nan"))

    def _counts_of_replicas(self, real):
        """How many vectors are not masked on the replicas before this one, here, and on all."""
        count, index = ops.sum(ops.cast(real, "int32")), backend.replica_index()
        if backend.replica_count() == 1:
            return 0, count, count
        numbers = ops.arange(backend.replica_count())
        counts = backend.replica_sum(ops.where(numbers == index, count, 0))  # (replicas,)
        return ops.sum(ops.where(numbers < index, counts, 0)), count, ops.sum(counts)

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
            "similarity": self.similarity,
            "num_heads": self.num_heads,
            "orthogonal_weight": self.orthogonal_weight,
            "noise_variance": self.noise_variance,
            "seed": self.seed,
            "kmeans_rounds": self.kmeans_rounds,
            "sample_temperature": self.sample_temperature,
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
