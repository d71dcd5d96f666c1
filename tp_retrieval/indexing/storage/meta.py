"""The `meta` table: what an index is made of, as one typed value, and the JSON records behind it.

table = MetaTable(database)
meta = table.read()
table.write(replace(meta, generation=meta.generation + 1))     # inside a transaction
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tp_retrieval.errors import CorruptIndexError
from tp_retrieval.sqlite.database import Database
from tp_retrieval.sqlite.digest import check_record, record_digest
from tp_retrieval.types import Provenance, VectorView

FORMAT = 2
"""The disk format that this version writes."""

_DISPOSABLE = ("snapshot", "maps_tried", "libraries")
"""Records without which an index still opens."""

T = TypeVar("T")


@dataclass(frozen=True)
class Tuning:
    """How an approximate index was built and is searched, and the recall that it has at least.

    `recall` is the lower bound of a confidence interval over queries that are not rows. `parameters` are FAISS's;
    `candidates` rows are fetched and scored exactly for each row asked for.
    """

    factory: str
    trained_on: int
    parameters: str
    candidates: int
    target_recall: float
    recall: float


@dataclass(frozen=True)
class VectorSettings:
    """How vectors shall be searched, and how they are: `tuning` is None for exact search."""

    kind: str
    target_recall: float
    tuning: Tuning | None = None


@dataclass(frozen=True)
class SnapshotRecord:
    """The current snapshot file: its name, number and SHA-256, and the state of the store that it holds."""

    file: str
    number: int
    sha256: str
    generation: int
    last_seq: int
    deletion: int


@dataclass(frozen=True)
class IndexMeta:
    """What an index is made of.

    `generation` grows whenever the in-memory vectors of every process become invalid. `maps_tried` are the maps that the
    last fit asked for, one a view; the fitted ones may be lesser. `provenance` is None for an embedder without one.
    """

    dimension: int
    fingerprint: str
    views: tuple[VectorView, ...]
    vectors: VectorSettings
    provenance: Provenance | None
    tokenizer: str
    libraries: Mapping[str, str] = field(default_factory=dict)
    generation: int = 0
    snapshot: SnapshotRecord | None = None
    maps_tried: tuple[str, ...] = ()
    format: int = FORMAT

    def records(self) -> dict[str, Any]:
        """Return the JSON value of each record."""
        values = asdict(self)
        return {name: value for name, value in values.items() if value not in (None, ()) or name not in _DISPOSABLE}


class MetaTable:
    """The `meta` table: JSON values by name, each with a digest. Changes are made inside a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self) -> IndexMeta:
        """Return the whole table; raise `CorruptIndexError` naming a record that is missing, damaged or misshapen."""
        values = {}
        for name, text, digest in self._database.execute("SELECT key, value, digest FROM meta"):
            if name in _PARSERS:
                values[name] = self._parsed(name, self._checked(name, text, digest))
        missing = sorted(_PARSERS.keys() - values.keys() - {*_DISPOSABLE})
        if missing:
            raise CorruptIndexError(f"{self._database.file}: meta record {missing[0]!r} is missing")
        meta = IndexMeta(**values)
        if sum(view.width for view in meta.views) != meta.dimension:
            raise CorruptIndexError(f"{self._database.file}: meta records 'views' and 'dimension' contradict each other")
        return meta

    def write(self, meta: IndexMeta) -> None:
        """Store the records that differ from the stored ones."""
        stored = dict(self._database.execute("SELECT key, value FROM meta"))
        records = meta.records()
        for name, value in records.items():
            if stored.get(name) != _text_of(value):
                self.set(name, value)
        for name in stored.keys() & _PARSERS.keys() - records.keys():
            self.remove(name)

    def get(self, name: str) -> Any:
        """Return the JSON value of one record, None where it is missing."""
        row = self._database.first("SELECT value, digest FROM meta WHERE key = ?", (name,))
        return None if row is None else self._checked(name, *row)

    def set(self, name: str, value: Any) -> None:
        """Store the JSON value of one record."""
        text = _text_of(value)
        self._database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (name, text, record_digest(name, text)))

    def remove(self, name: str) -> None:
        """Remove one record."""
        self._database.execute("DELETE FROM meta WHERE key = ?", (name,))

    def remove_derived(self) -> None:
        """Remove the snapshot's record, and damaged ones that an index works without."""
        self.remove("snapshot")
        for name in _DISPOSABLE:
            try:
                self._parsed(name, self.get(name))
            except CorruptIndexError:
                self.remove(name)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the records."""
        for (name,) in self._database.execute("SELECT key FROM meta"):
            try:
                value = self.get(name)
                if name in _PARSERS:
                    self._parsed(name, value)
            except CorruptIndexError as error:
                yield str(error)

    def _checked(self, name: str, text: str, digest: bytes) -> Any:
        check_record(self._database.file, f"meta record {name!r}", digest, name, text)
        return parsed_json(self._database.file, f"meta record {name!r}", text)

    def _parsed(self, name: str, value: Any) -> Any:
        try:
            return _PARSERS[name](value)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise CorruptIndexError(f"{self._database.file}: meta record {name!r} is misshapen ({error})") from error


def parsed_json(file: Path, record: str, text: str) -> Any:
    """Return the value of a record's JSON; raise `CorruptIndexError` naming the record where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError, TypeError) as error:
        raise CorruptIndexError(f"{file}: {record} holds no JSON ({error})") from error


def _text_of(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


# -- parsing: each raises TypeError, ValueError, KeyError or AttributeError


def _is(kind: type[T] | tuple[type[T], ...], value: Any) -> T:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{value!r:.80} must be {kind}")
    return value


def _count(value: Any) -> int:
    number = _is(int, value)
    if number < 0:
        raise ValueError(f"{number} must not be negative")
    return number


def _number(value: Any) -> float:
    return _is((int, float), value)


def _view(value: Any) -> VectorView:
    view = VectorView(**value)
    _count(view.width)
    _is(str, view.postprocess)
    _number(view.weight)
    return view


def _views(value: Any) -> tuple[VectorView, ...]:
    return tuple(_view(view) for view in _is(list, value))


def _tuning(value: Any) -> Tuning:
    tuning = Tuning(**value)
    for text in (tuning.factory, tuning.parameters):
        _is(str, text)
    for number in (tuning.trained_on, tuning.candidates):
        _count(number)
    for share in (tuning.target_recall, tuning.recall):
        _number(share)
    return tuning


def _settings(value: Any) -> VectorSettings:
    tuning = None if value["tuning"] is None else _tuning(value["tuning"])
    return VectorSettings(_is(str, value["kind"]), _number(value["target_recall"]), tuning)


def _provenance(value: Any) -> Provenance | None:
    if value is None:
        return None
    provenance = Provenance(**{**value, "views": _views(value["views"])})
    _number(_is(dict, provenance.recipe).get("dense_weight", 0))
    return provenance


def _snapshot(value: Any) -> SnapshotRecord | None:
    if value is None:
        return None
    record = SnapshotRecord(**value)
    for text in (record.file, record.sha256):
        _is(str, text)
    for number in (record.number, record.generation, record.last_seq, record.deletion):
        _count(number)
    return record


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "dimension": _count,
    "fingerprint": lambda value: _is(str, value),
    "views": _views,
    "vectors": _settings,
    "provenance": _provenance,
    "tokenizer": lambda value: _is(str, value),
    "libraries": lambda value: _is(dict, value or {}),
    "generation": _count,
    "snapshot": _snapshot,
    "maps_tried": lambda value: tuple(_is(str, name) for name in _is(list, value or [])),
    "format": _count,
}
