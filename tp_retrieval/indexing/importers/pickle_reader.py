"""Read a pickle as data: plain values, and a record of each call that it asks for; none is made, and nothing is imported.

value = read_pickle(data, admitted={("datetime", "date")})   # Call(("datetime", "date"), (b"...",))
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from tp_retrieval.errors import InputError

Name = tuple[str, str]
"""Module and name of a class or function."""

SET, ZONE_OF_KEY = ("builtins", "set"), ("zoneinfo", "ZoneInfo._unpickle")
_GETATTR, _ZONE = ("builtins", "getattr"), ("zoneinfo", "ZoneInfo")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}


@dataclass(frozen=True, slots=True)
class Reference:
    """A class or function that a pickle names."""

    name: Name


@dataclass(eq=False, slots=True)
class Call:
    """A call that a pickle asks for, and the state that it gives to the result."""

    callee: Name
    arguments: tuple[Any, ...]
    state: Any = None


def read_pickle(data: bytes, admitted: Collection[Name]) -> object:
    """Return the value of a pickle of protocol 2 to 5; sets, too, are calls.

    Raises `InputError` for names that are not admitted and for opcodes that no pickle of values has, and `ValueError`,
    `TypeError`, `LookupError` or `AttributeError` for a broken pickle.
    """
    reader = _Reader(admitted)
    for opcode, argument, _ in pickletools.genops(data):
        reader.execute(opcode.name, argument)
    (value,) = reader.stack
    return value


class _Reader:
    """The stack, marks and memo of a pickle that is read."""

    def __init__(self, admitted: Collection[Name]) -> None:
        self.stack: list[Any] = []
        self._admitted = admitted
        self._marks: list[int] = []  # lengths of the stack
        self._memo: dict[int, Any] = {}
        self._operations: dict[str, Callable[[Any], None]] = {
            "PROTO": self._check_protocol,
            "FRAME": lambda _: None,
            "STOP": lambda _: None,
            "MARK": lambda _: self._marks.append(len(self.stack)),
            "POP": lambda _: self._pop(),
            "POP_MARK": lambda _: self._since_mark().clear(),
            **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda at: self._memo.__setitem__(at, self.stack[-1])),
            "MEMOIZE": lambda _: self._memo.__setitem__(len(self._memo), self.stack[-1]),
            **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda at: self.stack.append(self._memo[at])),
            "EMPTY_LIST": lambda _: self.stack.append([]),
            "EMPTY_DICT": lambda _: self.stack.append({}),
            "EMPTY_SET": lambda _: self.stack.append(Call(SET, ([],))),
            "FROZENSET": lambda _: self.stack.append(Call(SET, (self._since_mark(),))),
            "TUPLE": lambda _: self.stack.append(tuple(self._since_mark())),
            "TUPLE1": lambda _: self.stack.append(self._last(1)),
            "TUPLE2": lambda _: self.stack.append(self._last(2)),
            "TUPLE3": lambda _: self.stack.append(self._last(3)),
            "APPEND": lambda _: self._extend(self._last(1)),
            "APPENDS": lambda _: self._extend(self._since_mark()),
            "ADDITEMS": lambda _: self._add(self._since_mark()),
            "SETITEM": lambda _: self._set(self._last(2)),
            "SETITEMS": lambda _: self._set(self._since_mark()),
            "GLOBAL": lambda argument: self._refer(*argument.split(" ")),
            "STACK_GLOBAL": lambda _: self._refer(*self._last(2)),
            "REDUCE": lambda _: self._call(*self._last(2)),
            "NEWOBJ": lambda _: self._call(*self._last(2)),
            "BUILD": lambda _: self._build(*self._last(2)),
        }

    def execute(self, opcode: str, argument: Any) -> None:
        """Change the stack as an opcode says; raise `InputError` for one that no pickle of values has."""
        if opcode in _VALUES:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode])
        elif opcode in self._operations:
            self._operations[opcode](argument)
        else:
            raise InputError(f"it has the opcode {opcode}, which no pickle of values has; save the store again")

    def _check_protocol(self, protocol: int) -> None:
        if not 2 <= protocol <= 5:
            raise InputError(f"its protocol is {protocol} and must be 2 to 5")

    def _last(self, count: int) -> tuple[Any, ...]:
        return tuple([self.stack.pop() for _ in range(count)][::-1])

    def _pop(self) -> None:
        if self._marks and self._marks[-1] == len(self.stack):
            self._marks.pop()
        else:
            self.stack.pop()

    def _since_mark(self) -> list[Any]:
        begin = self._marks.pop()
        items = self.stack[begin:]
        del self.stack[begin:]
        return items

    def _extend(self, items: Collection[Any]) -> None:
        _checked(self.stack[-1], list).extend(items)

    def _add(self, items: list[Any]) -> None:
        _checked(_checked(self.stack[-1], Call).arguments[0], list).extend(items)

    def _set(self, items: Collection[Any]) -> None:
        keys, values = list(items)[::2], list(items)[1::2]
        for key in keys:
            if not isinstance(key, (str, int)):  # a nested tuple may take for ever to hash
                raise InputError(f"it has a key of type {type(key).__name__}; keys must be str or int")
        _checked(self.stack[-1], dict).update(zip(keys, values, strict=True))

    def _refer(self, module: str, name: str) -> None:
        path = (module.replace("__builtin__", "builtins"), name)  # as protocol 2 has it
        if path not in self._admitted and path not in (_GETATTR, _ZONE):
            shown = ascii(f"{module}.{name}")[1:-1][:100]
            raise InputError(f"it names {shown}, which is no document class and no value for JSON")
        self.stack.append(Reference(path))

    def _call(self, callee: Reference, arguments: tuple[Any, ...]) -> None:
        name = _checked(callee, Reference).name
        if name != _GETATTR:
            self.stack.append(Call(name, _checked(arguments, tuple)))
        elif arguments == (Reference(_ZONE), "_unpickle"):  # so the pickle of a time zone begins
            self.stack.append(Reference(ZONE_OF_KEY))
        else:
            raise InputError("it calls getattr, which no pickle of values does")

    def _build(self, made: Call, state: Any) -> None:
        if _checked(made, Call).state is not None:
            raise InputError(f"it gives two states to one {'.'.join(made.callee)}")
        made.state = state
        self.stack.append(made)


def _checked(value: Any, expected: type) -> Any:
    if not isinstance(value, expected):
        raise InputError(f"it has a {type(value).__name__} where a {expected.__name__} must be")
    return value
