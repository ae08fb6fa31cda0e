"""Which folder imports which: no circles, and the arrows that docs/design.md draws."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import keras

from keras_vqvae2 import VQVAE2

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "keras_vqvae2"
FILES = sorted(PACKAGE.rglob("*.py"))
SHARED = {"files", "hints", "image_batches", "moved_names", "plain_pickle", "plots", "validation"}
SHARED |= {"version"}
FRAMEWORKS = {"tensorflow", "jax", "torch"}


def imports(path):
    """Pairs of an import statement and the modules that it names, at any depth of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield node, [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield node, names if node.module == "keras_vqvae2" else [node.module]


def room(path):
    """The folder of a file, or its own name at the top of the package."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def arrows(shared=False):
    """Dict from a room to those that it imports."""
    found = defaultdict(set)
    for path in FILES:
        if path == PACKAGE / "__init__.py":
            continue
        for _, modules in imports(path):
            inside = [m.split(".")[1] for m in modules if m.startswith("keras_vqvae2.")]
            found[room(path)] |= {name for name in inside if name != room(path)}
    if shared:
        return found
    return {a: b - SHARED for a, b in found.items() if a not in SHARED and b - SHARED}


def test_no_folder_is_imported_by_what_it_imports():
    graph, finished = arrows(shared=True), set()

    def visit(name, path):
        assert name not in path, " -> ".join([*path, name])
        if name not in finished:
            for other in graph.get(name, ()):
                visit(other, [*path, name])
            finished.add(name)

    for name in list(graph):
        visit(name, [])


def test_the_arrows_are_those_of_the_design():
    page = (ROOT / "docs" / "design.md").read_text()
    [drawn] = [b for b in re.findall(r"```mermaid\n(.*?)```", page, re.S) if "backend" in b][:1]
    pairs = re.findall(r"(\w+) --> (\w+)", drawn)
    assert set(pairs) == {(a, b) for a, others in arrows().items() for b in others}


def test_nothing_is_imported_for_type_checkers_alone():
    assert [path for path in FILES if "TYPE_CHECKING" in path.read_text()] == []


def test_frameworks_are_named_in_one_folder_and_for_tf_data():
    named = defaultdict(set)
    for path in FILES:
        for node, modules in imports(path):
            for framework in {m.split(".")[0] for m in modules} & FRAMEWORKS:
                late = node.col_offset > 0
                named[room(path)].add((path.name, framework, late))
    assert set(named) == {"backend", "data"}
    assert named["data"] == {("optional_imports.py", "tensorflow", True)}


def test_a_model_has_few_bases():
    own = [c.__name__ for c in VQVAE2.__mro__ if c.__module__.startswith("keras_vqvae2")]
    assert own == ["VQVAE2", "PresetModel", "GuardedModel"]
    assert issubclass(VQVAE2, keras.Model)
