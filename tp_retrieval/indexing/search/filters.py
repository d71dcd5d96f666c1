"""The `where` language: a dict of conditions on metadata, parsed into a tree whose leaves the table of facts answers.

Values stay values on the whole way: they reach SQL as parameters of constant statements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from tp_retrieval.errors import InputError
from tp_retrieval.indexing.storage.metadata_index import Comparison, Kind, Seqs, typed
from tp_retrieval.types import check_text

_DEEPEST = 64


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


Condition = Comparison | Both | Either | Not

_ORDER = ("$gt", "$gte", "$lt", "$lte")
_FIELD_OPERATORS = ("$eq", "$ne", *_ORDER, "$in", "$nin", "$contains", "$match", "$imatch", "$exists", "$not")
_JOINS = ("$and", "$or", "$not")


def parsed(where: Mapping[str, Any]) -> Condition:
    """Return the condition that a `where` dict states; raise `InputError` naming what is wrong in it and where."""
    return _parsed(where, "where", 0)


def answer(condition: Condition, matching: Callable[[Comparison], Seqs], everything: Seqs) -> Seqs:
    """Return the rows that a condition holds for; `matching` answers a comparison."""
    if isinstance(condition, Comparison):
        return matching(condition)
    if isinstance(condition, Not):
        return np.setdiff1d(everything, answer(condition.part, matching, everything), assume_unique=True)
    found = [answer(part, matching, everything) for part in condition.parts]
    if isinstance(condition, Either):
        return np.unique(np.concatenate([*found, np.zeros(0, dtype=np.int64)]))
    return reduce(_common, found, everything)


def _common(one: Seqs, other: Seqs) -> Seqs:
    return np.intersect1d(one, other, assume_unique=True)


def _parsed(where: object, place: str, depth: int) -> Condition:
    if not isinstance(where, Mapping):
        raise InputError(f"{place}: expected a dict such as {{'year': {{'$gte': 2020}}}}, got {type(where).__name__}")
    _check_depth(place, depth)
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
    _check_depth(place, depth)
    if not wanted:
        raise InputError(f"{place}: expected a value or operators, got an empty dict")
    parts = tuple(_operator(path, str(name), value, f"{place}.{name}", depth) for name, value in wanted.items())
    return parts[0] if len(parts) == 1 else Both(parts)


def _check_depth(place: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise InputError(f"{place[:60]}…: conditions are nested more than {_DEEPEST} deep")


def _operator(path: str, name: str, value: object, place: str, depth: int) -> Condition:
    if name in _ORDER:
        return _ordered(name, path, value, place)
    if name in ("$match", "$imatch"):
        return _match(name, path, value, place)
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
    return Comparison("$eq", (path, *typed(value, place)))


def _ordered(name: str, path: str, value: object, place: str) -> Condition:
    kind, plain = typed(value, place)
    if kind not in (Kind.NUMBER, Kind.STRING):
        raise InputError(f"{place}: only numbers and strings have an order, got {value!r}")
    return Comparison(name, (path, kind, plain))


def _in(path: str, value: object, place: str) -> Condition:
    if not isinstance(value, (list, tuple)):
        raise InputError(f"{place}: expected a list of values, got {value!r}")
    by_kind: dict[Kind, list[Any]] = {}
    for i, one in enumerate(value):
        kind, plain = typed(one, f"{place}[{i}]")
        by_kind.setdefault(kind, []).append(plain)
    return Either(tuple(Comparison("$in", (path, kind, *plains)) for kind, plains in by_kind.items()))


def _contains(path: str, value: object, place: str) -> Condition:
    kind, plain = typed(value, place)
    if kind >= Kind.LIST:
        raise InputError(f"{place}: expected one plain value that a list may hold, got {value!r}")
    return Comparison("$eq", (path, kind + 10, plain))


def _match(name: str, path: str, value: object, place: str) -> Condition:
    kind, plain = typed(value, place)
    if kind != Kind.STRING:
        raise InputError(f"{place}: expected a string that the value has in it, got {value!r}")
    return Comparison(name, (path, kind, plain.lower() if name == "$imatch" else plain))


def _exists(path: str, value: object, place: str) -> Condition:
    if not isinstance(value, bool):
        raise InputError(f"{place}: expected true or false, got {value!r}")
    there = Comparison("$exists", (path,))
    return there if value else Not(there)
