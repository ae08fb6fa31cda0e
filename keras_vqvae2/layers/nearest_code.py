from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Tensor
from keras_vqvae2.layers.row_chunks import MAX_SCORES, map_rows, rows_at_once


def nearest_code(
    vectors: Tensor, codebook: Tensor, max_scores: int = MAX_SCORES, similarity: str = "euclidean"
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

    Returns:
        int32 indices into `codebook`, shape `(N,)`.
    """
    vectors = ops.stop_gradient(vectors)
    codebook = ops.stop_gradient(codebook)
    transposed = ops.transpose(codebook)  # (D, K)
    # argmin |z - e|^2 = argmax z.e - |e|^2 / 2
    half_norms = 0.5 * ops.sum(ops.square(codebook), axis=-1)  # (K,)

    def nearest(rows):
        scores = backend.matmul_float32(rows, transposed)  # (rows, K)
        if similarity == "euclidean":
            scores = scores - half_norms
        return backend.argmax(scores)

    return map_rows(nearest, (vectors,), rows_at_once(codebook.shape[0], max_scores))
