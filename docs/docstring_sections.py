"""How mkdocs.yml reads the docstrings' sections."""

import re
import textwrap

import griffe

PROSE = re.compile(
    r"^(Returns|Yields|Reference|Example):\n((?:(?: {4}.*)?(?:\n|\Z))+)", re.MULTILINE
)


class Sections(griffe.Extension):
    """Call arguments are a second list of parameters; what has no names is prose with a heading."""

    def on_instance(self, *, obj, **kwargs):
        if obj.docstring:
            text = obj.docstring.value
            text = text.replace("\nCall arguments:\n", "\nArgs: Call arguments:\n")
            obj.docstring.value = PROSE.sub(_prose, text)


def _prose(match):
    return f"**{match[1]}:**\n\n{textwrap.dedent(match[2])}"
