"""The `meta` table: what an index is made of, as one typed value, and the JSON records behind it.

table = MetaTable(database)
meta = table.read()
table.write(replace(meta, generation=meta.generation + 1))     # inside a transaction
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tp_retrieval.errors import CorruptIndexError, InputError
from tp_retrieval.indexing.storage.raw_vectors import RawPrecision
from tp_retrieval.sqlite.database import Database
from tp_retrieval.sqlite.digest import check_record, record_digest
from tp_retrieval.types import Provenance, VectorView

FORMAT = 5
"""The disk format that this version writes."""

_DISPOSABLE = ("snapshot", "maps_tried", "libraries", "files")
"""Records without which an index still opens: damaged ones count as missing, and `problems` names them."""


@dataclass(frozen=True)
class Tuning:
    """How an approximate index was built and is searched, and the recall that it has at least.

    `recall` is the lower bound of a confidence interval over queries that are not rows. `parameters` are FAISS's;
    `candidates` rows are fetched and scored exactly for each row asked for. Rows that differ from what their codes stand
    for by more than `residual`, a squared distance, are candidates of every search.
    """

    factory: str
    trained_on: int
    parameters: str
    candidates: int
    target_recall: float
    recall: float
    residual: float | None = None


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
class FileSettings:
    """How the files of an index are found, read and cut.

    Paths in the documents' metadata and ids are relative to `root`. `include` and `exclude` are patterns of .gitignore.
    `encoding` None means that it is detected, and `json_text` is the path of texts in JSON.
    """

    root: str
    chunk_tokens: int = 256
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    encoding: str | None = None
    json_text: str | None = None


@dataclass(frozen=True)
class IndexMeta:
    """What an index is made of.

    `generation` grows whenever the in-memory vectors of every process become invalid. `maps_tried` are the maps that the
    last fit asked for, one a view; the fitted ones may be lesser. `provenance` is None for an embedder without one. `files`
    are the settings of each namespace that files were read into.
    """

    dimension: int
    fingerprint: str
    views: tuple[VectorView, ...]
    vectors: VectorSettings
    provenance: Provenance | None = None
    tokenizer: str = "words"
    raw: RawPrecision = "float32"
    libraries: Mapping[str, str] = field(default_factory=dict)
    generation: int = 0
    snapshot: SnapshotRecord | None = None
    maps_tried: tuple[str, ...] = ()
    files: Mapping[str, FileSettings] = field(default_factory=dict)

    @property
    def dense_weight(self) -> float | None:
        """The recipe's share of the dense score in hybrid searches, None without one."""
        return None if self.provenance is None else self.provenance.recipe.get("dense_weight")

    def records(self) -> dict[str, Any]:
        """Return the JSON value of each record."""
        values = asdict(self)
        return {name: value for name, value in values.items() if value or name not in _DISPOSABLE}


_NAMES = {record.name for record in fields(IndexMeta)}
_ADAPTER = TypeAdapter(IndexMeta)


class MetaTable:
    """The `meta` table: JSON values by name, each with a digest. Changes are made inside a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self) -> IndexMeta:
        """Return the whole table; raise `CorruptIndexError` naming a record that is missing, damaged or misshapen."""
        texts = {}
        for name, text, digest in self._database.execute("SELECT key, value, digest FROM meta"):
            try:
                texts[name] = self._checked(name, text, digest)
            except CorruptIndexError:
                if name in _NAMES - {*_DISPOSABLE}:
                    raise
        meta = self._parsed(texts, _DISPOSABLE)
        widths = [view.width for view in meta.views]
        if sum(widths) != meta.dimension or min(widths, default=0) < 1:
            raise CorruptIndexError(f"{self._database.file}: meta records 'views' and 'dimension' contradict each other")
        if not isinstance(meta.dense_weight, (int, float, NoneType)):
            raise CorruptIndexError(f"{self._database.file}: meta record 'provenance': dense_weight must be a number")
        return meta

    def write(self, meta: IndexMeta) -> None:
        """Store the records that differ from the stored ones; raise `InputError` for what could not be read again."""
        stored = dict(self._database.execute("SELECT key, value FROM meta"))
        records = meta.records()
        try:
            self._parsed({name: _text_of(value) for name, value in records.items()})
        except CorruptIndexError as error:
            raise InputError(f"the index can't keep this: {error}") from error
        for name, value in records.items():
            if stored.get(name) != _text_of(value):
                self.set(name, value)
        for name in stored.keys() & _NAMES - records.keys():
            self.remove(name)

    def get(self, name: str) -> Any:
        """Return the JSON value of one record, None where it is missing."""
        row = self._database.first("SELECT value, digest FROM meta WHERE key = ?", (name,))
        if row is None:
            return None
        return parsed_json(self._database.file, f"meta record {name!r}", self._checked(name, *row))

    def set(self, name: str, value: Any) -> None:
        """Store the JSON value of one record."""
        text = _text_of(value)
        self._database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (name, text, record_digest(name, text)))

    def remove(self, name: str) -> None:
        """Remove one record."""
        self._database.execute("DELETE FROM meta WHERE key = ?", (name,))

    def remove_derived(self) -> None:
        """Remove the snapshot's record, and damaged ones that an index works without."""
        meta = self.read()
        for name in _DISPOSABLE:
            self.remove(name)
        self.write(replace(meta, snapshot=None))

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the records."""
        names = [name for (name,) in self._database.execute("SELECT key FROM meta")]
        damaged = [problem for name in names for problem in self._problems_of(name)]
        yield from damaged
        if not damaged:
            texts = dict(self._database.execute("SELECT key, value FROM meta"))
            try:
                self._parsed(texts)
                self.read()
            except CorruptIndexError as error:
                yield str(error)

    def _problems_of(self, name: str) -> Iterator[str]:
        try:
            self.get(name)
        except CorruptIndexError as error:
            yield str(error)

    def _checked(self, name: str, text: str, digest: bytes) -> str:
        check_record(self._database.file, f"meta record {name!r}", digest, name, text)
        return text

    def _parsed(self, texts: Mapping[str, str], disposable: Collection[str] = ()) -> IndexMeta:
        """Return the value of records; misshapen ones that are `disposable` count as missing."""
        records = ",".join(f'"{name}":{text}' for name, text in texts.items() if name in _NAMES)
        try:
            return _ADAPTER.validate_json(f"{{{records}}}", strict=True)
        except ValidationError as error:
            problems = error.errors()
            names = {str(problem["loc"][0]) for problem in problems if problem["loc"]}
            if names and names <= {*disposable}:
                return self._parsed({name: text for name, text in texts.items() if name not in names})
            path = ".".join(map(str, problems[0]["loc"])) or "records"
            message = f"meta record {path!r} is misshapen ({problems[0]['msg']})"
            raise CorruptIndexError(f"{self._database.file}: {message}") from error


def parsed_json(file: Path, record: str, text: str) -> Any:
    """Return the value of a record's JSON; raise `CorruptIndexError` naming the record where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError, TypeError) as error:
        raise CorruptIndexError(f"{file}: {record} holds no JSON ({error})") from error


def _text_of(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
