from keras import ops

from keras_vqvae2.hints import Tensor


def unit(vectors: Tensor) -> Tensor:
    """Vectors of length 1 in their directions; of zeros, zeros. Gradients pass."""
    squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return vectors * ops.rsqrt(ops.maximum(squares, 1e-24))
