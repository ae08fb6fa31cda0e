"""How mkdocs.yml makes pages of docs/tutorials/*.py: it runs them, each in a kernel of its own.

A file becomes Markdown, not HTML: its prose goes through the theme, and its links are checked, like
those of any other page. `mkdocs serve` shows the code without running it.
"""

import base64
import logging
import os
import re
import tempfile
import time

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

log = logging.getLogger("mkdocs.hooks.tutorials")
SECONDS_A_CELL = 900
TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*m")
LOG_LINES = re.compile(r"^\w+:tensorflow:.*\n", re.MULTILINE)  # in a kernel they go to stdout
running = True


class TutorialFile(File):
    """A Python file that is a page; links to the file lead to the page."""

    def is_documentation_page(self):
        return True


def on_startup(command, dirty):
    global running
    running = command != "serve"


def on_files(files, config):
    for file in [f for f in files if re.fullmatch(r"tutorials/\w+\.py", f.src_uri)]:
        text, pictures = page(file.abs_src_path, file.name, running)
        files.remove(file)
        files.append(TutorialFile.generated(config, file.src_uri, content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"tutorials/{name}", content=content))
    return files


def page(path, name, run=True):
    """Makes a page of a tutorial.

    Args:
        path: The Python file, cells separated by `# %%`.
        name: Folder of the page's pictures.
        run: Whether to run it, in an empty folder; else there are no outputs.

    Returns:
        A tuple: the page's Markdown, and a dict from a picture's path to its bytes.

    Raises:
        PluginError: If a cell raises.
    """
    import jupytext

    notebook = jupytext.read(path)
    note = "Not run: `make docs` shows what it prints and draws."
    if run:
        log.info(f"Running {path}")
        started = time.time()
        execute(notebook, path)
        note = (
            f"Run by `make docs` in {time.time() - started:.0f} seconds, on {os.cpu_count()} CPU "
            f"cores with KERAS_BACKEND={os.environ.get('KERAS_BACKEND', 'tensorflow')}."
        )
    parts, pictures = [], {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif cell.source:
            parts.append(f"```python\n{cell.source}\n```")
            parts += output_parts(cell.outputs, name, pictures)
    parts.append(f"---\n\n`docs/tutorials/{name}.py`. {note}")
    return "\n\n".join(parts) + "\n", pictures


def execute(notebook, path):
    import nbclient

    with tempfile.TemporaryDirectory() as folder:
        client = nbclient.NotebookClient(
            notebook,
            timeout=SECONDS_A_CELL,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            extra_arguments=["--InlineBackend.figure_formats={'retina'}"],
        )
        inline = "module://matplotlib_inline.backend_inline"
        try:
            client.execute(env={**os.environ, "MPLBACKEND": inline})
        except nbclient.exceptions.CellExecutionError as error:
            raise PluginError(f"{path}: {TERMINAL_CODES.sub('', str(error))}") from error


def output_parts(outputs, name, pictures):
    """Markdown of what a cell printed (stderr, with its progress bars, is left out) and drew."""
    parts, text = [], ""
    for output in outputs:
        data = output.get("data", {})
        if output.output_type == "stream":
            text += output.text if output.name == "stdout" else ""
        elif "image/png" not in data:
            text += data.get("text/plain", "") + "\n"
        else:
            parts, text = parts + text_block(text), ""
            number = len(pictures) + 1
            picture = f"{name}/picture-{number}.png"
            pictures[picture] = base64.b64decode(data["image/png"])
            width = output.metadata["image/png"]["width"]
            parts.append(f"![Picture {number}]({picture}){{ width={width} }}")
    return parts + text_block(text)


def text_block(text):
    # A line that was written over shows its last state.
    text = LOG_LINES.sub("", TERMINAL_CODES.sub("", text))
    lines = [line.rstrip("\r").split("\r")[-1] for line in text.split("\n")]
    text = "\n".join(lines).strip("\n")
    return [f"``` {{ .text .output .no-copy }}\n{text}\n```"] if text.strip() else []
