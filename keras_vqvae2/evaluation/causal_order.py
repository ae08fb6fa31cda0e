import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vqvae2 import backend
from keras_vqvae2.models.code_prior import CodePrior
from keras_vqvae2.models.pixels.pixel_model import PixelModel
from keras_vqvae2.validation import check_positive

CHUNK = 64  # outputs at a time


def causality(model: PixelModel | CodePrior, num_inputs: int = 2, seed: int = 0) -> np.ndarray:
    """Which outputs of an autoregressive network see which of its inputs.

    An answer to "does it see the future, and does it see all of the past?". Of a model of pixels it
    is where the Jacobian is not zero: of the parameters of a position, added up with random
    weights, by the levels of the image. Of a prior, whose codes are no numbers, it is where logits
    change when a code does. It holds for the weights that the model has; layers that start at zero
    hide what will be seen once they are trained.

    Args:
        model: A model of pixels, or a `CodePrior` that predicts codes from those before.
        num_inputs: Positive integer: how many random images or maps are tried. What is seen in one
            of them is seen. Defaults to 2: at a single one a ReLU may be in the way.
        seed: Integer, of the inputs and weights.

    Returns:
        Booleans. Of a model of pixels of shape `(height, width, outputs, height, width, colours)`:
        `[i, j, c, k, l, d]` says whether output c of pixel `(i, j)` sees colour d of `(k, l)`.
        There is an output for each colour where colours are drawn one after the other, else one. Of
        a prior of shape `(rows, columns, rows, columns)`. `mask_of_the_past` has the same shape.

    Raises:
        ValueError: If `num_inputs` is not positive.
        TypeError: For another model.

    Example:

    ```python
    import keras_vqvae2
    from keras_vqvae2.evaluation import causality, mask_of_the_past

    model = keras_vqvae2.PixelCNNPlusPlus(
        (4, 8, 3), hidden_units=4, num_blocks=1, num_mixtures=1, dropout=0.0
    )
    seen, past = causality(model), mask_of_the_past(model)
    print((seen & ~past).any(), (past & ~seen).any())  # False False: no leak, no blind spot
    ```
    """
    check_positive(num_inputs=num_inputs)
    rng = np.random.default_rng(seed)
    if isinstance(model, PixelModel):
        return np.any([_of_pixels(model, rng) for _ in range(num_inputs)], axis=0)
    if isinstance(model, CodePrior):
        return np.any([_of_codes(model, rng) for _ in range(num_inputs)], axis=0)
    raise TypeError(f"Expected a PixelModel or a CodePrior. Received: a {type(model).__name__}")


def mask_of_the_past(model: PixelModel | CodePrior) -> np.ndarray:
    """What an output may see: all that comes before it in raster order.

    Args:
        model: As in `causality`.

    Returns:
        Booleans of the shape that `causality` returns.
    """
    if isinstance(model, CodePrior):
        rows, columns = model.code_shape
        order = np.arange(rows * columns).reshape(rows, columns)
        return order[:, :, None, None] > order
    height, width, colours = model.image_shape
    order = np.arange(math.prod(model.image_shape)).reshape(height, width, colours)
    outputs = order if model.distribution.colour_by_colour else order[:, :, :1]
    return outputs[..., None, None, None] > order


def _of_pixels(model: PixelModel, rng: Any) -> np.ndarray:
    height, width, colours = model.image_shape
    outputs = colours if model.distribution.colour_by_colour else 1
    count = height * width * outputs
    network = keras.Model(model.input, model.output)
    image = rng.integers(model.levels, size=model.image_shape).astype("float32")
    size = model.distribution.num_parameters // outputs
    weights = rng.normal(size=(count, size)).astype("float32")
    gradients = []
    for start in range(0, count, CHUNK):
        # Each copy of the image is asked for another output.
        numbers = np.arange(start, min(start + CHUNK, count))
        chosen = np.zeros((len(numbers), count, size), "float32")
        chosen[np.arange(len(numbers)), numbers] = weights[numbers]
        chosen = chosen.reshape(len(numbers), height, width, outputs * size)

        chosen = ops.convert_to_tensor(chosen)

        def of_chosen(x, chosen=chosen):
            inputs = {"image": x}
            if model.num_classes is not None:
                inputs["label"] = ops.zeros((x.shape[0],), "int32")
            if model.condition_channels is not None:
                inputs["condition"] = ops.zeros((*x.shape[:3], model.condition_channels))
            total = ops.sum(network(inputs, training=False) * chosen)
            return total, (total, total)

        images = ops.convert_to_tensor(np.repeat(image[None], len(numbers), axis=0))
        _, gradient = backend.gradient_with_aux(of_chosen, images, model.variables)
        gradients.append(ops.convert_to_numpy(gradient) != 0)
    seen = np.concatenate(gradients)
    return seen.reshape(height, width, outputs, height, width, colours)


def _of_codes(prior: CodePrior, rng: Any) -> np.ndarray:
    rows, columns = prior.code_shape
    count = rows * columns
    limits = {prior.level: prior.num_embeddings, **prior.condition_embeddings}
    if prior.num_classes is not None:
        limits["label"] = prior.num_classes
    base = {
        name: rng.integers(limit, size=tuple(prior.input[name].shape[1:]))
        for name, limit in limits.items()
    }
    codes = np.repeat(base[prior.level].reshape(1, count), count + 1, axis=0)
    others = rng.integers(1, max(2, prior.num_embeddings), size=count)
    places = np.arange(count)
    codes[places, places] = (codes[places, places] + others) % prior.num_embeddings
    batch = {name: np.repeat(np.array(x)[None], count + 1, axis=0) for name, x in base.items()}
    batch[prior.level] = codes.reshape(-1, rows, columns)
    logits = prior.predict(batch, batch_size=min(CHUNK, count + 1), verbose=0)
    moved = np.abs(logits[:-1] - logits[-1]).max(axis=-1)  # (changed, rows, columns)
    # Rounding may depend on a map's place in its batch.
    seen = moved > 1e-5 * np.abs(logits[-1]).max()
    return seen.reshape(rows, columns, rows, columns).transpose(2, 3, 0, 1)
