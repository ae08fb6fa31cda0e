"""Reading pickles of plain values: nothing that a file names is called, hashed or written to.

`pickle.Unpickler` lets a file build tuples that take hours to hash, set attributes of what it is
allowed to name, and fill whatever it has made. This reader knows the instructions that numbers,
strings and containers need, and no others. Names stay names until they are called, and are then
looked up among those that the caller admits.
"""

import pickletools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO, NamedTuple

MAX_INSTRUCTIONS = 2_000_000  # a second or two a million; a tensor takes 40
# Instructions that give a value as it stands, and those that say nothing.
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_SILENT = {"PROTO", "FRAME", "STOP"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class Name(NamedTuple):
    """A name in the file, of which nothing is imported."""

    module: str
    name: str


class Stateful:
    """What a pickle may give a state. Its attributes are no business of the file."""

    __slots__ = ("state",)

    def __init__(self, *_: Any) -> None:
        self.state: Any = None


class PlainUnpickler:
    """Reads the pickles of one file.

    Args:
        admitted: Dict from `(module, name)` to the function that is called in its place, or to a
            string that stands in its place.
        persistent_load: None, or a function of the identity of an object outside the pickle.
    """

    def __init__(
        self,
        admitted: Mapping[tuple[str, str], Callable[..., Any] | str],
        persistent_load: Callable[[Any], Any] | None = None,
    ) -> None:
        self.admitted = admitted
        self.persistent_load = persistent_load
        self._left = MAX_INSTRUCTIONS

    def load(self, file: BinaryIO) -> Any:
        """Reads one pickle. Raises `ValueError` or, if it is damaged, an error of any kind."""
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        for instruction, argument, _ in pickletools.genops(file):
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"more than {MAX_INSTRUCTIONS:,} instructions")
            name = instruction.name
            if name in _VALUES:
                self._stack.append(argument)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name])
            elif name not in _SILENT:
                run = getattr(self, f"_run_{name.lower()}", None)
                if run is None:
                    raise ValueError(f"the instruction {name}")
                run(argument)
        (value,) = self._stack
        return value

    # === Instructions ===

    def _run_mark(self, _):
        self._marks.append(len(self._stack))

    def _since_mark(self):
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _take(self, count):
        items = self._stack[-count:]
        if len(items) != count:
            raise ValueError("too few values")
        del self._stack[-count:]
        return items

    def _run_binput(self, index):
        self._memo[index] = self._stack[-1]

    _run_long_binput = _run_binput

    def _run_memoize(self, _):
        self._memo[len(self._memo)] = self._stack[-1]

    def _run_binget(self, index):
        self._stack.append(self._memo[index])

    _run_long_binget = _run_binget

    def _run_empty_dict(self, _):
        self._stack.append({})

    def _run_empty_list(self, _):
        self._stack.append([])

    def _run_tuple(self, _):
        self._stack.append(tuple(self._since_mark()))

    def _run_tuple1(self, _):
        self._stack.append(tuple(self._take(1)))

    def _run_tuple2(self, _):
        self._stack.append(tuple(self._take(2)))

    def _run_tuple3(self, _):
        self._stack.append(tuple(self._take(3)))

    def _extend(self, items):
        if type(self._stack[-1]) is not list:
            raise ValueError("items for what is no list")
        self._stack[-1].extend(items)

    def _run_append(self, _):
        self._extend(self._take(1))

    def _run_appends(self, _):
        self._extend(self._since_mark())

    def _update(self, items):
        if type(self._stack[-1]) is not dict or len(items) % 2:
            raise ValueError("entries for what is no dict")
        self._stack[-1].update(plain_dict(zip(items[::2], items[1::2])))

    def _run_setitem(self, _):
        self._update(self._take(2))

    def _run_setitems(self, _):
        self._update(self._since_mark())

    def _run_global(self, argument):
        self._push_name(*argument.split(" ", 1))

    def _run_stack_global(self, _):
        self._push_name(*self._take(2))

    def _push_name(self, module, name):
        if (module, name) not in self.admitted:
            raise ValueError(f"the file names {module}.{name}")
        label = self.admitted[module, name]
        self._stack.append(label if isinstance(label, str) else Name(module, name))

    def _run_reduce(self, _):
        name, arguments = self._take(2)
        if type(name) is not Name or type(arguments) is not tuple:
            raise ValueError("a call of what is no name")
        self._stack.append(self.admitted[name](*arguments))

    _run_newobj = _run_reduce

    def _run_build(self, _):
        (state,) = self._take(1)
        target = self._stack[-1]
        if isinstance(target, Stateful):
            target.state = state
        elif type(target) is not dict:  # that of a dict is what hangs on an OrderedDict
            raise ValueError("a state for what has none")

    def _run_binpersid(self, _):
        (identity,) = self._take(1)
        if self.persistent_load is None:
            raise ValueError("an object outside the pickle")
        self._stack.append(self.persistent_load(identity))


def plain_dict(items: Iterable[Any] = ()) -> dict[Any, Any]:
    """A dict of pairs whose keys are strings, bytes, None or small integers.

    Tuples may take for ever to hash, and large integers may all have one hash.
    """
    pairs = [(key, value) for key, value in items]
    for key, _ in pairs:
        is_small = type(key) in (int, bool) and abs(key) < 2**60
        if not is_small and type(key) not in (str, bytes, type(None)):
            raise ValueError(f"a key that is a {type(key).__name__}, or too large")
    return dict(pairs)
