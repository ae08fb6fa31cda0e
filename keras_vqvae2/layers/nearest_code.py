from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.hints import Tensor

# Scores held at a time: 2**21 float32 are 8 MiB, which stay in a CPU's cache.
MAX_SCORES = 2**21


def nearest_code(vectors: Tensor, codebook: Tensor, max_scores: int = MAX_SCORES) -> Tensor:
    """Index of the nearest code for each vector, in Euclidean distance.

    The scores of `N` vectors against `K` codes are computed `max_scores` at a time, so that memory
    does not grow with `N`. Of codes at the same distance the first wins. Gradients do not pass.

    Args:
        vectors: float32, shape `(N, D)`.
        codebook: float32, shape `(K, D)`.
        max_scores: Positive integer, the number of scores that may be held in memory at a time.

    Returns:
        int32 indices into `codebook`, shape `(N,)`.
    """
    vectors = ops.stop_gradient(vectors)
    codebook = ops.stop_gradient(codebook)
    # argmin |z - e|^2 = argmax z.e - |e|^2 / 2
    transposed = ops.transpose(codebook)  # (D, K)
    half_norms = 0.5 * ops.sum(ops.square(codebook), axis=-1)  # (K,)

    def nearest(rows):
        scores = backend.matmul_float32(rows, transposed) - half_norms  # (rows, K)
        return backend.argmax(scores)

    num_codes, width = codebook.shape
    num_vectors = ops.shape(vectors)[0]
    rows_at_once = max(1, max_scores // num_codes)
    if isinstance(num_vectors, int) and num_vectors <= rows_at_once:
        return nearest(vectors)

    chunks = (num_vectors + rows_at_once - 1) // rows_at_once
    rows = num_vectors // chunks
    whole = rows * chunks
    # Chunk i holds every `chunks`-th vector: where devices split the batch, each keeps its share.
    split = ops.reshape(vectors[:whole], (rows, chunks, width))  # (rows, chunks, D)
    indices = backend.map_range(
        lambda i: nearest(ops.take(split, i, axis=1)), chunks
    )  # (chunks, rows)
    indices = ops.reshape(ops.transpose(indices), (-1,))  # (rows * chunks,)
    if isinstance(whole, int) and whole == num_vectors:
        return indices
    return ops.concatenate([indices, nearest(vectors[whole:])])
