"""Walks the opcodes of a pickle and builds plain values; nothing in it is run.

A pickle is a program for a small stack machine, and Python's own machine imports and
calls whatever the program names. This one calls nothing but the function it is given.
"""

import pickletools
import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

MOST_BYTES = 2**26
"""Longest program; nnU-Net's logs of a thousand epochs take less than a hundredth."""

MOST_OPCODES = 5_000_000
MOST_LEVELS = 64
"""Deepest nesting of containers."""


class NotReadable(ValueError):
    """The file is damaged, or made to do harm; the message says what is wrong."""


class Name(NamedTuple):
    """A class or function that the pickle names; it is never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        """Return the dotted name."""
        return f"{self.module}.{self.name}"


class Unknown:
    """Stands for an object whose class is not known here; it holds what it was given.

    Attributes:
        name: class or function.
        arguments: arguments that it would have been called with.
        state: what would have been set on the object, or None.
        entries: what would have been put into it, pairs for a mapping.
    """

    def __init__(self, name: Name, arguments: tuple[Any, ...]) -> None:
        """Start without state and entries."""
        self.name, self.arguments = name, arguments
        self.state: Any = None
        self.entries: list[Any] = []


Make = Callable[[Name, tuple[Any, ...]], Any]
"""``(name, arguments) -> value`` for what a pickle calls."""

Build = Callable[[Any, Any], Any]
"""``(value, state) -> value``, the same one, for the state that a pickle sets."""

Fetch = Callable[[Any], Any]
"""``identifier -> value`` for what lies beside the pickle."""

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "EMPTY_TUPLE": tuple,
}
_LITERAL = re.compile(
    r"(SHORT_)?(BIN)?(STRING|UNICODE|BYTES|INT|FLOAT|LONG)\d?|BYTEARRAY8"
)
_SCALARS = (str, int, float, bytes, bool, type(None), Name)


def run(program: bytes, *, make: Make, build: Build, fetch: Fetch) -> Any:
    """Return the value that a pickle describes.

    Args:
        program: the pickle, of any protocol without out-of-band buffers.
        make: makes a value of a name and arguments; `Unknown` for unknown names.
        build: sets a state on a value.
        fetch: returns what a persistent identifier stands for.

    Returns:
        None, numbers, text, bytes, lists, tuples, dicts, sets, `Name`, `Unknown`, and
        what the functions made. No container holds itself, and none is nested deeper
        than `MOST_LEVELS`.

    Raises:
        NotReadable: the program is damaged, too long, or uses what no file of tensors
            needs.
    """
    if len(program) > MOST_BYTES:
        raise NotReadable(f"its pickle has {len(program)} bytes, more than 2**26")
    machine = _Machine(make, build, fetch)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in the text of a damaged file
            for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
                if count >= MOST_OPCODES:
                    raise NotReadable(f"it has more than {MOST_OPCODES} opcodes")
                machine.step(opcode.name, argument)
    except NotReadable:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        found = " ".join(str(error).split())[:80]
        raise NotReadable(f"its pickle is damaged: {found}") from None
    (value,) = machine.stack if len(machine.stack) == 1 else (None,)
    if len(machine.stack) != 1 or machine.marks:
        raise NotReadable("its pickle leaves no single value")
    _check_levels(value)
    return value


class _Machine:
    """The stack, the marks on it and the memo."""

    def __init__(self, make: Make, build: Build, fetch: Fetch) -> None:
        self.make, self.build, self.fetch = make, build, fetch
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.given = 0

    def step(self, opcode: str, argument: Any) -> None:
        """Do what one opcode says."""
        push = self.stack.append
        match opcode:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                push(_CONSTANTS[opcode])
            case "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_SET" | "EMPTY_TUPLE":
                push(_EMPTY[opcode]())
            case "MARK":
                self.marks.append(len(self.stack))
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.top()
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.top()
            case "GET" | "BINGET" | "LONG_BINGET":
                push(self.memo[argument])
            case "DUP":
                push(self.top())
            case "POP" if self.marks and self.marks[-1] == len(self.stack):
                self.marks.pop()
            case "POP":
                self.pop()
            case "POP_MARK":
                self.above_mark()
            case _ if _LITERAL.fullmatch(opcode):
                push(argument)
            case _:
                self._collect(opcode, argument)

    def _collect(self, opcode: str, argument: Any) -> None:
        """Do what an opcode says that makes or fills a container, or names a class."""
        push = self.stack.append
        match opcode:
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple(reversed([self.pop() for _ in range(int(opcode[-1]))])))
            case "TUPLE":
                push(tuple(self.above_mark()))
            case "LIST":
                push(self.above_mark())
            case "DICT":
                push(_filled({}, _pairs(self.above_mark())))
            case "FROZENSET":
                push(frozenset(map(_key, self.above_mark())))
            case "APPEND":
                value = self.pop()
                _filled(self.top(), [value])
            case "APPENDS" | "ADDITEMS":
                values = self.above_mark()
                _filled(self.top(), values)
            case "SETITEM":
                value, key = self.pop(), self.pop()
                _filled(self.top(), [(key, value)])
            case "SETITEMS":
                pairs = _pairs(self.above_mark())
                _filled(self.top(), pairs)
            case "BUILD":
                state = self.pop()
                push(self.build(self.pop(), state))
            case "PERSID" | "BINPERSID":
                push(self.fetch(self.pop() if opcode == "BINPERSID" else argument))
            case _:
                self._call(opcode, argument)

    def _call(self, opcode: str, argument: Any) -> None:
        """Name a class, or make a value of one."""
        match opcode:
            case "GLOBAL":
                module, _, name = argument.partition(" ")
                value = Name(module, name)
            case "STACK_GLOBAL":
                name, module = self.pop(), self.pop()
                value = Name(*map(_text, (module, name)))
            case "REDUCE" | "NEWOBJ":
                arguments, value = self.pop(), self.pop()
                value = self._made(value, arguments)
            case "NEWOBJ_EX":
                named, arguments, value = self.pop(), self.pop(), self.pop()
                value = self._made(value, (*arguments, named))
            case "INST":
                module, _, name = argument.partition(" ")
                value = self._made(Name(module, name), tuple(self.above_mark()))
            case "OBJ":
                first, *rest = self.above_mark()
                value = self._made(first, tuple(rest))
            case _:
                raise NotReadable(f"its pickle has the opcode {opcode}")
        self.stack.append(value)

    def _made(self, name: Any, arguments: Any) -> Any:
        """Make a value; what is called may only be a name."""
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise NotReadable("its pickle calls what is no name")
        # A call may copy what the memo gives it again and again.
        self.given += sum(len(one) for one in arguments if hasattr(one, "__len__"))
        if self.given > MOST_BYTES:
            raise NotReadable("its pickle calls with more than its length can hold")
        return self.make(name, arguments)

    def top(self) -> Any:
        """Return the last value; those below the last mark are out of reach."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise NotReadable("its pickle takes more from the stack than is there")
        return self.stack[-1]

    def pop(self) -> Any:
        """Take the last value."""
        value = self.top()
        del self.stack[-1]
        return value

    def above_mark(self) -> list[Any]:
        """Take the values above the last mark, and the mark."""
        if not self.marks:
            raise NotReadable("its pickle looks for a mark that is not there")
        first = self.marks.pop()
        values = self.stack[first:]
        del self.stack[first:]
        return values


