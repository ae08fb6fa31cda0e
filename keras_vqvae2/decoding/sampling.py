"""Drawing codes: guidance, temperature, top-k, top-p, and uniforms that belong to a sample."""

import numbers
import operator
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_vqvae2.hints import Tensor
from keras_vqvae2.validation import check_positive

LARGEST = float(np.finfo("float32").max)


class Sampling:
    """How a code is drawn from its logits.

    Args:
        temperature: Positive float, divides the logits. As it goes to zero, the most probable code
            is drawn.
        top_k: None, or a positive integer: only the `k` most probable codes (with all that are as
            probable as the last of them).
        top_p: None, or a float in `(0, 1]`: only the most probable codes that together reach this
            probability, at the given temperature and among the `top_k`.
        guidance_scale: Non-negative float `s`. The logits are `u + s (c - u)`, of `c` that know
            label and coarser levels and `u` that do not: 1 for `c`, more to obey them more.
        guidance_power: None for the same scale at each position, or a positive float: from 1 at
            the first of N positions (or passes) the scale rises to `s`, at position k
            `1 + (s - 1) (1 - cos(pi (k / N)^power)) / 2`.

    Raises:
        ValueError: If one is out of range.

    Example:

    ```python
    import numpy as np
    from keras_vqvae2.decoding.sampling import Sampling

    logits = np.array([[0.0, 1.0, 2.0]], "float32")
    sampling = Sampling(temperature=0.5, top_k=2)
    codes = sampling.draw(logits, np.array([0.05], "float32"), sampling.numbers())  # [1]
    ```

    Reference:
        - Ho, Salimans 2022, arXiv 2207.12598, equation 6, for the guidance; with logits in place
          of scores in Sun et al. 2024, "LlamaGen", arXiv 2406.06525, section 2.2.
        - Yu et al. 2024, "RAR", arXiv 2411.00776, for the power-cosine schedule (power 2.75).
    """

    def __init__(
        self,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance_scale: float = 1.0,
        guidance_power: float | None = None,
    ) -> None:
        if not (is_number(temperature) and temperature > 0):
            raise ValueError(f"Expected a positive number. Received: temperature={temperature!r}")
        if top_k is not None:
            check_positive(top_k=top_k)
        if top_p is not None and not (is_number(top_p) and 0 < top_p <= 1):
            raise ValueError(f"Expected a number in (0, 1]. Received: top_p={top_p!r}")
        if not (is_number(guidance_scale) and guidance_scale >= 0):
            raise ValueError(
                f"Expected a number of at least 0. Received: guidance_scale={guidance_scale!r}"
            )
        if guidance_power is not None and not (is_number(guidance_power) and guidance_power > 0):
            raise ValueError(
                f"Expected None or a positive number. Received: guidance_power={guidance_power!r}"
            )
        self.temperature = temperature
        self.top_k = top_k
        self.top_p = top_p
        self.guidance_scale = guidance_scale
        self.guidance_power = guidance_power

    @property
    def guided(self) -> bool:
        """Whether logits without label and coarser levels are needed."""
        return self.guidance_scale != 1

    @property
    def kind(self) -> tuple[bool, bool, bool]:
        """What a compiled loop depends on: which of the means there are, not their values."""
        return self.top_k is not None, self.top_p is not None, self.guided

    def guidance_scales(self, count: int) -> np.ndarray:
        """The scale at each of `count` positions (or passes): float32 of shape `(count,)`."""
        scales = np.full(count, self.guidance_scale, "float64")
        if self.guidance_power is not None:
            reached = (np.arange(count) / count) ** self.guidance_power
            scales = 1 + (scales - 1) * (1 - np.cos(np.pi * reached)) / 2
        return scales.astype("float32")

    def guide(self, logits: Tensor, scale: Tensor) -> Tensor:
        """Moves logits away from those that do not know label and coarser levels.

        Args:
            logits: float32 of shape `(2 * batch, ..., codes)`: of each example those that know,
                then those that do not. Not guided: `(batch, ..., codes)`, and they come back.
            scale: float32 of shape `()`, or one that broadcasts with what is returned.

        Returns:
            float32 of shape `(batch, ..., codes)`.
        """
        if not self.guided:
            return logits
        pairs = ops.reshape(ops.cast(logits, "float32"), (-1, 2, *logits.shape[1:]))
        return pairs[:, 1] + scale * (pairs[:, 0] - pairs[:, 1])

    def numbers(self) -> dict[str, np.generic]:
        """The values, for `draw`: arrays, so that other values need no other program."""
        smallest = float(np.finfo("float32").tiny)  # what lies below may be taken for zero
        return {
            "temperature": np.float32(max(self.temperature, smallest)),
            "top_k": np.int32(min(self.top_k or 0, np.iinfo("int32").max)),
            "top_p": np.float32(max(self.top_p or 1.0, smallest)),
        }

    def draw(self, logits: Tensor, uniforms: Tensor, numbers: Mapping[str, Tensor]) -> Tensor:
        """Draws by inverse CDF, codes in the order of their numbers.

        Args:
            logits: float32 of shape `(batch, codes)`.
            uniforms: float32 in `[0, 1)`, shape `(batch,)`.
            numbers: What `numbers` returned.

        Returns:
            int32 of shape `(batch,)`; -1 where logits are NaN or infinite, but for `-inf`: a code
            that is never drawn.
        """
        logits = ops.convert_to_tensor(logits, "float32")
        # What is divided by a small temperature is at most zero, and the largest stays what it is.
        logits = logits - ops.max(logits, axis=-1, keepdims=True)
        finite = ops.all(logits <= 0, axis=-1)  # (B,), no NaN, and a largest one
        logits = logits / numbers["temperature"]
        uniforms = ops.convert_to_tensor(uniforms, "float32")
        codes = logits.shape[-1]
        if self.top_k is not None:
            ascending = ops.sort(logits, axis=-1)
            index = ops.maximum(codes - numbers["top_k"], 0)
            threshold = ops.take(ascending, ops.reshape(index, (1,)), axis=-1)  # (B, 1)
            logits = ops.where(logits >= threshold, logits, -np.inf)
        weights = ops.exp(logits)  # (B, K), the largest 1
        if self.top_p is not None:
            descending = ops.flip(ops.sort(weights, axis=-1), axis=-1)
            reached = ops.cumsum(descending, axis=-1)
            # What stands before a code must not reach the limit yet.
            needed = reached - descending < numbers["top_p"] * reached[:, -1:]
            threshold = ops.min(
                ops.where(needed, descending, np.inf), axis=-1, keepdims=True
            )  # (B, 1)
            weights = ops.where(weights >= threshold, weights, 0.0)
        reached = ops.cumsum(weights, axis=-1)  # (B, K)
        beyond = reached > uniforms[:, None] * reached[:, -1:]
        # Of codes that cannot be drawn the sum does not grow; rounding may still hit them.
        found = ops.where(ops.logical_and(beyond, weights > 0), 1, 0)
        return ops.cast(ops.where(finite, ops.argmax(found, axis=-1), -1), "int32")


