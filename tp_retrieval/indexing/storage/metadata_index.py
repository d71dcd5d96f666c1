"""MetadataIndex: what filters read about documents, in a table ordered by path, kind and value.

A fact is one value of one document's metadata under its dotted path: `{"a": {"b": 1}}` has the facts `a` (an object) and
`a.b` (the number 1). A condition reads only the rows that match it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tp_retrieval.errors import InputError
from tp_retrieval.sqlite.database import LOWER, Database, chunks, marks
from tp_retrieval.types import check_text

Seqs = NDArray[np.int64]
"""Row numbers, ascending and each once."""


_LARGEST = 2**24  # characters of one document's facts


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
class Comparison:
    """A condition on the facts of one path: its operator and the query's parameters."""

    name: str
    parameters: tuple[Any, ...]


_OF_ONE_KIND = "SELECT seq FROM facts WHERE path = ? AND kind = ? AND value"
_SQL = {
    "$eq": f"{_OF_ONE_KIND} = ?",
    "$gt": f"{_OF_ONE_KIND} > ?",
    "$gte": f"{_OF_ONE_KIND} >= ?",
    "$lt": f"{_OF_ONE_KIND} < ?",
    "$lte": f"{_OF_ONE_KIND} <= ?",
    "$exists": "SELECT seq FROM facts WHERE path = ?",
    "$match": "SELECT seq FROM facts WHERE path = ? AND kind = ? AND instr(value, ?)",
    "$imatch": f"SELECT seq FROM facts WHERE path = ? AND kind = ? AND instr({LOWER}(value), ?)",
}


class MetadataIndex:
    """The table of facts; every change is made inside a transaction of its owner."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def insert(self, documents: Iterable[tuple[int, str]]) -> None:
        """Add what is to be known about rows `(seq, metadata JSON)`."""
        rows = ((*fact, seq) for seq, metadata in documents for fact in facts_of(json.loads(metadata)))
        self._database.execute_many("INSERT INTO facts VALUES (?, ?, ?, ?)", rows)

    def delete(self, seq: int, metadata: str) -> None:
        """Forget a row, whose metadata are what they were when it was added."""
        rows = [(*fact, seq) for fact in facts_of(json.loads(metadata))]
        self._database.execute_many("DELETE FROM facts WHERE path = ? AND kind = ? AND value = ? AND seq = ?", rows)

    def clear(self) -> None:
        """Remove all facts."""
        self._database.execute("DELETE FROM facts")

    def remake(self) -> None:
        """Make the table anew from the documents."""
        self.clear()
        self.insert(self._database.execute("SELECT seq, metadata FROM documents"))

    def matching(self, comparison: Comparison) -> Seqs:
        """Return the rows that a condition holds for."""
        if comparison.name == "$in":
            path, kind, *values = comparison.parameters
            found = [
                self._database.numbers(f"{_OF_ONE_KIND} IN ({marks(part)})", (path, kind, *part)) for part in chunks(values)
            ]
            return np.unique(np.concatenate([*found, np.zeros(0, dtype=np.int64)]))
        return np.unique(self._database.numbers(_SQL[comparison.name], comparison.parameters))

    def problems(self) -> Iterator[str]:
        """Yield how the table differs from the documents' metadata."""
        count = 0
        sql = "SELECT 1 FROM facts WHERE path = ? AND kind = ? AND value = ? AND seq = ?"
        for seq, metadata in self._database.each("SELECT seq, metadata FROM documents"):
            for fact in facts_of(json.loads(metadata)):
                count += 1
                if self._database.first(sql, (*fact, seq)) is None:
                    yield f"{self._database.file}: facts do not fit the metadata, first at record {seq} ({fact[0]!r})"
                    return
        ((there,),) = self._database.execute("SELECT count(*) FROM facts")
        if there != count:
            yield f"{self._database.file}: facts do not fit the metadata: {there} are there, {count} should be"


def check_size(metadata: Mapping[str, Any], place: str) -> None:
    """Raise `InputError` if a document's facts pass 16 MiB: every key's path is written out, so that nesting multiplies."""
    size = 0
    for path, _, value in _facts(metadata, ""):
        size += len(path) + (len(value) if isinstance(value, str) else 8)
        if size > _LARGEST:
            raise InputError(
                f"{place}: written out for filters, its paths and values pass {_LARGEST} characters; nest it less, or "
                "shorten its keys"
            )


def facts_of(metadata: Mapping[str, Any]) -> set[tuple[str, int, Any]]:
    """Return `(path, kind, value)` of everything in a document's metadata."""
    return set(_facts(metadata, ""))


def _facts(metadata: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, int, Any]]:
    for key, value in metadata.items():
        path = prefix + key
        yield (path, *typed(value))
        if isinstance(value, Mapping):
            yield from _facts(value, f"{path}.")
        elif isinstance(value, list):
            yield from ((path, kind + 10, plain) for kind, plain in map(typed, value) if kind < Kind.LIST)


def typed(value: object, place: str = "value") -> tuple[Kind, Any]:
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
