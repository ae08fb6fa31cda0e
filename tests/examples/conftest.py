import contextlib
import importlib.util
import runpy
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from absl import app, flags

EXAMPLES = Path(__file__).parents[2] / "examples"
# absl tells modules apart by their `id`, so none may be collected whose number another could get.
_KEPT = []


class Done(NamedTuple):
    """What a script left: exit code, what it printed, and the flags that it has."""

    code: int
    out: str
    err: str
    flags: dict


@contextlib.contextmanager
def _own_flags():
    """Takes away flags and helper modules of a script, so that the next one defines its own."""
    app.define_help_flags()
    flags_before, modules_before = set(flags.FLAGS), set(sys.modules)
    defined = {}
    try:
        yield defined
    finally:
        helpers = {
            name
            for name in set(sys.modules) - modules_before
            if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == EXAMPLES
        }
        for name in set(flags.FLAGS) - flags_before:
            owner = flags.FLAGS.find_module_defining_flag(name)
            if owner in sys.modules and owner not in helpers:
                continue  # a library's, which stays imported
            defined[name] = flags.FLAGS[name]
            delattr(flags.FLAGS, name)
        _KEPT.extend(sys.modules.pop(name) for name in helpers)


@pytest.fixture
def call(monkeypatch, capsys):
    """`call(script, *flags)`: a script run in this process, which has imported Keras already."""
    monkeypatch.syspath_prepend(EXAMPLES)

    def run(script, *arguments):
        path = str(script if isinstance(script, Path) else EXAMPLES / f"{script}.py")
        monkeypatch.setattr(sys, "argv", [path, *map(str, arguments)])
        capsys.readouterr()
        with _own_flags() as defined, pytest.raises(SystemExit) as exit:
            runpy.run_path(path, run_name="__main__")
        code = exit.value.code or 0
        printed = capsys.readouterr()
        error = printed.err
        if isinstance(code, str):  # which Python prints when it ends
            code, error = 1, f"{error}{code}\n"
        return Done(code, printed.out, error, defined)

    return run


@pytest.fixture
def load(monkeypatch):
    """`load(script)`: the module of a script, with its flags, which `FLAGS(arguments)` parses."""
    monkeypatch.syspath_prepend(EXAMPLES)
    with _own_flags():

        def module(script):
            spec = importlib.util.spec_from_file_location(script, EXAMPLES / f"{script}.py")
            module = importlib.util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, script, module)
            spec.loader.exec_module(module)
            return module

        yield module
