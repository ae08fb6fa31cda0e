"""Scripts and recipes take from the package what is public and nothing else."""

import ast
from pathlib import Path
from types import ModuleType

import pytest

import keras_vqvae2

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.py"))


def private_names(source):
    """Names of the package that a source takes and that no `__all__` lists."""
    tree, found, aliases = ast.parse(source), [], {"keras_vqvae2": "keras_vqvae2"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] == "keras_vqvae2"]
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "keras_vqvae2":
            for alias in node.names:
                found.append(f"{node.module}.{alias.name}")
                aliases[alias.asname or alias.name] = found[-1]
    for node in ast.walk(tree):
        chain = []
        while isinstance(node, ast.Attribute):
            chain.insert(0, node.attr)
            node = node.value
        if chain and isinstance(node, ast.Name) and node.id in aliases:
            found.append(".".join([aliases[node.id], *chain]))
    return {name for name in found if not is_public(name)}


def is_public(name):
    value = keras_vqvae2
    for part in name.split(".")[1:]:
        if not isinstance(value, ModuleType):  # methods of a public class
            return not part.startswith("_")
        if part not in value.__all__:
            return False
        value = getattr(value, part)
    return True


@pytest.mark.parametrize("file", FILES)
def test_scripts_take_public_names_only(file):
    assert private_names((EXAMPLES / file).read_text()) == set()


def test_private_names_are_found():
    source = """
import keras_vqvae2.validation
from keras_vqvae2 import evaluation as measures
from keras_vqvae2.plots import save_curves, np
from keras_vqvae2.data.image_folder import decode
keras_vqvae2.models.vqvae2.VQVAE2
keras_vqvae2.VQVAE2.from_preset("x").encode
measures.likelihood.position_nats
measures.position_nats
"""
    assert private_names(source) == {
        "keras_vqvae2.validation",
        "keras_vqvae2.plots.np",
        "keras_vqvae2.data.image_folder.decode",
        "keras_vqvae2.models.vqvae2.VQVAE2",
        "keras_vqvae2.models.vqvae2",
        "keras_vqvae2.models",
        "keras_vqvae2.evaluation.likelihood.position_nats",
        "keras_vqvae2.evaluation.likelihood",
    }
