"""What a generator may be made of, and what it may be asked for."""

import numpy as np

from keras_vqvae2.decoding.sampling import Sampling
from keras_vqvae2.models.vqvae2.image_checks import check_images


def check_fit(vqvae, priors, label_names):
    """Raises `ValueError` unless every level has a prior that models just its codes."""
    problems = []
    if set(priors) != set(vqvae.levels):
        problems.append(f"priors for the levels {vqvae.levels}, got {tuple(priors)}")
    shapes = vqvae.code_shapes()
    fingerprint = None
    for level, prior in priors.items():
        if level not in shapes:
            continue
        if prior.level != level:
            problems.append(f"the prior of {level!r} to model it, got one of {prior.level!r}")
        if prior.num_embeddings != vqvae.num_embeddings:
            problems.append(
                f"{vqvae.num_embeddings} codes in the prior of {level!r}, got "
                f"{prior.num_embeddings}"
            )
        if prior.code_shape != shapes[level]:
            problems.append(
                f"maps of {shapes[level]} in the prior of {level!r}, got {prior.code_shape}"
            )
        for name, factor in prior.condition_factors.items():
            coarser = vqvae.levels[: vqvae.levels.index(level)]
            size = tuple(s // factor for s in prior.code_shape)
            if name not in coarser:
                problems.append(f"conditions of {level!r} among {coarser}, got {name!r}")
            elif size != shapes[name]:
                problems.append(f"maps of {shapes[name]} as condition {name!r}, got {size}")
        if prior.codes_fingerprint is not None:
            fingerprint = fingerprint or vqvae.fingerprint()
            if prior.codes_fingerprint != fingerprint:
                problems.append(
                    f"a prior of {level!r} trained on codes of the VQVAE2 with the fingerprint "
                    f"{fingerprint}, got {prior.codes_fingerprint}"
                )
    classes = {prior.num_classes for prior in priors.values()} - {None}
    if label_names is not None:
        classes.add(len(label_names))
    if len(classes) > 1:
        problems.append(f"one number of classes, got {sorted(classes)}")
    if problems:
        raise ValueError(f"Expected {'; '.join(problems)}.")


def check_completion(vqvae, images, mask):
    """Raises `ValueError` unless a generator can fill in a part of images.

    Args:
        vqvae: The `VQVAE2`.
        images: Array of shape `(N, H, W, C)`.
        mask: Array of booleans, shape `(H, W)` or `(N, H, W)`.
    """
    if images.shape[1:] != vqvae.image_shape:
        raise ValueError(
            f"Expected images of shape {('N', *vqvae.image_shape)}. "
            f"Received: images of shape {images.shape}"
        )
    check_images(images, images.shape[-1], vqvae.downsampling)
    if mask.shape not in (images.shape[:3], images.shape[1:3]):
        raise ValueError(
            f"Expected a mask of shape {images.shape[1:3]} or {images.shape[:3]}. "
            f"Received: mask of shape {mask.shape}"
        )


def touched(mask, shape):
    """Which codes of a map touch a masked pixel, or neighbour one that does.

    Args:
        mask: Booleans of shape `(N, H, W)`.
        shape: `(rows, columns)` of the map.

    Returns:
        Booleans of shape `(N, rows, columns)`.
    """
    count, height, width = mask.shape
    rows, columns = shape
    cells = mask.reshape(count, rows, height // rows, columns, width // columns)
    cells = np.pad(cells.any(axis=(2, 4)), ((0, 0), (1, 1), (1, 1)))
    return np.logical_or.reduce(
        [cells[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    )


def label_indices(labels, numbers, num_classes, label_names):
    """What images of some numbers are asked to show.

    Args:
        labels: None, a name, an index, or one of them for each image.
        numbers: Integers of shape `(N,)`, of the images.
        num_classes: None, or the number of labels.
        label_names: None, or their names.

    Returns:
        int32 of shape `(N,)`, or None without classes.
    """
    if num_classes is None:
        if labels is not None:
            raise ValueError(f"Expected no labels. Received: labels={labels}")
        return None
    if labels is None:
        return (numbers % num_classes).astype("int32")

    def index(label):
        if isinstance(label, str):
            if label in (label_names or ()):
                return label_names.index(label)
        elif int(label) == label and 0 <= label < num_classes:
            return int(label)
        raise ValueError(
            f"Expected a label in [0, {num_classes}) or one of {label_names}. Received: {label!r}"
        )

    several = isinstance(labels, (list, tuple, np.ndarray))
    indices = [index(label) for label in (labels if several else [labels])]
    if several and len(indices) != len(numbers):
        raise ValueError(f"Expected {len(numbers)} labels. Received: {len(indices)}")
    return np.broadcast_to(np.array(indices, "int32"), len(numbers))


def level_settings(levels, settings, *arguments):
    """How each level's codes are drawn: the settings, with what the arguments say in their place.

    Args:
        levels: The levels, in any order.
        settings: Dict from level to a dict of `temperature`, `top_k` and `top_p`.
        *arguments: None, or a number, or a dict from level to one, for each of the three in turn.

    Returns:
        Dict from level to the keywords of `PixelSnailPrior.generate`.

    Raises:
        ValueError: If a level, a setting or a number is not as expected.
    """
    names = ("temperature", "top_k", "top_p")
    result = {level: dict(settings[level]) for level in levels}
    for name, value in zip(names, arguments):
        values = value if isinstance(value, dict) else dict.fromkeys(levels, value)
        if set(values) - set(levels):
            raise ValueError(f"Expected the levels {tuple(levels)}. Received: {name}={value}")
        for level, number in values.items():
            if number is not None:
                result[level][name] = number
    for level, keywords in result.items():
        if set(keywords) - set(names):
            raise ValueError(
                "Expected settings temperature, top_k and top_p. Received: "
                f"settings[{level!r}]={keywords}"
            )
        Sampling(**keywords)
    return result
