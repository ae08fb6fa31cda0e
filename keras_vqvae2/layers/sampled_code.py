from collections.abc import Callable

from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Tensor

CODES_AT_ONCE = 16


def sampled_code(
    vectors: Tensor,
    codebook: Tensor,
    temperature: float,
    uniforms: Callable[[Tensor], Tensor],
    similarity: str = "euclidean",
) -> Tensor:
    """A code for each vector, drawn by how near it is.

    `argmax_k s_k / temperature - log(-log(u_k))`, which draws code `k` with probability
    `softmax(s / temperature)_k`. A few codes are looked at at a time: memory grows with the
    vectors and not with the codes, and noise that is drawn for a whole batch can be split over
    replicas. Gradients do not pass.

    Args:
        vectors: float32, shape `(N, D)`.
        codebook: float32, shape `(K, D)`.
        temperature: Positive float.
        uniforms: Function from `i`, an int32 of shape `()`, to float32 in `[0, 1)` of shape
            `(N, CODES_AT_ONCE)`: those of codes `i * CODES_AT_ONCE` and after.
        similarity: `"euclidean"`, where `s_k` is the negative distance, not squared; or `"dot"`,
            where it is the product.

    Returns:
        int32 indices into `codebook`, shape `(N,)`.

    Reference:
        - vector-quantize-pytorch 1.32.0, `sample_codebook_temp`.
    """
    vectors, codebook = ops.stop_gradient(vectors), ops.stop_gradient(codebook)
    count = codebook.shape[0]
    blocks = -(-count // CODES_AT_ONCE)
    codebook = ops.pad(codebook, ((0, blocks * CODES_AT_ONCE - count), (0, 0)))
    codebook = ops.reshape(codebook, (blocks, CODES_AT_ONCE, -1))
    squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)  # (N, 1)

    def look(i, best):
        score, code = best  # (N,), (N,)
        codes = ops.take(codebook, i, axis=0)  # (b, D)
        numbers = i * CODES_AT_ONCE + ops.arange(CODES_AT_ONCE, dtype="int32")  # (b,)
        scores = backend.matmul_float32(vectors, ops.transpose(codes))  # (N, b)
        if similarity == "euclidean":
            distances = squares - 2.0 * scores + ops.sum(ops.square(codes), axis=-1)
            scores = -ops.sqrt(ops.maximum(distances, 0.0))
        scores = scores / temperature - ops.log(-ops.log(uniforms(i)))
        scores = ops.where(numbers < count, scores, float("-inf"))
        place = backend.argmax(scores)  # (N,)
        highest = ops.max(scores, axis=-1)
        better = highest > score
        return (
            ops.where(better, highest, score),
            ops.where(better, i * CODES_AT_ONCE + place, code),
        )

    start = (ops.full_like(vectors[:, 0], float("-inf")), ops.zeros_like(vectors[:, 0], "int32"))
    _, code = ops.fori_loop(0, blocks, lambda i, best: look(ops.cast(i, "int32"), best), start)
    return code
