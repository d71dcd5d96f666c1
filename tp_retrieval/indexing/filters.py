"""The `where` language: conditions on metadata, answered by an index over facts.

A fact is one value of one document's metadata under its dotted path: `{"a": {"b": 1}}` has the facts `a` (an object) and
`a.b` (the number 1). Facts lie in a table ordered by path, kind and value, so that a condition reads only the rows that
match it. Values reach SQL as parameters, and a condition's SQL is one of the constants below.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tp_retrieval.errors import InputError
from tp_retrieval.types import check_text

Seqs = NDArray[np.int64]
"""Row numbers, ascending and each once."""

_DEEPEST = 64


class Kind(IntEnum):
    """What a value is; values of different kinds are never equal and have no order. An element is one of a list's."""

    NULL = 0
    BOOLEAN = 1
    NUMBER = 2
    STRING = 3
    LIST = 4
    OBJECT = 5
    NULL_ELEMENT = 10
    BOOLEAN_ELEMENT = 11
    NUMBER_ELEMENT = 12
    STRING_ELEMENT = 13


@dataclass(frozen=True)
class Test:
    """A condition on the facts of one path: a name in `SQL` and its parameters."""

    name: str
    parameters: tuple[Any, ...]


@dataclass(frozen=True)
class Both:
    """All of some conditions."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Either:
    """Any of some conditions."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Not:
    """The opposite of a condition."""

    part: Condition


Condition = Test | Both | Either | Not

_OF_ONE_KIND = "SELECT seq FROM facts WHERE path = ? AND kind = ? AND value"
SQL = {
    "$eq": f"{_OF_ONE_KIND} = ?",
    "$gt": f"{_OF_ONE_KIND} > ?",
    "$gte": f"{_OF_ONE_KIND} >= ?",
    "$lt": f"{_OF_ONE_KIND} < ?",
    "$lte": f"{_OF_ONE_KIND} <= ?",
    "$exists": "SELECT seq FROM facts WHERE path = ?",
}
_ORDER = ("$gt", "$gte", "$lt", "$lte")
_FIELD_OPERATORS = ("$eq", "$ne", *_ORDER, "$in", "$nin", "$contains", "$exists", "$not")
_JOINS = ("$and", "$or", "$not")


def facts(metadata: Mapping[str, Any]) -> set[tuple[str, int, Any]]:
    """Return `(path, kind, value)` of everything in a document's metadata."""
    return set(_facts(metadata, ""))


def _facts(metadata: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, int, Any]]:
    for key, value in metadata.items():
        path = prefix + key
        yield (path, *_typed(value))
        if isinstance(value, Mapping):
            yield from _facts(value, f"{path}.")
        elif isinstance(value, list):
            yield from ((path, kind + 10, plain) for kind, plain in map(_typed, value) if kind < Kind.LIST)


def parsed(where: Mapping[str, Any]) -> Condition:
    """Return the condition that a `where` dict states; raise `InputError` naming what is wrong in it and where."""
    return _parsed(where, "where", 0)


def answer(condition: Condition, matching: Callable[[Test], Seqs], everything: Seqs) -> Seqs:
    """Return the rows that a condition holds for; `matching` answers a test."""
    if isinstance(condition, Test):
        return matching(condition)
    if isinstance(condition, Not):
        return np.setdiff1d(everything, answer(condition.part, matching, everything), assume_unique=True)
    found = [answer(part, matching, everything) for part in condition.parts]
    if isinstance(condition, Either):
        return reduce(np.union1d, found, np.zeros(0, dtype=np.int64))
    return reduce(_common, found, everything)


def _common(one: Seqs, other: Seqs) -> Seqs:
    return np.intersect1d(one, other, assume_unique=True)


def _parsed(where: object, place: str, depth: int) -> Condition:
    if not isinstance(where, Mapping):
        raise InputError(f"{place}: expected a dict such as {{'year': {{'$gte': 2020}}}}, got {type(where).__name__}")
    if depth > _DEEPEST:
        raise InputError(f"{place[:60]}…: conditions are nested more than {_DEEPEST} deep")
    parts: list[Condition] = []
    for key, value in where.items():
        check_text(key, f"{place} key")
        inner = f"{place}.{key}"
        if key in ("$and", "$or"):
            if not isinstance(value, (list, tuple)) or not value:
                raise InputError(f"{inner}: expected a list of conditions, got {value!r}")
            joined = tuple(_parsed(part, f"{inner}[{i}]", depth + 1) for i, part in enumerate(value))
            parts.append(Both(joined) if key == "$and" else Either(joined))
        elif key == "$not":
            parts.append(Not(_parsed(value, inner, depth + 1)))
        elif key.startswith("$"):
            raise InputError(f"{inner}: unknown operator; beside field names there are {', '.join(_JOINS)}")
        else:
            parts.append(_field(key, value, inner, depth + 1))
    return parts[0] if len(parts) == 1 else Both(tuple(parts))


