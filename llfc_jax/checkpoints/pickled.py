"""A pickle read as data: its instructions are followed, and nothing that it names is looked up.

Python's own unpickler imports what a pickle names and calls it. Here a name stays a `Name`, a call
a `Call` of it with its arguments, and both are inert; only dicts, lists, tuples, strings and
numbers are built. So a checkpoint can hold anything, and none of it runs.
"""

import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Name:
    """What a pickle names: `module.name`."""

    module: str
    name: str

    def __str__(self) -> str:
        """Returns the name as Python writes it."""
        return f"{self.module}.{self.name}"


@dataclasses.dataclass(eq=False)
class Call:
    """A call that a pickle asks for, and that is not made.

    Attributes:
        function: what would be called.
        arguments: with what.
        items: what would be put into the result, in order.
    """

    function: Any
    arguments: Any
    items: list[tuple[Any, Any]] = dataclasses.field(default_factory=list)


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": list, "EMPTY_TUPLE": tuple,
}  # fmt: skip
_VALUES = frozenset(
    ("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
     "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BINBYTES", "SHORT_BINBYTES",
     "BINBYTES8", "BINSTRING", "SHORT_BINSTRING", "STRING", "BYTEARRAY8")
)  # fmt: skip
_IGNORED = frozenset(("PROTO", "FRAME"))


class Reader:
    """Follows a pickle's instructions.

    Args:
        data: the pickle.
        resolve: returns what stands for a call of a name, and for a persistent id: a value, or the
            call as it is given.
    """

    def __init__(self, data: bytes, resolve: Callable[[Call], Any]) -> None:
        self.data, self.resolve = data, resolve
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def read(self) -> Any:
        """Returns the object that the pickle describes.

        Raises:
            ValueError: it is cut short, or uses an instruction that checkpoints do not need.
        """
        for code, argument, _ in pickletools.genops(self.data):
            if code.name == "STOP":
                return self.stack.pop()
            self._follow(code.name, argument)
        raise ValueError("its pickle does not end")

    def _follow(self, code: str, argument: Any) -> None:
        stack = self.stack
        if code in _VALUES:
            stack.append(argument)
        elif code in _CONSTANTS:
            stack.append(_CONSTANTS[code])
        elif code in _EMPTY:
            stack.append(_EMPTY[code]())
        elif code == "MARK":
            self.marks.append(len(stack))
        elif code == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif code in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif code in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif code in ("GLOBAL", "STACK_GLOBAL"):
            module, name = argument.split(" ", 1) if code == "GLOBAL" else self._take(2)
            stack.append(Name(str(module), str(name)))
        elif code == "BINPERSID":
            stack.append(self.resolve(Call(Name("", "persistent id"), stack.pop())))
        elif code not in _IGNORED:
            self._build(code)

    def _build(self, code: str) -> None:
        """Follows an instruction that makes something of what is on the stack."""
        stack = self.stack
        if code in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple(self._take(int(code[-1]))))
        elif code in ("TUPLE", "LIST", "FROZENSET"):
            items = self._take_marked()
            stack.append(items if code == "LIST" else tuple(items))
        elif code == "DICT":
            items = self._take_marked()
            stack.append(dict(zip(items[::2], items[1::2], strict=True)))
        elif code in ("REDUCE", "NEWOBJ"):
            stack.append(self.resolve(Call(*self._take(2))))
        elif code == "NEWOBJ_EX":
            function, arguments, _ = self._take(3)
            stack.append(self.resolve(Call(function, arguments)))
        elif code == "BUILD":
            stack.pop()  # what an object would be given; it stays as it is
        elif code in ("SETITEM", "SETITEMS"):
            items = self._take(2) if code == "SETITEM" else self._take_marked()
            _put(stack[-1], list(zip(items[::2], items[1::2], strict=True)))
        elif code in ("APPEND", "APPENDS", "ADDITEMS"):
            items = self._take(1) if code == "APPEND" else self._take_marked()
            if isinstance(stack[-1], list):
                stack[-1].extend(items)
        elif code in ("POP", "POP_MARK"):
            self._take(1) if code == "POP" else self._take_marked()
        elif code == "DUP":
            stack.append(stack[-1])
        else:
            raise ValueError(f"its pickle holds the instruction {code}")

    def _take(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise ValueError("its pickle is damaged")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def _take_marked(self) -> list[Any]:
        """Returns what is on the stack above the last mark."""
        place = self.marks.pop()
        taken = self.stack[place:]
        del self.stack[place:]
        return taken


def _put(target: Any, items: list[tuple[Any, Any]]) -> None:
    if isinstance(target, dict):
        target.update(items)
    elif isinstance(target, Call):
        target.items.extend(items)
