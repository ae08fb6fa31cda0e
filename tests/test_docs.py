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
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TARGET = re.compile(r"(?:\]\(|^\[[^\]]+\]: )([^)#\s]+)", re.MULTILINE)
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


RUN = [page for page in PAGES if blocks(page.read_text())]


@pytest.mark.parametrize("page", RUN, ids=lambda p: str(p.relative_to(ROOT)))
def test_pages_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}  # the blocks of a page go on from each other
    for block in blocks(page.read_text()):
        exec(compile(block, page.name, "exec"), names)


def test_links_and_pictures_are_there():
    targets = [
        page.parent / target
        for page in PAGES
        for target in re.findall(
            r"(?:\]\(|^\[[^\]]+\]: )([^)#\s]+)", page.read_text(), re.MULTILINE
        )
        if "://" not in target
    ]
    assert len(targets) > 100
    assert [target for target in targets if not target.exists()] == []


def test_references_are_defined():
    undefined = []
    for page in PAGES:
        text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
        used = re.findall(r"\]\[([^\]]+)\]|\[([^\[\]]+)\]\[\]", text)
        defined = set(re.findall(r"^\[([^\]]+)\]: ", text, re.MULTILINE))
        undefined += [(page.name, a or b) for a, b in used if (a or b) not in defined]
    assert undefined == []


def test_own_parts_take_forty_lines():
    pages = sorted((ROOT / "docs" / "add_your_own").glob("*.md"))
    assert [page.stem for page in pages] == ["loss", "prior", "quantizer"]
    for page in pages:
        lines = "".join(blocks(page.read_text())).splitlines()
        assert 10 < sum(bool(line.strip()) for line in lines) <= 40, page


def test_public_classes_have_an_example():
    spaces = ("layers", "metrics", "callbacks", "features")
    for namespace in (getattr(keras_vqvae2, name) for name in spaces):
        for name in namespace.__all__:
            assert "```python" in inspect.getdoc(getattr(namespace, name)), name
    assert "```python" in inspect.getdoc(keras_vqvae2.VQVAE2)