def _field(path: str, wanted: object, place: str, depth: int) -> Condition:
    if not isinstance(wanted, Mapping):
        return _equal(path, wanted, place)
    if depth > _DEEPEST:
        raise InputError(f"{place[:60]}…: conditions are nested more than {_DEEPEST} deep")
    if not wanted:
        raise InputError(f"{place}: expected a value or operators, got an empty dict")
    parts = tuple(_operator(path, str(name), value, f"{place}.{name}", depth) for name, value in wanted.items())
    return parts[0] if len(parts) == 1 else Both(parts)


def _operator(path: str, name: str, value: object, place: str, depth: int) -> Condition:
    if name in _ORDER:
        return _ordered(name, path, value, place)
    if name == "$not":
        if not isinstance(value, Mapping):
            raise InputError(f"{place}: expected operators such as {{'$gt': 1}}, got {value!r}")
        return Not(_field(path, value, place, depth + 1))
    make = {"$eq": _equal, "$in": _in, "$contains": _contains, "$exists": _exists}
    opposite = {"$ne": "$eq", "$nin": "$in"}
    if name in opposite:
        return Not(make[opposite[name]](path, value, place))
    if name in make:
        return make[name](path, value, place)
    hint = "" if name.startswith("$") else f"; for a nested key write {path + '.' + name!r}"
    raise InputError(f"{place}: unknown operator; there are {', '.join(_FIELD_OPERATORS)}{hint}")


def _equal(path: str, value: object, place: str) -> Condition:
    return Test("$eq", (path, *_typed(value, place)))


def _ordered(name: str, path: str, value: object, place: str) -> Condition:
    kind, plain = _typed(value, place)
    if kind not in (Kind.NUMBER, Kind.STRING):
        raise InputError(f"{place}: only numbers and strings have an order, got {value!r}")
    return Test(name, (path, kind, plain))


def _in(path: str, value: object, place: str) -> Condition:
    if not isinstance(value, (list, tuple)):
        raise InputError(f"{place}: expected a list of values, got {value!r}")
    return Either(tuple(_equal(path, one, f"{place}[{i}]") for i, one in enumerate(value)))


def _contains(path: str, value: object, place: str) -> Condition:
    kind, plain = _typed(value, place)
    if kind >= Kind.LIST:
        raise InputError(f"{place}: expected one plain value that a list may hold, got {value!r}")
    return Test("$eq", (path, kind + 10, plain))


def _exists(path: str, value: object, place: str) -> Condition:
    if not isinstance(value, bool):
        raise InputError(f"{place}: expected true or false, got {value!r}")
    there = Test("$exists", (path,))
    return there if value else Not(there)


def _typed(value: object, place: str = "value") -> tuple[Kind, Any]:
    """Return a value's kind and what stands for it in SQLite; raise `InputError` for one that JSON does not know."""
    if value is None:
        return Kind.NULL, 0
    if isinstance(value, bool):
        return Kind.BOOLEAN, int(value)
    if isinstance(value, int) or (isinstance(value, float) and not math.isnan(value)):
        return Kind.NUMBER, _number(value)
    if isinstance(value, str):
        check_text(value, place)
        return Kind.STRING, value
    if isinstance(value, (list, tuple)):
        try:
            return Kind.LIST, json.dumps(_canonical(value), sort_keys=True, ensure_ascii=True)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{place}: JSON can't hold it ({error})") from error
    if isinstance(value, Mapping):
        return Kind.OBJECT, 0
    raise InputError(f"{place}: expected what JSON holds, got {value!r}")


def _number(value: int | float) -> int | float:
    """Return a number that SQLite holds: beyond 64 bits the nearest float."""
    if isinstance(value, float) or -(2**63) <= value < 2**63:
        return value
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _canonical(value: Any) -> Any:
    """Return equal JSON for equal values: 1 and 1.0 are one number."""
    if isinstance(value, (list, tuple)):
        return [_canonical(one) for one in value]
    if isinstance(value, Mapping):
        return {key: _canonical(one) for key, one in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value
