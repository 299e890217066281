"""A reader of pickles that builds nothing: it follows the opcodes and leaves every call as a note of the call.

``pickle.Unpickler`` calls what a file names, and even functions of NumPy accept arguments that take any amount of
memory. Here no name is looked up, so a file can only describe.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

MAX_OPCODES = 200_000
"""Largest number of opcodes that are followed: one byte can ask for an object of a hundred bytes."""


@dataclass(frozen=True)
class Name:
    """A name that a pickle refers to, such as ``numpy.dtype``; it stands for itself."""

    text: str


@dataclass(eq=False)
class Call:
    """A call that a pickle asks for and that is not made.

    Attributes:
        name: Name of the class or function.
        arguments: Its arguments.
        state: What the result would be given as its state.
    """

    name: str
    arguments: tuple[Any, ...]
    state: Any = None
    items: list[Any] = field(default_factory=list)


class _Mark:
    pass


def read_pickle(blob: bytes, allowed: Callable[[str], bool]) -> Any:
    """Return what a pickle describes: plain data, with a :class:`Call` for every object.

    Args:
        blob: The pickle.
        allowed: Whether a name, such as ``numpy.dtype``, may occur.

    Raises:
        ValueError: If the pickle is damaged, has more than ``MAX_OPCODES`` opcodes or one that plain data does not
            need, or a name is not allowed. The message is one line, and short whatever the file contains.
    """
    machine = _Machine(allowed)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(blob)):
            if count >= MAX_OPCODES:
                raise ValueError(f"more than {MAX_OPCODES} opcodes")
            machine.step(opcode.name, argument)
        (result,) = machine.stack
    except ValueError as error:
        raise ValueError(brief(str(error))) from error
    except Exception as error:
        raise ValueError(brief(f"a damaged pickle ({type(error).__name__}: {error})")) from error
    return result


def brief(text: str) -> str:
    """Return the beginning of a text, in one line and without control characters, for messages."""
    return text[:160].encode("unicode_escape").decode("ascii")


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": _Mark,
}
_IGNORED = {"PROTO", "FRAME", "STOP"}
_LITERALS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT", "STRING", "BINSTRING"}
_LITERALS |= {"SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES"}
_LITERALS |= {"BYTEARRAY8", "BINUNICODE8", "BINBYTES8"}
_KEYS = (str, bytes, int, NoneType)
"""Types of keys; the hash of a tuple that contains itself many times over takes for ever."""
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The stack and memory of the pickle machine."""

    def __init__(self, allowed: Callable[[str], bool]) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}
        self.allowed = allowed

    def step(self, opcode: str, argument: Any) -> None:
        """Follow one opcode."""
        if opcode in _IGNORED:
            return
        if opcode in _LITERALS:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode]())
        elif opcode in _TUPLES:
            self.stack.append(tuple(self.take(_TUPLES[opcode])))
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memory[argument])
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memory[argument] = self.stack[-1]
        elif opcode == "MEMOIZE":
            self.memory[len(self.memory)] = self.stack[-1]
        else:
            self.build(opcode, argument)

    def build(self, opcode: str, argument: Any) -> None:
        """Follow an opcode that makes a value of others."""
        if opcode == "GLOBAL":
            self.refer(*argument.split(" ", 1))
        elif opcode == "STACK_GLOBAL":
            self.refer(*self.take(2))
        elif opcode in ("TUPLE", "LIST"):
            self.stack.append((tuple if opcode == "TUPLE" else list)(self.since_mark()))
        elif opcode == "DICT":
            self.stack.append(_pairs(self.since_mark()))
        elif opcode in ("REDUCE", "NEWOBJ"):
            called, arguments = self.take(2)
            self.stack.append(Call(called.text, tuple(arguments)))
        elif opcode == "BUILD":
            (state,) = self.take(1)
            self.stack[-1].state = state
        elif opcode in ("SETITEM", "APPEND"):
            self.fill(self.take(2 if opcode == "SETITEM" else 1), opcode == "SETITEM")
        elif opcode in ("SETITEMS", "APPENDS"):
            self.fill(self.since_mark(), opcode == "SETITEMS")
        else:
            raise ValueError(f"the opcode {opcode}")

    def refer(self, module: Any, name: Any) -> None:
        """Put a name on the stack."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError(f"a name of the types {type(module).__name__} and {type(name).__name__}")
        text = f"{module}.{name}"
        if not self.allowed(text):
            raise ValueError(f"the name {text[:80]}")
        self.stack.append(Name(text))

    def fill(self, items: list[Any], pairs: bool) -> None:
        """Add items to the list, dictionary or object on top of the stack."""
        target = self.stack[-1]
        if isinstance(target, Call):
            target.items.extend(items)
        elif pairs:
            target.update(_pairs(items))
        else:
            target.extend(items)

    def take(self, count: int) -> list[Any]:
        """Take values from the stack, the last of them on top."""
        taken = self.stack[-count:]
        if len(taken) < count or any(isinstance(value, _Mark) for value in taken):
            raise ValueError("a damaged pickle (too few values)")
        del self.stack[-count:]
        return taken

    def since_mark(self) -> list[Any]:
        """Take the values above the last mark, and the mark."""
        place = next(index for index in reversed(range(len(self.stack))) if isinstance(self.stack[index], _Mark))
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """Return the dictionary of alternating keys and values.

    Raises:
        ValueError: If a key is no text, bytes, integer or ``None``, or a value is missing.
    """
    for key in items[::2]:
        if not isinstance(key, _KEYS):
            raise ValueError(f"a damaged pickle (a key of type {type(key).__name__})")
    return dict(zip(items[::2], items[1::2], strict=True))
