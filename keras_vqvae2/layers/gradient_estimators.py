"""How the gradient of a quantized vector reaches the vector it stands for."""

from keras import ops

from keras_vqvae2.layers.unit_sphere import unit


@ops.custom_gradient
def straight_through(vectors, quantized):
    """Returns `quantized`; its gradient is copied to `vectors` (van den Oord et al. 2017, 3.2).

    Args:
        vectors: Encoder outputs, shape `(N, D)`.
        quantized: Their codes, shape `(N, D)`; receives no gradient.
    """

    def gradient(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        return upstream, ops.zeros_like(upstream)

    return quantized, gradient


@ops.custom_gradient
def rotation_trick(vectors, quantized):
    """Returns `quantized`; its gradient is rotated and scaled back onto `vectors`.

    With `R` the rotation that takes the direction of `e` to that of `q`, and `s = |q| / |e|`, the
    forward pass is `q = s R e` and the backward pass treats `s` and `R` as constants:
    `de = s R^T dq`.

    Args:
        vectors: Encoder outputs `e`, shape `(N, D)`.
        quantized: Their codes `q`, shape `(N, D)`; receives no gradient.

    Reference:
        - Fifty et al. 2024, "Restructuring Vector Quantization with the Rotation Trick",
          arXiv 2410.06424, section 4.
    """
    epsilon = 1e-6
    norm_e = ops.sqrt(ops.sum(ops.square(vectors), axis=-1, keepdims=True))  # (N, 1)
    norm_q = ops.sqrt(ops.sum(ops.square(quantized), axis=-1, keepdims=True))  # (N, 1)
    unit_e = vectors / ops.maximum(norm_e, epsilon)
    unit_q = quantized / ops.maximum(norm_q, epsilon)
    bisector = unit_e + unit_q
    length = ops.sqrt(ops.sum(ops.square(bisector), axis=-1, keepdims=True))
    bisector = bisector / ops.maximum(length, epsilon)
    scale = norm_q / ops.maximum(norm_e, epsilon)

    def gradient(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        # R = I - 2 r r^T + 2 q^ e^^T, so R^T g = g - 2 r (r.g) + 2 e^ (q^.g)
        along_r = ops.sum(bisector * upstream, axis=-1, keepdims=True)  # (N, 1)
        along_q = ops.sum(unit_q * upstream, axis=-1, keepdims=True)  # (N, 1)
        back = scale * (upstream - 2 * bisector * along_r + 2 * unit_e * along_q)
        return back, ops.zeros_like(back)

    return quantized, gradient


def diveq(vectors, quantized, noise):
    """Returns vectors moved by their error's length, nearly towards their codes.

    `z + |q - z| sg(n(q - z + e))`, with `n(x) = x / |x|`: where the noise is small this is close to
    `q`, and gradients reach both `z` and `q` through the distance.

    Args:
        vectors: Encoder outputs `z`, shape `(N, D)`.
        quantized: Their codes `q`, shape `(N, D)`; receives a gradient.
        noise: `e`, shape `(N, D)`.

    Reference:
        - Vali et al. 2025, "DiVeQ: Differentiable Vector Quantization Using the Reparameterization
          Trick", arXiv 2509.26469.
    """
    difference = quantized - vectors
    squares = ops.sum(ops.square(difference), axis=-1, keepdims=True)  # (N, 1)
    length = ops.sqrt(ops.maximum(squares, 1e-24))
    return vectors + length * ops.stop_gradient(unit(difference + noise))


ESTIMATORS = {"straight_through": straight_through, "rotation": rotation_trick}
