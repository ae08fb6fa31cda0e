"""Names of version 0.1 that have moved: they work, with a warning, until version 0.3."""

import pkgutil
import sys
import warnings

_MOVED = {
    "DataParallel": "Replicas",
    "data.codes_from_tfds": "codes.codes_from_tfds",
    "data.encode_dataset": "codes.encode_dataset",
    "metrics.ClassifierProtocol": "evaluation.ClassifierProtocol",
    "metrics.LPIPSDistance": "losses.LPIPSDistance",
    "metrics.classification_accuracy_score": "evaluation.classification_accuracy_score",
    "metrics.evaluate_likelihood": "evaluation.evaluate_likelihood",
    "metrics.evaluate_reconstructions": "evaluation.evaluate_reconstructions",
    "metrics.position_nats": "evaluation.position_nats",
    "metrics.resnet50_imagenet_protocol": "evaluation.resnet50_imagenet_protocol",
}


def serve(package: str) -> None:
    """Lets the modules of the package answer to the names that they no longer hold."""
    for module in {old.rpartition(".")[0] for old in _MOVED}:
        name = f"{package}.{module}".rstrip(".")
        sys.modules[name].__getattr__ = _getter(package, module)  # type: ignore[method-assign]


def _getter(package, module):
    def get(name):
        new = _MOVED.get(f"{module}.{name}".lstrip("."))
        if new is None:
            raise AttributeError(f"module {f'{package}.{module}'.rstrip('.')!r} has no {name!r}")
        warnings.warn(
            f"{package}.{module}.{name} is {package}.{new} now".replace("..", "."),
            DeprecationWarning,
            stacklevel=2,
        )
        return pkgutil.resolve_name(f"{package}:{new}")

    return get
