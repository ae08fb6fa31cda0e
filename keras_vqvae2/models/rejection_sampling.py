"""Rejection sampling: of many candidates, those that a classifier recognises best."""

import collections
import dataclasses
import heapq
import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Self

import keras
import numpy as np
import tqdm
from keras import ops

from keras_vqvae2.hints import Classifier, Tensor
from keras_vqvae2.image_batches import to_unit_floats
from keras_vqvae2.validation import check_images, check_positive


@dataclasses.dataclass(frozen=True, eq=False)
class RejectionResult:
    """The images that rejection sampling kept.

    Images of one label stand best first (of equal scores, the lower number), so what a stricter
    rate keeps is a prefix of each label's: `best` takes it without drawing or scoring again.

    Attributes:
        images: Shape `(N, H, W, C)`, of the candidates' dtype.
        labels: int32, shape `(N,)`.
        scores: float32, shape `(N,)`: the probability that the classifier gives to the label.
        numbers: int64, shape `(N,)`: which candidates they are, counted from 0.
        candidates: Dict from label to the number of candidates that were scored.

    Example:

    ```python
    import numpy as np
    from keras_vqvae2.models.rejection_sampling import RejectionResult

    result = RejectionResult(
        np.zeros((2, 8, 8, 3)), np.array([0, 0]), np.array([0.9, 0.7]), np.array([3, 1]), {0: 4}
    )
    print(result.acceptance_rate)  # 0.5
    print(result.best(0.25).numbers)  # [3]
    ```
    """

    images: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    numbers: np.ndarray
    candidates: dict[int, int]

    @property
    def acceptance_rate(self) -> float:
        """Kept images over candidates, in `[0, 1]`."""
        return len(self.numbers) / max(1, sum(self.candidates.values()))

    def best(self, acceptance_rate: float) -> Self:
        """What a stricter rate would have kept of the same candidates.

        Args:
            acceptance_rate: Float in `(0, 1]`: of `n` candidates of a label the best
                `floor(acceptance_rate * n)` stay, and at least one.

        Returns:
            `RejectionResult` in the same order.

        Raises:
            ValueError: If more would be needed of a label than were kept.
        """
        _check_rate(acceptance_rate)
        wanted = {
            label: max(1, math.floor(acceptance_rate * count + 1e-6))
            for label, count in self.candidates.items()
        }
        seen: collections.Counter[int] = collections.Counter()
        stays = []
        for label in self.labels.tolist():
            stays.append(seen[label] < wanted[label])
            seen[label] += 1
        if any(seen[label] < count for label, count in wanted.items()):
            raise ValueError(
                f"Expected a rate of at most about {self.acceptance_rate:.4g}, at which images "
                f"were kept. Received: acceptance_rate={acceptance_rate}"
            )
        return self._take(np.flatnonzero(stays))

    def _take(self, places):
        arrays = (self.images, self.labels, self.scores, self.numbers)
        return RejectionResult(*(array[places] for array in arrays), dict(self.candidates))


def rejection_sample(
    candidates: Iterable[tuple[Tensor, Tensor]],
    classifier: Classifier,
    keep: int | dict[int, int],
    class_indices: Sequence[int] | None = None,
) -> RejectionResult:
    """Keeps the best images of each label out of a stream of any length.

    An image's score is the probability that a classifier gives to the label the image was made
    for. Only images that are among the best of their label so far are held in memory, and at the
    end a second time while they are put in order.

    Args:
        candidates: Iterable of batches `(images, labels)`: floats in `[0, 1]` or uint8, shape
            `(batch, H, W, C)`, and integers, shape `(batch,)`.
        classifier: Keras or keras-cv model, or any callable, from float32 images in `[0, 1]` to
            probabilities of shape `(batch, outputs)`.
        keep: Positive integer, images to keep of each label, or a dict from label to one.
        class_indices: None, or for each label the classifier's output that stands for it, such as
            ImageNet's class 217 for Imagenette's second label.

    Returns:
        `RejectionResult`, sorted by label, then best first. A label with fewer candidates than
        `keep` keeps them all, with a warning.

    Raises:
        ValueError: If shapes do not fit, a label is not in `keep` or has no output of the
            classifier, or the classifier returns anything but probabilities.

    Example:

    ```python
    import numpy as np
    from keras_vqvae2.models.rejection_sampling import rejection_sample

    def is_bright(images):
        bright = images.mean(axis=(1, 2, 3))
        return np.stack([1 - bright, bright], axis=1)

    rng = np.random.default_rng(0)
    candidates = ((rng.uniform(size=(8, 4, 4, 3)), np.arange(8) % 2) for _ in range(10))
    result = rejection_sample(candidates, is_bright, keep=3)
    print(result.labels, result.acceptance_rate)  # [0 0 0 1 1 1] 0.075
    ```

    Reference:
        - Razavi, van den Oord, Vinyals 2019, arXiv 1906.00446, section 3.3.
    """
    named = {f"keep[{k}]": n for k, n in keep.items()} if isinstance(keep, dict) else {"keep": keep}
    check_positive(**named)
    best = _BestOfEachLabel(keep)
    _run(best, candidates, classifier, class_indices)
    return best.result()


