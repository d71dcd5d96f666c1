"""The `where` language: a dict of conditions on metadata, parsed into a tree of comparisons on the metadata index.

Values reach SQL as parameters of constant statements only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from tp_retrieval.errors import InputError
from tp_retrieval.indexing.metadata_json import untagged
from tp_retrieval.indexing.storage.metadata_index import Comparison, Kind, Seqs, ascending, typed
from tp_retrieval.types import check_text

_MOST_LEVELS = 64


@dataclass(frozen=True)
class AllOf:
    """All of some conditions."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class AnyOf:
    """Any of some conditions."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Not:
    """The negation of a condition."""

    part: Condition


Condition = Comparison | AllOf | AnyOf | Not

_ORDER = ("$gt", "$gte", "$lt", "$lte")
_FIELD_OPERATORS = ("$eq", "$ne", *_ORDER, "$in", "$nin", "$contains", "$match", "$imatch", "$exists", "$not")
_JOINS = ("$and", "$or", "$not")


def parsed(where: Mapping[str, Any]) -> Condition:
    """Return the condition that a `where` dict states; raise `InputError` naming the part that is wrong."""
    return _parsed(where, "where", 0)


def keys_of(where: Mapping[str, Any]) -> set[str]:
    """Return the metadata keys that a filter names."""
    keys = {key for key in where if not key.startswith("$")}
    for operator, part in where.items():
        inner = part if isinstance(part, list) else [part]
        if operator.startswith("$"):
            keys |= {key for condition in inner if isinstance(condition, Mapping) for key in keys_of(condition)}
    return keys


def answer(condition: Condition, matching: Callable[[Comparison], Seqs], everything: Seqs) -> Seqs:
    """Return the rows that fit a condition; `matching` returns those of a comparison."""
    if isinstance(condition, Comparison):
        return matching(condition)
    if isinstance(condition, Not):
        return np.setdiff1d(everything, answer(condition.part, matching, everything), assume_unique=True)
    matches = [answer(part, matching, everything) for part in condition.parts]
    if isinstance(condition, AnyOf):
        return ascending(np.concatenate([*matches, np.zeros(0, dtype=np.int64)]))
    return reduce(_common, matches, everything)


def _common(first: Seqs, second: Seqs) -> Seqs:
    return np.intersect1d(first, second, assume_unique=True)


def _parsed(where: object, name: str, depth: int) -> Condition:
    if not isinstance(where, Mapping):
        raise InputError(f"{name}: expected a dict such as {{'year': {{'$gte': 2020}}}}, got {type(where).__name__}")
    _check_depth(name, depth)
    parts: list[Condition] = []
    for key, value in where.items():
        check_text(key, f"{name} key")
        inner = f"{name}.{key}"
        if key in ("$and", "$or"):
            if not isinstance(value, (list, tuple)) or not value:
                raise InputError(f"{inner}: expected a list of conditions, got {value!r}")
            joined = tuple(_parsed(part, f"{inner}[{i}]", depth + 1) for i, part in enumerate(value))
            parts.append(AllOf(joined) if key == "$and" else AnyOf(joined))
        elif key == "$not":
            parts.append(Not(_parsed(value, inner, depth + 1)))
        elif key.startswith("$"):
            raise InputError(f"{inner}: unknown operator; beside field names there are {', '.join(_JOINS)}")
        else:
            parts.append(_field(key, value, inner, depth + 1))
    return parts[0] if len(parts) == 1 else AllOf(tuple(parts))


def _field(path: str, wanted: object, name: str, depth: int) -> Condition:
    wanted = _dated(wanted)
    if not isinstance(wanted, Mapping):
        return _equal(path, wanted, name)
    _check_depth(name, depth)
    if not wanted:
        raise InputError(f"{name}: expected a value or operators, got an empty dict")
    parts = tuple(_operator(path, str(operator), value, f"{name}.{operator}", depth) for operator, value in wanted.items())
    return parts[0] if len(parts) == 1 else AllOf(parts)


def _check_depth(name: str, depth: int) -> None:
    if depth > _MOST_LEVELS:
        raise InputError(f"{name[:60]}…: conditions are nested more than {_MOST_LEVELS} deep")


def _dated(value: object) -> object:
    """Return the date or time that a value in JSON stands for, `{"$date": "2024-05-01"}`, and others as they are."""
    if isinstance(value, dict):
        return untagged(value)
    return [_dated(item) for item in value] if isinstance(value, (list, tuple)) else value


def _operator(path: str, operator: str, value: object, name: str, depth: int) -> Condition:
    value = _dated(value)
    if operator in _ORDER:
        return _ordered(operator, path, value, name)
    if operator in ("$match", "$imatch"):
        return _match(operator, path, value, name)
    if operator == "$not":
        if not isinstance(value, Mapping):
            raise InputError(f"{name}: expected operators such as {{'$gt': 1}}, got {value!r}")
        return Not(_field(path, value, name, depth + 1))
    make = {"$eq": _equal, "$in": _in, "$contains": _contains, "$exists": _exists}
    opposite = {"$ne": "$eq", "$nin": "$in"}
    if operator in opposite:
        return Not(make[opposite[operator]](path, value, name))
    if operator in make:
        return make[operator](path, value, name)
    hint = "" if operator.startswith("$") else f"; for a nested key write {path + '.' + operator!r}"
    raise InputError(f"{name}: unknown operator; there are {', '.join(_FIELD_OPERATORS)}{hint}")


def _equal(path: str, value: object, name: str) -> Condition:
    return Comparison("$eq", (path, *typed(value, name)))


def _ordered(operator: str, path: str, value: object, name: str) -> Condition:
    kind, plain = typed(value, name)
    if kind not in (Kind.NUMBER, Kind.STRING, Kind.DATE):
        raise InputError(f"{name}: only numbers, strings and dates have an order, got {value!r}")
    return Comparison(operator, (path, kind, plain))


def _in(path: str, value: object, name: str) -> Condition:
    if not isinstance(value, (list, tuple)):
        raise InputError(f"{name}: expected a list of values, got {value!r}")
    by_kind: dict[Kind, list[Any]] = {}
    for i, item in enumerate(value):
        kind, plain = typed(item, f"{name}[{i}]")
        by_kind.setdefault(kind, []).append(plain)
    return AnyOf(tuple(Comparison("$in", (path, kind, *plains)) for kind, plains in by_kind.items()))


def _contains(path: str, value: object, name: str) -> Condition:
    kind, plain = typed(value, name)
    if not kind.is_plain:
        raise InputError(f"{name}: expected one plain value that a list may hold, got {value!r}")
    return Comparison("$eq", (path, kind + 10, plain))


def _match(operator: str, path: str, value: object, name: str) -> Condition:
    kind, plain = typed(value, name)
    if kind != Kind.STRING:
        raise InputError(f"{name}: expected a string that the value has in it, got {value!r}")
    return Comparison(operator, (path, kind, plain.lower() if operator == "$imatch" else plain))


def _exists(path: str, value: object, name: str) -> Condition:
    if not isinstance(value, bool):
        raise InputError(f"{name}: expected true or false, got {value!r}")
    exists = Comparison("$exists", (path,))
    return exists if value else Not(exists)
