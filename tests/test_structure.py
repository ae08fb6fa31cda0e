"""Who imports whom, as docs/design.md draws it, and how many bases stand before keras.Model."""

import ast
import functools
import re
from pathlib import Path
from typing import NamedTuple

import keras
import pytest

import keras_vqvae2

PACKAGE = Path(keras_vqvae2.__file__).parent
DESIGN = PACKAGE.parent / "docs" / "design.md"
FRAMEWORKS = {"tensorflow", "jax", "torch", "tensorflow_datasets", "grain", "keras_cv"}


class Import(NamedTuple):
    module: str  # such as "models/code_prior.py"
    target: str  # such as "keras_vqvae2.backend"
    late: bool  # inside of a function
    for_types: bool  # under TYPE_CHECKING


def imports_in(tree, module):
    """Every import of a file, those in functions and under TYPE_CHECKING too."""

    def visit(node, late, for_types):
        late = late or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if isinstance(node, ast.If):
            for_types = for_types or "TYPE_CHECKING" in ast.unparse(node.test)
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, late, for_types)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import"
            for alias in node.names:
                yield Import(module, f"{node.module}.{alias.name}", late, for_types)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, late, for_types)

    return visit(tree, False, False)


@functools.cache
def imports():
    return [
        found
        for path in sorted(PACKAGE.rglob("*.py"))
        for found in imports_in(ast.parse(path.read_text()), path.relative_to(PACKAGE).as_posix())
    ]


def room(module):
    """A module's folder, or the module itself where it lies in the package's own."""
    return module.split("/")[0].removesuffix(".py")


def room_imports():
    """Dict from room to the rooms that it imports; the package's `__init__` is none."""
    found = {}
    for module, target, *_ in imports():
        names = target.split(".")
        own = names[0] == "keras_vqvae2" and module != "__init__.py"
        if own and names[1] != room(module):
            found.setdefault(room(module), set()).add(names[1])
    return found


def circle(graph):
    """Names that import each other in turn, or None."""
    done = set()

    def visit(name, path):
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            for target in sorted(graph.get(name, ())):
                found = visit(target, [*path, name])
                if found:
                    return found
            done.add(name)

    return next(filter(None, (visit(name, []) for name in sorted(graph))), None)


def drawn_arrows():
    """Those of the block below "## Imports" in docs/design.md, and the modules it leaves out."""
    section = DESIGN.read_text().split("\n## Imports\n")[1].split("\n## ")[0]
    block = re.search(r"```mermaid\n(.*?)```", section, re.DOTALL)[1]
    arrows = {}
    for source, targets in re.findall(r"^ *(\w+) --> ([\w& ]+)$", block, re.MULTILINE):
        arrows.setdefault(source, set()).update(targets.split(" & "))
    (sentence,) = re.findall(r"^Not drawn: (.*?)\.$", section, re.MULTILINE | re.DOTALL)
    return arrows, set(re.findall(r"`(\w+)`", sentence))


def test_rooms_do_not_import_each_other_in_a_circle():
    assert circle(room_imports()) is None


def test_nothing_is_imported_for_type_checkers_alone():
    assert [found for found in imports() if found.for_types] == []


def test_frameworks_are_named_in_backend_and_late_where_data_is_read():
    outside = {
        (found.module, found.target.split(".")[0], found.late)
        for found in imports()
        if found.target.split(".")[0] in FRAMEWORKS and room(found.module) != "backend"
    }
    assert outside == {
        ("data/optional_imports.py", "tensorflow", True),
        ("data/optional_imports.py", "tensorflow_datasets", True),
        ("data/optional_imports.py", "grain", True),
        ("codes/codes_from_tfds.py", "tensorflow_datasets", True),
        ("codes/encode_dataset.py", "tensorflow_datasets", True),
        ("evaluation/classifier_protocol.py", "keras_cv", True),
    }


def test_arrows_are_those_of_the_design():
    arrows, not_drawn = drawn_arrows()
    rooms = room_imports()
    assert not_drawn <= {path.stem for path in PACKAGE.glob("*.py")}
    drawn = {
        name: targets - not_drawn
        for name, targets in rooms.items()
        if name not in not_drawn and targets - not_drawn
    }
    assert drawn == arrows
    # What is not drawn hides no arrow: it leads to nothing that is.
    assert not set().union(*(rooms.get(name, set()) for name in not_drawn)) - not_drawn


@pytest.mark.parametrize(
    "model, bases",
    [
        (keras_vqvae2.VQVAE2, ["PresetModel", "GuardedModel"]),
        (keras_vqvae2.VQGAN, ["VQVAE2", "PresetModel", "GuardedModel"]),
        (
            keras_vqvae2.PixelSnailPrior,
            ["AutoregressivePrior", "CodePrior", "PresetModel", "GuardedModel"],
        ),
    ],
)
def test_bases_before_keras_model(model, bases):
    before = model.__mro__[1 : model.__mro__.index(keras.Model)]
    own = [base.__name__ for base in before if base.__module__.startswith("keras_vqvae2.")]
    assert own == bases


def test_what_would_be_wrong_is_found():
    source = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from keras_vqvae2.models.code_prior import CodePrior
class A:
    async def read(self):
        import torch.nn
"""
    found = list(imports_in(ast.parse(source), "data/a.py"))[1:]
    assert found == [
        Import("data/a.py", "keras_vqvae2.models.code_prior.CodePrior", False, True),
        Import("data/a.py", "torch.nn", True, False),
    ]
    assert circle({"a": {"b"}, "b": {"c", "d"}, "d": {"b"}}) == ["b", "d", "b"]