def num_candidates(count: int, acceptance_rate: float) -> int:
    """How many candidates a label has of which `count` images stay."""
    return math.ceil(count / acceptance_rate - 1e-6)


def candidate_labels(labels: np.ndarray, acceptance_rate: float) -> np.ndarray:
    """Labels of all candidates, in the order in which they are drawn.

    Args:
        labels: Integers of shape `(N,)`: the labels of the images to keep. They are gone through
            again and again, past those that have their `num_candidates`.
        acceptance_rate: Float in `(0, 1]`.

    Returns:
        Integers of shape `(candidates,)`.
    """
    keep = collections.Counter(labels.tolist())
    wanted = {label: num_candidates(m, acceptance_rate) for label, m in keep.items()}
    rounds = max(math.ceil(wanted[label] / m) for label, m in keep.items())
    competing = np.tile(labels, rounds)
    stays = np.zeros(len(competing), bool)
    for label, count in wanted.items():
        stays[np.flatnonzero(competing == label)[:count]] = True
    return competing[stays]


def best_of_drawn(
    draw, labels, acceptance_rate, classifier, class_indices, image_shape, batch_size, verbose
):
    """Rejection sampling with as many candidates for each label as the rate asks for.

    Args:
        draw: Function of labels and the number of the first candidate that makes float32 images.
        labels: int32, shape `(N,)`: the labels of the images to return.
        acceptance_rate: Float in `(0, 1]`; see `candidate_labels`.
        classifier: As in `rejection_sample`.
        class_indices: As in `rejection_sample`.
        image_shape: `(height, width, channels)`.
        batch_size: Positive integer, candidates at a time.
        verbose: 1 shows a progress bar.

    Returns:
        `RejectionResult` in the order of `labels`.

    Raises:
        ValueError: As in `rejection_sample`, before anything is drawn.
    """
    _check_rate(acceptance_rate)
    keep = collections.Counter(labels.tolist())
    competing = candidate_labels(labels, acceptance_rate)
    size = min(batch_size, len(competing))
    # A grey batch tells how many outputs there are, and that they are probabilities.
    width = _probabilities(classifier, np.full((size, *image_shape), 0.5, "float32")).shape[1]
    _outputs(np.unique(labels), class_indices, width)

    def candidates():
        with tqdm.tqdm(
            total=len(competing), desc="candidates", unit="image", disable=not verbose
        ) as progress:
            for start in range(0, len(competing), size):
                part = competing[start : start + size]
                yield draw(part, start), part
                progress.update(len(part))

    best = _BestOfEachLabel(keep, np.zeros((0, *image_shape), "float32"))
    _run(best, candidates(), classifier, class_indices)
    return best.result(labels.tolist())


def _check_rate(acceptance_rate):
    if not 0 < acceptance_rate <= 1:
        raise ValueError(f"Expected a rate in (0, 1]. Received: acceptance_rate={acceptance_rate}")


def _run(best, candidates, classifier, class_indices):
    """Scores candidates and hands them on."""
    for images, labels in candidates:
        images, labels = np.asarray(images), np.asarray(labels)
        check_images(images, images.shape[-1], 1, "candidates")
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
            raise ValueError(
                f"Expected {len(images)} integer labels. "
                f"Received: labels of shape {labels.shape} and dtype {labels.dtype}"
            )
        probabilities = _probabilities(classifier, images)
        outputs = _outputs(labels, class_indices, probabilities.shape[1])
        best.add(images, labels, probabilities[np.arange(len(images)), outputs])
    best.warn_of_few()


