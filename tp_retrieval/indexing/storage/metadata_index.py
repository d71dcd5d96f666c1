"""The table `facts`, which filters read: every metadata value of every document, ordered by path, kind and value.

A fact is one value under its dotted path: `{"a": {"b": 1}}` has the facts `a` (an object) and `a.b` (the number 1). A
condition reads only the rows that match it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tp_retrieval.errors import InputError
from tp_retrieval.indexing.metadata_json import DATE, from_json, microseconds
from tp_retrieval.sqlite.database import LOWER, Database
from tp_retrieval.types import check_text

Seqs = NDArray[np.int64]
"""Row numbers, ascending and each once."""


_LARGEST = 2**24  # characters of one document's facts


class Kind(IntEnum):
    """The kind of a value; values of different kinds are never equal and have no order. Elements are those of lists."""

    NULL = 0
    BOOLEAN = 1
    NUMBER = 2
    STRING = 3
    LIST = 4
    OBJECT = 5
    DATE = 6
    NULL_ELEMENT = 10
    BOOLEAN_ELEMENT = 11
    NUMBER_ELEMENT = 12
    STRING_ELEMENT = 13
    DATE_ELEMENT = 16

    @property
    def is_plain(self) -> bool:
        """Whether a value of the kind can be an element."""
        return self <= Kind.STRING or self is Kind.DATE


@dataclass(frozen=True)
class Comparison:
    """A condition on the facts of one path: its operator and the values of the SQL's parameters."""

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
    """The table of facts. Changes are made inside a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def insert(self, documents: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """Add the facts of rows `(seq, metadata)`."""
        rows = [(*fact, seq) for seq, metadata in documents for fact in facts_of(metadata)]
        self._database.execute_many("INSERT INTO facts VALUES (?, ?, ?, ?)", sorted(rows))  # in the order of the table

    def remove(self, seq: int, metadata: Mapping[str, Any]) -> None:
        """Remove the facts of a row, given the metadata it was added with."""
        rows = [(*fact, seq) for fact in facts_of(metadata)]
        self._database.execute_many("DELETE FROM facts WHERE path = ? AND kind = ? AND value = ? AND seq = ?", rows)

    def clear(self) -> None:
        """Remove all facts."""
        self._database.execute("DELETE FROM facts")

    def rebuild(self) -> None:
        """Fill the table anew from the documents."""
        self.clear()
        rows = self._database.execute("SELECT seq, metadata FROM documents")
        self.insert((seq, from_json(metadata)) for seq, metadata in rows)

    def matching(self, comparison: Comparison) -> Seqs:
        """Return the rows that a condition holds for."""
        if comparison.name == "$in":
            path, kind, *values = comparison.parameters
            rows = self._database.select_in(f"{_OF_ONE_KIND} IN (?)", values, before=(path, kind))
            return ascending(np.fromiter((seq for (seq,) in rows), dtype=np.int64))
        return ascending(self._database.numbers(_SQL[comparison.name], comparison.parameters))

    def paths(self) -> list[str]:
        """Return all paths, sorted; each is looked up behind the one before, since a scan would read every fact."""
        paths: list[str] = []
        while (row := self._database.first("SELECT min(path) FROM facts WHERE path > ?", paths[-1:] or [""])) and row[0]:
            paths.append(str(row[0]))
        return paths

    def problems(self) -> Iterator[str]:
        """Yield a sentence for the first difference between the table and the documents' metadata."""
        count = 0
        sql = "SELECT 1 FROM facts WHERE path = ? AND kind = ? AND value = ? AND seq = ?"
        for seq, metadata in self._database.each("SELECT seq, metadata FROM documents"):
            for fact in facts_of(from_json(metadata)):
                count += 1
                if self._database.first(sql, (*fact, seq)) is None:
                    yield f"{self._database.file}: facts do not fit the metadata, first at record {seq} ({fact[0]!r})"
                    return
        ((stored,),) = self._database.execute("SELECT count(*) FROM facts")
        if stored != count:
            yield f"{self._database.file}: facts do not fit the metadata: {stored} are stored, {count} should be"


def ascending(numbers: Seqs) -> Seqs:
    """Return numbers ascending and each once; those of facts come in runs, which this sort merges."""
    ordered = np.sort(numbers, kind="stable")
    repeated = ordered[1:] == ordered[:-1]
    return ordered[np.append(True, ~repeated)] if repeated.any() else ordered


def check_size(metadata: Mapping[str, Any], name: str) -> None:
    """Raise `InputError` if a document's facts pass 16 MiB: every key's path is written out, so that nesting multiplies."""
    size = 0
    for path, _, value in _facts(metadata, ""):
        size += len(path) + (len(value) if isinstance(value, str) else 8)
        if size > _LARGEST:
            raise InputError(
                f"{name}: written out for filters, its paths and values pass {_LARGEST} characters; nest it less, or "
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
            yield from ((path, kind + 10, plain) for kind, plain in map(typed, value) if kind.is_plain)


def typed(value: object, name: str = "value") -> tuple[Kind, Any]:
    """Return a value's kind and its representation in SQLite; raise `InputError` for one that metadata can't hold.

    A date is the midnight that begins it, and a time without a zone is one of UTC.
    """
    if value is None:
        return Kind.NULL, 0
    if isinstance(value, bool):
        return Kind.BOOLEAN, int(value)
    if isinstance(value, int) or (isinstance(value, float) and not math.isnan(value)):
        return Kind.NUMBER, _number(value)
    if isinstance(value, str):
        check_text(value, name)
        return Kind.STRING, value
    if isinstance(value, date):
        return Kind.DATE, microseconds(value)
    if isinstance(value, (list, tuple)):
        try:
            return Kind.LIST, json.dumps(_canonical(value), sort_keys=True, ensure_ascii=True)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{name}: JSON can't hold it ({error})") from error
    if isinstance(value, Mapping):
        return Kind.OBJECT, 0
    raise InputError(f"{name}: expected what JSON holds, got {value!r}")


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
        return [_canonical(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, date):
        return {DATE: microseconds(value)}
    return int(value) if isinstance(value, float) and value.is_integer() else value
