from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Tensor
from keras_vqvae2.layers.row_chunks import MAX_SCORES, map_rows, rows_at_once

# Codes looked at at a time: a product of a few vectors with many more would do nothing but read
# the codes.
MAX_CODES = 2**14


def nearest_code(
    vectors: Tensor,
    codebook: Tensor,
    max_scores: int = MAX_SCORES,
    similarity: str = "euclidean",
    max_codes: int = MAX_CODES,
) -> Tensor:
    """Index of the nearest code for each vector.

    The scores of `N` vectors against `K` codes are computed `max_scores` at a time, so that memory
    does not grow with `N`. Of codes at the same distance the first wins. Gradients do not pass.

    Args:
        vectors: float32, shape `(N, D)`.
        codebook: float32, shape `(K, D)`.
        max_scores: Positive integer, the number of scores that may be held in memory at a time.
        similarity: `"euclidean"`, the least distance; or `"dot"`, the largest product, which among
            codes of one length is the least angle.
        max_codes: Integer in `[1, 2^24]`, the number of codes that a product may be of.

    Returns:
        int32 indices into `codebook`, shape `(N,)`.
    """
    vectors = ops.stop_gradient(vectors)
    codebook = ops.stop_gradient(codebook)
    if similarity == "euclidean":
        # argmin |z - e|^2 = argmax z.e - |e|^2 / 2
        offsets = -0.5 * ops.sum(ops.square(codebook), axis=-1)  # (K,)
    else:
        offsets = ops.zeros_like(codebook[:, 0])

    def scores(rows, codes, offsets):
        return backend.matmul_float32(rows, ops.transpose(codes), offsets)

    count = codebook.shape[0]
    if count <= max_codes:
        size = rows_at_once(count, max_scores)
        return map_rows(
            lambda rows: backend.argmax(scores(rows, codebook, offsets)), (vectors,), size
        )

    blocks = -(-count // max_codes)
    spare = blocks * max_codes - count  # which no vector is to choose
    codebook = ops.reshape(ops.pad(codebook, ((0, spare), (0, 0))), (blocks, max_codes, -1))
    offsets = ops.pad(offsets, ((0, spare),), constant_values=float("-inf"))
    offsets = ops.reshape(offsets, (blocks, max_codes))

    def nearest(rows):
        def of_block(i):
            found = scores(rows, ops.take(codebook, i, axis=0), ops.take(offsets, i, axis=0))
            place = backend.argmax(found)  # (n,)
            highest = ops.take_along_axis(found, place[:, None], axis=-1)[:, 0]
            return ops.stack([highest, ops.cast(place, "float32")])  # float32 holds 2^24

        found = backend.map_range(of_block, blocks)  # (blocks, 2, n)
        block = backend.argmax(ops.transpose(found[:, 0]))  # (n,)
        place = ops.take_along_axis(found[:, 1], block[None], axis=0)[0]
        # Of a vector that is not finite what was padded may seem the nearest.
        return ops.minimum(block * max_codes + ops.cast(place, "int32"), count - 1)

    return map_rows(nearest, (vectors,), rows_at_once(max_codes, max_scores))