def _probabilities(classifier, images):
    """float32 of shape `(batch, outputs)`, checked."""
    predict = classifier.predict_on_batch if isinstance(classifier, keras.Model) else classifier
    probabilities = ops.convert_to_numpy(predict(to_unit_floats(images))).astype("float32")
    if probabilities.ndim != 2 or len(probabilities) != len(images):
        raise ValueError(
            f"Expected probabilities of shape ({len(images)}, outputs) from the classifier. "
            f"Received: shape {probabilities.shape}"
        )
    sums = probabilities.sum(axis=1)
    # 1e-2 allows for probabilities that were computed in bfloat16.
    if not (np.abs(sums - 1) < 1e-2).all() or (probabilities < 0).any():
        low, high = probabilities.min(), probabilities.max()
        raise ValueError(
            "Expected probabilities from the classifier, not negative, in rows that sum to 1. If "
            "it returns logits, apply a softmax: `lambda x: keras.ops.softmax(model(x))`. "
            f"Received: from {low:.4g} to {high:.4g}, rows that sum to {sums.min():.4g} up to "
            f"{sums.max():.4g}"
        )
    return probabilities


def _outputs(labels, class_indices, width):
    """Which of the classifier's outputs stands for each label, checked."""
    outputs = labels
    if class_indices is not None:
        if labels.min() < 0 or labels.max() >= len(class_indices):
            raise ValueError(
                f"Expected labels below {len(class_indices)}, the entries of class_indices. "
                f"Received: labels from {labels.min()} to {labels.max()}"
            )
        outputs = np.asarray(class_indices)[labels]
    if outputs.min() < 0 or outputs.max() >= width:
        raise ValueError(
            f"Expected classes below {width}, the classifier's outputs (class_indices maps labels "
            f"to them). Received: classes from {outputs.min()} to {outputs.max()}"
        )
    return outputs


class _BestOfEachLabel:
    """For each label a heap of the best `(score, -number, image)`, the worst of them first."""

    def __init__(self, keep, empty=None):
        self.keep = keep
        self.empty = empty  # a batch of no images, of their shape and dtype
        self.counts = collections.Counter()
        self._heaps = collections.defaultdict(list)

    @property
    def count(self):
        return sum(self.counts.values())

    def add(self, images, labels, scores):
        if self.empty is None:
            self.empty = images[:0].copy()
        elif images.shape[1:] != self.empty.shape[1:] or images.dtype != self.empty.dtype:
            raise ValueError(
                f"Expected images of shape {self.empty.shape[1:]} and dtype {self.empty.dtype}, as "
                f"before. Received: shape {images.shape[1:]}, dtype {images.dtype}"
            )
        number = self.count
        for image, label, value in zip(images, labels.tolist(), scores.tolist()):
            keep = self._keep_of(label)
            heap = self._heaps[label]
            self.counts[label] += 1
            if len(heap) < keep:
                heapq.heappush(heap, (value, -number, image.copy()))
            elif (value, -number) > heap[0][:2]:
                heapq.heapreplace(heap, (value, -number, image.copy()))
            number += 1

    def _keep_of(self, label):
        if not isinstance(self.keep, dict):
            return self.keep
        if label not in self.keep:
            raise ValueError(f"Expected labels among {sorted(self.keep)}. Received: {label}")
        return self.keep[label]

    def warn_of_few(self):
        labels = self.keep if isinstance(self.keep, dict) else self.counts
        few = {k: self.counts[k] for k in sorted(labels) if self.counts[k] < self._keep_of(k)}
        if few:
            warnings.warn(
                f"Expected at least keep={self.keep} candidates of each label. Received: {few}; "
                "they are all kept",
                stacklevel=3,
            )

    def result(self, labels=None):
        """What is kept, in the order of these labels as far as there are images, or sorted."""
        if self.empty is None:
            raise ValueError("Expected candidates. Received: none")
        ranked = {
            label: sorted(heap, key=lambda entry: entry[:2])  # the best at the end
            for label, heap in self._heaps.items()
        }
        if labels is None:
            labels = [label for label in sorted(ranked) for _ in ranked[label]]
        kept = [(label, *ranked[label].pop()) for label in labels if ranked.get(label)]
        images = np.empty((len(kept), *self.empty.shape[1:]), self.empty.dtype)
        for image, entry in zip(images, kept):
            image[...] = entry[-1]
        return RejectionResult(
            images,
            np.array([label for label, *_ in kept], "int32"),
            np.array([value for _, value, *_ in kept], "float32"),
            np.array([-number for _, _, number, _ in kept], "int64"),
            dict(self.counts),
        )
