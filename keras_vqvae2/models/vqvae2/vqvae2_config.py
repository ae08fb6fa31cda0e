"""The quantizers and losses of a `VQVAE2`: from arguments to objects, from configs old and new."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_vqvae2.hints import Config, Loss, PerLevel, Shape
from keras_vqvae2.layers import Quantizer, VectorQuantizer, VectorQuantizerEMA
from keras_vqvae2.losses import LPIPSDistance, ReconstructionLoss, SquaredError

OF_QUANTIZER = ("commitment_cost", "decay", "restart_threshold", "gradient")  # in version 0.1
OF_LOSSES = ("perceptual_weight", "perceptual_network")


def refuse_moved_arguments(arguments: Mapping[str, Any]) -> None:
    """Raises `TypeError` for arguments of version 0.1 that say where they are now."""
    moved = {
        "quantizer=VectorQuantizerEMA(512, 64, ...)": OF_QUANTIZER,
        'reconstruction_losses={"lpips": (LPIPSDistance("alexnet"), 0.1), ...}': OF_LOSSES,
    }
    for place, names in moved.items():
        given = [name for name in names if name in arguments]
        if given:
            raise TypeError(f"Expected {', '.join(given)} in {place}. Received: {given[0]}=...")


def quantizers_of_levels(
    quantizer: PerLevel[Quantizer] | None,
    levels: Sequence[str],
    num_embeddings: int | None,
    embedding_dim: int | None,
    dtype: keras.DTypePolicy,
) -> dict[str, Quantizer]:
    """A quantizer for each level, new ones made from the configs of those that are given."""
    if quantizer is None:
        quantizer = VectorQuantizerEMA(
            512 if num_embeddings is None else num_embeddings,
            64 if embedding_dim is None else embedding_dim,
        )
    elif num_embeddings is not None or embedding_dim is not None:
        raise ValueError(
            "Expected num_embeddings and embedding_dim only without a quantizer, which has its "
            f"own. Received: num_embeddings={num_embeddings}, embedding_dim={embedding_dim}, "
            f"quantizer={quantizer}"
        )
    given = quantizer if isinstance(quantizer, Mapping) else dict.fromkeys(levels, quantizer)
    if set(given) != set(levels) or not all(isinstance(q, Quantizer) for q in given.values()):
        raise ValueError(
            "Expected a keras_vqvae2.layers.Quantizer, such as VectorQuantizerEMA(512, 64), or a "
            f"dict with one for each of the levels {tuple(levels)}. Received: quantizer={quantizer}"
        )
    return {
        level: type(given[level]).from_config(
            {**given[level].get_config(), "name": f"quantizer_{level}", "dtype": dtype}
        )
        for level in levels
    }


def checked_losses(
    losses: Mapping[str, tuple[Loss, float]] | None, data_variance: float | None, shape: Shape
) -> dict[str, tuple[Loss, float]]:
    """The reconstruction losses, or the default, for images of a shape `(None, H, W, C)`."""
    variance = 1.0 if data_variance is None else data_variance
    if not variance > 0:
        raise ValueError(f"Expected a positive number. Received: data_variance={data_variance}")
    if losses is None:
        return {"squared_error": (SquaredError(), 1.0 / variance)}
    if data_variance is not None:
        raise ValueError(
            "Expected no data_variance beside reconstruction_losses, which have their weights. "
            f"Received: data_variance={data_variance}"
        )
    checked: dict[str, tuple[Loss, float]] = {}
    for name, pair in losses.items():
        fits = isinstance(pair, (tuple, list)) and len(pair) == 2 and callable(pair[0])
        if not fits or not pair[1] > 0:
            raise ValueError(
                "Expected a dict from name to (function, positive weight). "
                f"Received: reconstruction_losses[{name!r}]={pair!r}"
            )
        loss, weight = pair
        if isinstance(loss, ReconstructionLoss):
            loss.check_shape(shape)
        checked[name] = loss, float(weight)
    if not checked:
        raise ValueError("Expected at least one loss. Received: reconstruction_losses={}")
    return checked


def read_config(config: Config) -> Config:
    """The constructor's arguments from a config, today's or one of version 0.1."""
    config = _from_version_0_1(config) if "commitment_cost" in config else dict(config)
    read = keras.saving.deserialize_keras_object
    quantizer, losses = config.get("quantizer"), config.get("reconstruction_losses")
    if isinstance(quantizer, dict):
        whole = "class_name" in quantizer
        config["quantizer"] = (
            read(quantizer) if whole else {level: read(value) for level, value in quantizer.items()}
        )
    if losses is not None:
        config["reconstruction_losses"] = {
            name: (read(loss) if isinstance(loss, dict) else loss, weight)
            for name, (loss, weight) in losses.items()
        }
    return config


def _from_version_0_1(config):
    """Before 0.2 one quantizer's arguments and one perceptual loss were those of the model."""
    config = dict(config)
    names = ("num_embeddings", "embedding_dim", *OF_QUANTIZER)
    arguments: dict[str, Any] = {"num_embeddings": 512, "embedding_dim": 64}
    arguments |= {name: config.pop(name) for name in names if name in config}
    kinds = {"ema": VectorQuantizerEMA, "loss": VectorQuantizer}
    if config.setdefault("quantizer", "ema") in kinds:  # not one that takes its place
        config["quantizer"] = kinds[config["quantizer"]](**arguments)
    weight, network = config.pop("perceptual_weight", 0.0), config.pop("perceptual_network", None)
    losses = {"squared_error": (SquaredError(), 1.0 / config.pop("data_variance", 1.0))}
    if weight:
        losses["lpips"] = (LPIPSDistance(network or "alexnet"), weight)
    return {"reconstruction_losses": losses, **config}