def is_number(value: Any) -> bool:
    """Whether it is a real number that float32 holds."""
    return isinstance(value, numbers.Real) and abs(float(value)) <= LARGEST


def sample_uniforms(
    seed: int, samples: Iterable[int], level: str, shape: Sequence[int]
) -> np.ndarray:
    """Uniforms for the positions of some samples, each a function of its own number only.

    Philox, a counter-based generator, with key `(seed, sample)` and the level in the counter.

    Args:
        seed: Integer in `[0, 2**64)`.
        samples: Numbers of the samples, likewise.
        level: Name of the level.
        shape: Of one sample's uniforms, such as `(rows, columns)`.

    Returns:
        float32 in `[0, 1)` of shape `(len(samples), *shape)`.

    Raises:
        ValueError: If the seed or a number is out of range.
    """
    counter = [0, 0, 0, zlib.crc32(level.encode())]
    keys = [(_word("seed", seed), _word("sample", sample)) for sample in samples]
    uniforms = np.empty((len(keys), *shape), "float32")
    for i, key in enumerate(keys):
        philox = np.random.Philox(key=np.array(key, "uint64"), counter=counter)
        uniforms[i] = np.random.Generator(philox).random(tuple(shape), "float32")
    return uniforms


def _word(name, value):
    """An integer of 64 bits, as the key of the generator takes it."""
    try:
        word = operator.index(value)
    except TypeError:
        word = -1
    if not 0 <= word < 2**64:
        raise ValueError(f"Expected an integer in [0, 2**64). Received: {name}={value!r}")
    return word
