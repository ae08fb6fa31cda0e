"""Every Python block of README, docs/ and the package's docstrings runs as it stands."""

import importlib
import inspect
import pkgutil
import re
import textwrap
from pathlib import Path

import pytest

import keras_vqvae2

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def blocks(text):
    return [textwrap.dedent(match.group(2)) for match in BLOCK.finditer(text)]


def docstrings():
    """Pairs of a public object's name and its docstring, over the whole package."""
    for module_info in pkgutil.walk_packages(keras_vqvae2.__path__, "keras_vqvae2."):
        if module_info.name.startswith("keras_vqvae2.backend"):
            continue
        module = importlib.import_module(module_info.name)
        for name, value in vars(module).items():
            if getattr(value, "__module__", None) == module.__name__:
                text = inspect.getdoc(value)
                if text and "```python" in text:
                    yield f"{module.__name__}.{name}", text


@pytest.mark.parametrize("name, text", [pytest.param(*pair, id=pair[0]) for pair in docstrings()])
def test_docstring_examples_run(name, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in blocks(text):
        exec(compile(block, name, "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_pages_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}  # the blocks of a page go on from each other
    for block in blocks(page.read_text()):
        exec(compile(block, page.name, "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_pictures_are_there(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_public_classes_have_an_example():
    spaces = ("layers", "metrics", "callbacks", "features")
    for namespace in (getattr(keras_vqvae2, name) for name in spaces):
        for name in namespace.__all__:
            assert "```python" in inspect.getdoc(getattr(namespace, name)), name
    assert "```python" in inspect.getdoc(keras_vqvae2.VQVAE2)
