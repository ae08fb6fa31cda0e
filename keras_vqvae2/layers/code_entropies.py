"""How surely vectors choose their codes, and how evenly codes are chosen, in bounded memory.

With `p_n` the probabilities with which vector `n` chooses each of `K` codes, the entropy of a
choice is `mean_n H(p_n)` and that of the codebook `H(mean_n p_n)`, in nats. The matrix of all `p_n`
is never held: sums over vectors go through it a few rows at a time, and so do their gradients.
"""

import numpy as np
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Tensor
from keras_vqvae2.layers.row_chunks import map_rows, rows_at_once, scan_rows

# What stands for log p: Open-MAGVIT2 and IBQ add 1e-5 to the mean's p, vector-quantize-pytorch
# takes at least 1e-5 for any p.
LOGARITHMS = ("exact", "shifted", "clipped")
SMALL = 1e-5
MOST_BITS = 18  # of a group whose mean probabilities, one for each code, are held as a whole


def entropy_of_mean(mean: Tensor, logarithm: str) -> tuple[Tensor, Tensor]:
    """`-sum p log p` of probabilities of any shape, and its gradient, of theirs."""
    if logarithm == "shifted":
        logs, slope = ops.log(mean + SMALL), mean / (mean + SMALL)
    else:
        low = SMALL if logarithm == "clipped" else 1e-37
        logs, slope = ops.log(ops.maximum(mean, low)), ops.cast(mean > low, "float32")
    return -ops.sum(mean * logs), -(logs + slope)


# === Codes made of bits, each chosen for itself ===


def bit_entropies(
    logits: Tensor, weights: Tensor, group_size: int, logarithm: str = "exact"
) -> tuple[Tensor, Tensor]:
    """Entropies of codes whose bits are chosen independently of each other.

    Both are sums over groups of neighbouring bits, in which the mean probability of each of the
    `2^group_size` codes is computed as one product of matrices: its bits' first half times its
    second half. The entropy of a choice is the same whatever the groups.

    Args:
        logits: Log odds of each bit to be 1, finite, float32 of shape `(N, D)`.
        weights: What each vector counts, as of `row_weights`, float32 of shape `(N,)`.
        group_size: Integer that divides `D`, the bits of a group.
        logarithm: One of `LOGARITHMS`.

    Returns:
        A tuple of the entropy of a choice and that of the codebook, float32 of shape `()`.
        Gradients reach `logits`.
    """
    if logarithm == "clipped":
        choice = _clipped_choice(logits, weights, group_size)
    else:
        a = ops.abs(logits)
        # H(sigmoid(x)) = log(1 + e^-|x|) + |x| sigmoid(-|x|): nothing in it can overflow.
        of_bits = ops.softplus(-a) + a * ops.sigmoid(-a)  # (N, D)
        choice = ops.sum(weights * ops.sum(of_bits, axis=-1))
    return choice, _bits_codebook(logits, weights, group_size, logarithm)


def _halves(group_size):
    return group_size - group_size // 2, group_size // 2


