"""Every public function, method and property says what it takes and what it returns."""

import functools
import inspect

import keras_vqvae2


def functions_of(cls):
    """Pairs of name and function: the class' public methods and properties, inherited ones too."""
    for base in cls.__mro__:
        if not base.__module__.startswith("keras_vqvae2."):
            continue
        for name, member in vars(base).items():
            if name.startswith("_") and name not in ("__init__", "__call__"):
                continue
            # Of static and class methods, properties, and cached ones.
            parts = ("__func__", "fget", "func")
            function = next((getattr(member, p) for p in parts if hasattr(member, p)), member)
            if inspect.isfunction(function):
                yield f"{base.__name__}.{name}", function


def public_functions():
    """Dict from name to function: what the package and its public modules list, and its methods."""
    found = {}
    modules = [m for _, m in inspect.getmembers(keras_vqvae2, inspect.ismodule)]
    for module in (keras_vqvae2, *modules):
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if inspect.isclass(value):
                found.update(functions_of(value))
            elif inspect.isfunction(value):
                found[name] = value
    return found


def missing_annotations(function):
    """Names of the parameters, and `return`, that have no annotation."""
    signature = inspect.signature(function)
    bare = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.annotation is parameter.empty and name not in ("self", "cls")
    ]
    return bare + ["return"] * (signature.return_annotation is signature.empty)


def test_public_functions_are_annotated():
    missing = {name: missing_annotations(f) for name, f in public_functions().items()}
    assert {name: names for name, names in missing.items() if names} == {}


def test_all_kinds_of_functions_are_looked_at():
    assert {
        "rejection_sample",
        "VQVAE2.__init__",
        "VQVAE2.encoder",
        "GuardedModel.train_step",
        "CodePrior.code_inputs",
        "PresetModel.from_preset",
        "RejectionResult.acceptance_rate",
        "LPIPSDistance.__call__",
        "Quantizer.lookup",
    } <= set(public_functions())


def test_what_is_not_annotated_is_found():
    class Example:
        @functools.cached_property
        def size(self):
            return 1

        def scale(self, x: int, by=2, **kwargs) -> int:
            return x * by

    Example.__module__ = "keras_vqvae2.example"
    missing = [missing_annotations(function) for _, function in functions_of(Example)]
    assert missing == [["return"], ["by", "kwargs"]]
