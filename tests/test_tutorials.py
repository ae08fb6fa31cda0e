"""Every tutorial runs as a script, in its shortest form, and becomes a page of the site."""

import importlib.util
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from unittest import mock

import keras
import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))
OWN_PROCESS = "scale_and_mixed_precision"  # sets the number of devices of a process


@pytest.mark.filterwarnings("ignore:The Fréchet distance of features of width")  # of 8 images
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_runs(path, tmp_path, monkeypatch, capsys):
    backend = keras.backend.backend()
    settings = {"KERAS_BACKEND": backend, "KERAS_VQVAE2_QUICK": "1", "MPLBACKEND": "Agg"}
    if path.stem == OWN_PROCESS:
        process = subprocess.run(
            [sys.executable, path],
            cwd=tmp_path,
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert process.returncode == 0, process.stderr[-3000:]
        printed = process.stdout
    else:
        monkeypatch.chdir(tmp_path)
        with mock.patch.dict(os.environ, settings):
            runpy.run_path(str(path), run_name="__main__")
        plt.close("all")
        printed = capsys.readouterr().out
    assert printed
    # What a tutorial says is equal.
    for difference in re.findall(r"largest difference.*: (\S+)$", printed, re.MULTILINE):
        assert float(difference) < 1e-4, printed


def test_tutorials_are_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    listed = re.findall(r"^ +- .+: (tutorials/\S+\.py)$", navigation, re.MULTILINE)
    assert sorted(listed) == [f"tutorials/{path.name}" for path in TUTORIALS]
    assert len(listed) == 5


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_links_lead_to_files(path):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text())
    for target in links:
        assert (path.parent / target).exists(), target
    assert links


@pytest.fixture
def pages():
    """The hook of mkdocs that makes pages of tutorials."""
    for package in ("mkdocs", "nbclient", "jupytext", "ipykernel"):
        pytest.importorskip(package, reason="made by `make docs`, which installs it")
    path = ROOT / "docs" / "tutorial_pages.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TUTORIAL = """# %% [markdown]
# # Title
# Prose.

# %%
import sys

import matplotlib.pyplot as plt

print("1 of 2", end="\\r")
print("2 of 2")
print("not shown", file=sys.stderr)
print("WARNING:tensorflow:not shown")
plt.plot([1, 2])
plt.show()
print("after")
"""


def test_a_page_holds_what_the_code_printed_and_drew(pages, tmp_path):
    path = tmp_path / "tutorial.py"
    path.write_text(TUTORIAL)
    text, pictures = pages.page(path, "tutorial")
    assert text.startswith("# Title\nProse.\n\n```python\nimport sys")
    first, picture, second, _ = text.split("```\n\n", 1)[1].split("\n\n", 3)
    assert "\n2 of 2\n" in first and "\nafter\n" in second
    assert "not shown" not in text.split("```\n\n", 1)[1]
    assert re.fullmatch(r"!\[Picture 1\]\(tutorial/picture-1.png\){ width=\d+ }", picture)
    assert pictures["tutorial/picture-1.png"].startswith(b"\x89PNG")
    assert pages.page(path, "tutorial", run=False)[1] == {}


def test_a_cell_that_raises_fails_the_build(pages, tmp_path):
    path = tmp_path / "tutorial.py"
    path.write_text("# %%\nraise ValueError('Expected better')\n")
    with pytest.raises(pages.PluginError, match="Expected better"):
        pages.page(path, "tutorial")