def _in_groups(logits, group_size):
    """`(n, D)` as `(n, G, first half)` and `(n, G, second half)`."""
    first, _ = _halves(group_size)
    grouped = ops.reshape(logits, (-1, logits.shape[-1] // group_size, group_size))
    return grouped[..., :first], grouped[..., first:]


def _probabilities(logits):
    """Of all codes of some bits: `(n, G, bits)` to `(n, G, 2^bits)`, the first bit the least."""
    ones, zeros = ops.sigmoid(logits), ops.sigmoid(-logits)
    p = ops.ones_like(ops.sum(logits, axis=-1, keepdims=True))  # (n, G, 1)
    for i in range(logits.shape[-1]):
        p = ops.concatenate([p * zeros[..., i : i + 1], p * ones[..., i : i + 1]], axis=-1)
    return p


def _bits(number):
    """The bits of the codes of `number` bits, float32 of shape `(2^number, number)`."""
    codes = np.arange(2**number)[:, None]
    return (codes >> np.arange(number) & 1).astype("float32")


def _to_logits(weighted, logits):
    """`sum_c weighted_c d log p_c / d logits`: `(n, G, 2^bits)` to `(n, G, bits)`."""
    bits = ops.convert_to_tensor(_bits(logits.shape[-1]))
    total = ops.sum(weighted, axis=-1, keepdims=True)  # (n, G, 1)
    return ops.matmul(weighted, bits) - ops.sigmoid(logits) * total


def _bits_codebook(logits, weights, group_size, logarithm):
    fixed, groups = ops.stop_gradient(logits), logits.shape[-1] // group_size
    first, second = _halves(group_size)
    size = rows_at_once(groups * 2**first)

    def add(total, rows, weights):
        a, b = (_probabilities(half) for half in _in_groups(rows, group_size))
        a = ops.transpose(a * weights[:, None, None], (1, 2, 0))  # (G, 2^first, n)
        b = ops.transpose(b, (1, 0, 2))  # (G, n, 2^second)
        return total + backend.matmul_float32(a, b), weights  # rows have no result: any will do

    total = ops.zeros((groups, 2**first, 2**second))
    total, _ = scan_rows(add, total, (fixed, weights), size)
    mean = backend.replica_sum(total) / backend.replica_count()
    value, slope = entropy_of_mean(mean, logarithm)  # slope: (G, 2^first, 2^second)

    @ops.custom_gradient
    def with_gradient(value, logits, weights, slope):
        def back(rows, weights):
            logits_a, logits_b = _in_groups(rows, group_size)
            a, b = _probabilities(logits_a), _probabilities(logits_b)
            s = ops.transpose(slope, (0, 2, 1))  # (G, 2^second, 2^first)
            at_a = ops.matmul(ops.transpose(b, (1, 0, 2)), s)  # (G, n, 2^first)
            weighted = a * ops.transpose(at_a, (1, 0, 2))  # (n, G, 2^first)
            parts = [_to_logits(weighted, logits_a)]
            if second:
                at_b = ops.matmul(ops.transpose(a, (1, 0, 2)), slope)  # (G, n, 2^second)
                parts.append(_to_logits(b * ops.transpose(at_b, (1, 0, 2)), logits_b))
            back = ops.concatenate(parts, axis=-1)  # (n, G, group_size)
            return ops.reshape(back, (-1, groups * group_size)) * weights[:, None]

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            at_logits = upstream * map_rows(back, (logits, weights), size)
            return (ops.zeros_like(value), at_logits, *map(ops.zeros_like, (weights, slope)))

        return value, gradient

    return with_gradient(value, logits, weights, ops.stop_gradient(slope))


def _clipped_choice(logits, weights, group_size):
    """The entropy of a choice where `log p` of the whole code is at least that of `SMALL`."""
    groups = logits.shape[-1] // group_size
    size = rows_at_once(groups * 2**group_size)

    def joint(rows):
        return _probabilities(ops.reshape(rows, (-1, groups, group_size)))  # (n, G, 2^group_size)

    def entropies(rows):
        p = joint(rows)
        return -ops.sum(p * ops.log(ops.maximum(p, SMALL)), axis=(1, 2))  # (n,)

    value = ops.sum(weights * map_rows(entropies, (ops.stop_gradient(logits),), size))

    @ops.custom_gradient
    def with_gradient(value, logits, weights):
        def back(rows, weights):
            p = joint(rows)
            slope = -(ops.log(ops.maximum(p, SMALL)) + ops.cast(p > SMALL, "float32"))
            grouped = ops.reshape(rows, (-1, groups, group_size))
            return ops.reshape(_to_logits(p * slope, grouped), rows.shape) * weights[:, None]

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            at_logits = upstream * map_rows(back, (logits, weights), size)
            return ops.zeros_like(value), at_logits, ops.zeros_like(weights)

        return value, gradient

    return with_gradient(value, logits, weights)


# === Codes of a codebook, chosen by a softmax of products ===


def softmax_entropies(
    vectors: Tensor, codebook: Tensor, weights: Tensor, temperature: float, logarithm: str = "exact"
) -> tuple[Tensor, Tensor, Tensor]:
    """Entropies of choices by `softmax(vectors . codes / temperature)`.

    Args:
        vectors: Finite, float32 of shape `(N, D)`.
        codebook: float32 of shape `(K, D)`.
        weights: What each vector counts, as of `row_weights`, float32 of shape `(N,)`.
        temperature: Positive float.
        logarithm: `"exact"` or `"shifted"`.

    Returns:
        A tuple of the entropy of a choice and that of the codebook, through which no gradient
        passes, and their difference, through which gradients reach `vectors` and `codebook`;
        float32 of shape `()`.
    """
    size = rows_at_once(codebook.shape[0])
    fixed, codes = ops.stop_gradient(vectors), ops.stop_gradient(codebook)

    def probabilities(rows, codes):
        logits = backend.matmul_float32(rows, ops.transpose(codes))  # (n, K)
        # Divided last, and probabilities by their sum: of numbers in the thousands little is left.
        logits = (logits - ops.max(logits, axis=-1, keepdims=True)) / temperature
        powers = ops.exp(logits)
        total = ops.sum(powers, axis=-1, keepdims=True)
        return powers / total, logits - ops.log(total)

    def add(total, rows, weights):
        p, logs = probabilities(rows, codes)
        return total + ops.matmul(weights[None], p)[0], -ops.sum(p * logs, axis=-1)  # (K,), (n,)

    total = ops.zeros_like(codes[:, 0])
    total, of_rows = scan_rows(add, total, (fixed, weights), size)
    choice = ops.sum(weights * of_rows)
    mean = backend.replica_sum(total) / backend.replica_count()
    of_codebook, slope = entropy_of_mean(mean, logarithm)  # slope: (K,)

    @ops.custom_gradient
    def with_gradient(value, vectors, codebook, weights, slope):
        def back(total, rows, weights):
            p, logs = probabilities(rows, codebook)
            at_p = -logs - slope  # (n, K), but for what is the same for all codes
            at_p = at_p - ops.sum(p * at_p, axis=-1, keepdims=True)
            at_logits = p * at_p * weights[:, None] / temperature  # (n, K)
            total = total + ops.matmul(ops.transpose(at_logits), rows)  # (K, D)
            return total, ops.matmul(at_logits, codebook)  # (n, D)

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            at_codebook, at_vectors = scan_rows(
                back, ops.zeros_like(codebook), (vectors, weights), size
            )
            constants = map(ops.zeros_like, (weights, slope))
            return (
                ops.zeros_like(value),
                upstream * at_vectors,
                upstream * at_codebook,
                *constants,
            )

        return value, gradient

    difference = with_gradient(
        choice - of_codebook, vectors, codebook, weights, ops.stop_gradient(slope)
    )
    return choice, of_codebook, difference