def _filled(container: Any, values: list[Any]) -> Any:
    """Put values into a container: pairs into a dict."""
    match container:
        case dict():
            container.update((_key(key), value) for key, value in values)
        case list():
            container.extend(values)
        case set():
            container.update(map(_key, values))
        case Unknown():
            container.entries.extend(values)
        case _:
            raise NotReadable(f"its pickle fills {type(container).__name__}")
    return container


def _pairs(values: list[Any]) -> list[tuple[Any, Any]]:
    """Return keys with their values."""
    return list(zip(values[::2], values[1::2], strict=True))


def _key(value: Any) -> Any:
    """Return a key of a dict or set: hashing nested tuples would recurse."""
    parts = value if type(value) is tuple else (value,)
    if not all(isinstance(part, _SCALARS) for part in parts):
        raise NotReadable(f"its pickle has {type(value).__name__} as a key")
    return value


def _text(value: Any) -> str:
    """Return text; a name of another type is refused."""
    if not isinstance(value, str):
        raise NotReadable("its pickle has a name that is no text")
    return value


def _check_levels(value: Any) -> None:
    """Refuse containers that hold themselves, or are nested deeply.

    Each is visited once, however often it is held: tricks with the memo make a small
    file a tree of any size.
    """
    levels: dict[int, int] = {}  # -1 while its parts are visited
    waiting = [value]
    while waiting:
        one = waiting[-1]
        parts = _parts(one)
        if parts is None or levels.get(id(one), -1) > 0:
            waiting.pop()
        elif id(one) not in levels:
            levels[id(one)] = -1
            inside = [part for part in parts if _parts(part) is not None]
            if any(levels.get(id(part)) == -1 for part in inside):
                raise NotReadable("its pickle has a container that holds itself")
            waiting += [part for part in inside if id(part) not in levels]
            if len(waiting) > MOST_OPCODES:
                raise NotReadable("its pickle has too many containers")
        else:
            waiting.pop()
            inside_levels = (levels.get(id(part), 0) for part in parts)
            levels[id(one)] = 1 + max(inside_levels, default=0)
            if levels[id(one)] > MOST_LEVELS:
                raise NotReadable(
                    f"its pickle nests containers deeper than {MOST_LEVELS} levels"
                )


def _parts(value: Any) -> list[Any] | None:
    """Return the parts of a container; None for another value."""
    match value:
        case dict():
            return list(value.values())
        case list() | tuple() | set() | frozenset() if not isinstance(value, Name):
            return list(value)
        case Unknown():
            return [*value.arguments, value.state, *value.entries]
    return None
