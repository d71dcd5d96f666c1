"""The index's truth on disk: one SQLite file with documents, metadata, raw vectors and full text.

Every change is one transaction. WAL with `synchronous=FULL`, so that what was committed survives a kill or a power cut.
`seq` is a row's number for ever: AUTOINCREMENT never gives one out twice, so that it can serve as FAISS's id.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from tp_retrieval.errors import (
    CorruptIndexError,
    IncompatibleIndexError,
    IndexAccessError,
    IndexExistsError,
    IndexLockedError,
    IndexNotFoundError,
    InputError,
)
from tp_retrieval.types import Document, Float32Array

FORMAT = 1
FILE = "index.sqlite"
_BUSY_SECONDS = 30.0
_CHUNK = 500  # ids in one SQL statement, below SQLite's smallest limit of 999
_MAX_QUERY_WORDS = 200

_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents(
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    text TEXT NOT NULL,
    metadata TEXT NOT NULL,
    vector BLOB NOT NULL,
    digest BLOB NOT NULL
);
CREATE TABLE maps(view INTEGER PRIMARY KEY, postprocess TEXT NOT NULL, fitted_on INTEGER NOT NULL);
CREATE TABLE map_arrays(view INTEGER NOT NULL, name TEXT NOT NULL, shape TEXT NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY(view, name));
CREATE VIRTUAL TABLE fulltext USING fts5(text, content='documents', content_rowid='seq', tokenize='porter unicode61');
"""


@dataclass(frozen=True)
class StoredMap:
    """A view's fitted map: its kind, how many rows it was fitted on, and its arrays by name."""

    postprocess: str
    fitted_on: int
    arrays: Mapping[str, Float32Array]


class Store:
    """Open the SQLite file of an index folder; `create` makes it first.

    Raises `IndexNotFoundError`, `IndexAccessError`, `CorruptIndexError` or `IncompatibleIndexError`. Not thread-safe: its
    owner calls it under one lock.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE
        try:
            there = self.file.is_file()
        except OSError as error:
            raise IndexAccessError(f"can't read {folder}: {error}") from error
        if not there:
            raise IndexNotFoundError(f"no index at {folder}: {FILE} is missing")
        self._connection = self._connect()
        try:
            version = self._readable_format()
            if version is None:
                raise IndexNotFoundError(f"no index at {folder}: its making was cut short; make it again")
            if version != FORMAT:
                raise IncompatibleIndexError(f"{self.file}: format stored {version}, this version reads {FORMAT}")
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, folder: Path, meta: Mapping[str, Any]) -> Store:
        """Make an empty store whose meta table holds `meta` as JSON values."""
        self = cls.__new__(cls)
        self.file = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise IndexAccessError(f"can't make {folder}: {error}") from error
        self._connection = self._connect()
        try:
            with self._explained():
                self._connection.execute("PRAGMA journal_mode = WAL")
            with self.transaction():
                if self._format() is not None:
                    raise IndexExistsError(f"there is an index at {folder} already; open it, or choose another place")
                for statement in _SCHEMA.split(";\n"):
                    self._connection.execute(statement)
                for key, value in {"format": FORMAT, "deletions": 0, "map_generation": 0, **meta}.items():
                    self.set_meta(key, value)
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    # -- transactions

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make the changes inside durable together, or none of them."""
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let everything read inside be of one moment."""
        with self._explained():
            self._connection.execute("BEGIN")
            self._connection.execute("SELECT 1 FROM meta LIMIT 1")  # the moment is that of the first read
            try:
                yield
            finally:
                self._connection.execute("ROLLBACK")

    def size(self) -> int:
        """Return the bytes of the database, without what is still in its log."""
        row = self._one("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
        return 0 if row is None else int(row[0])

    def data_version(self) -> int:
        """Return a number that changes when another connection commits."""
        with self._explained():
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    # -- meta

    def meta(self, key: str) -> Any:
        """Return a value of the meta table, None where it is missing."""
        row = self._one("SELECT value FROM meta WHERE key = ?", (key,))
        try:
            return None if row is None else json.loads(row[0])
        except ValueError as error:
            raise CorruptIndexError(f"{self.file}: meta record {key!r} is damaged ({error})") from error

    def set_meta(self, key: str, value: Any) -> None:
        """Put a JSON value into the meta table."""
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value, sort_keys=True)))

    def maps(self) -> list[StoredMap]:
        """Return the fitted maps, one a view; empty before the first fit."""
        found = []
        with self._explained():
            for view, postprocess, fitted_on in self._connection.execute("SELECT * FROM maps ORDER BY view").fetchall():
                rows = self._connection.execute("SELECT name, shape, data FROM map_arrays WHERE view = ?", (view,))
                arrays = {n: np.frombuffer(data, "<f4").reshape(json.loads(shape)) for n, shape, data in rows}
                found.append(StoredMap(postprocess, fitted_on, arrays))
        return found

    def set_maps(self, maps: Sequence[StoredMap]) -> None:
        """Replace the fitted maps, inside a transaction."""
        self._connection.execute("DELETE FROM maps")
        self._connection.execute("DELETE FROM map_arrays")
        for view, fitted in enumerate(maps):
            self._connection.execute("INSERT INTO maps VALUES (?, ?, ?)", (view, fitted.postprocess, fitted.fitted_on))
            for name, array in fitted.arrays.items():
                data = array.astype("<f4").tobytes()
                self._connection.execute(
                    "INSERT INTO map_arrays VALUES (?, ?, ?, ?)", (view, name, json.dumps(array.shape), data)
                )
        self.set_meta("map_generation", self.meta("map_generation") + 1)

    # -- documents

    def __len__(self) -> int:
        row = self._one("SELECT count(*) FROM documents")
        return 0 if row is None else int(row[0])

    def insert(self, documents: Iterable[tuple[str, str, str]], vectors: Float32Array) -> None:
        """Add rows `(id, text, metadata JSON)` with their raw vectors, inside a transaction."""
        for (id_, text, metadata), vector in zip(documents, vectors, strict=True):
            blob = vector.astype("<f4").tobytes()
            cursor = self._connection.execute(
                "INSERT INTO documents(id, text, metadata, vector, digest) VALUES (?, ?, ?, ?, ?)",
                (id_, text, metadata, blob, _digest(id_, text, metadata, blob)),
            )
            self._connection.execute("INSERT INTO fulltext(rowid, text) VALUES (?, ?)", (cursor.lastrowid, text))

    def delete(self, ids: Sequence[str]) -> int:
        """Remove rows by id, inside a transaction, and return how many there were."""
        count = 0
        for part in _chunks(ids):
            sql = f"SELECT seq, text FROM documents WHERE id IN ({_marks(part)})"
            rows = self._connection.execute(sql, part).fetchall()
            for seq, text in rows:
                self._connection.execute("INSERT INTO fulltext(fulltext, rowid, text) VALUES('delete', ?, ?)", (seq, text))
                self._connection.execute("DELETE FROM documents WHERE seq = ?", (seq,))
            count += len(rows)
        if count:
            self.set_meta("deletions", self.meta("deletions") + count)
        return count

    def clear(self) -> int:
        """Remove every row and the fitted maps, inside a transaction, and return how many rows there were."""
        count = len(self)
        self._connection.execute("INSERT INTO fulltext(fulltext) VALUES('delete-all')")
        self._connection.execute("DELETE FROM documents")
        self.set_maps([])
        self.set_meta("deletions", self.meta("deletions") + count)
        return count

    def documents_by_id(self, ids: Sequence[str]) -> dict[str, Document]:
        """Return the documents that exist, by id."""
        found: dict[str, Document] = {}
        for part in _chunks(ids):
            found |= {str(document.id): document for _, document in self._documents(f"id IN ({_marks(part)})", part)}
        return found

    def documents_by_seq(self, seqs: Sequence[int]) -> dict[int, Document]:
        """Return the documents of rows."""
        found: dict[int, Document] = {}
        for part in _chunks(seqs):
            found.update(self._documents(f"seq IN ({_marks(part)})", part))
        return found

    def documents(self) -> Iterator[Document]:
        """Yield every document in the order they were added."""
        last = 0
        while True:
            rows = list(self._documents("seq > ? ORDER BY seq LIMIT 500", (last,)))
            if not rows:
                return
            yield from (document for _, document in rows)
            last = rows[-1][0]

    def _documents(self, condition: str, values: Sequence[Any]) -> Iterator[tuple[int, Document]]:
        sql = f"SELECT seq, id, text, metadata, vector, digest FROM documents WHERE {condition}"
        with self._explained():
            rows = self._connection.execute(sql, tuple(values)).fetchall()
        for seq, id_, text, metadata, vector, digest in rows:
            self._check(seq, id_, text, metadata, vector, digest)
            yield seq, Document(text, json.loads(metadata), id_)

    def vectors(self, after: int = 0, batch: int = 4096) -> Iterator[tuple[NDArray[np.int64], Float32Array]]:
        """Yield row numbers beyond `after` and their raw vectors, in order, in batches."""
        while True:
            with self._explained():
                rows = self._connection.execute(
                    "SELECT seq, id, text, metadata, vector, digest FROM documents WHERE seq > ? ORDER BY seq LIMIT ?",
                    (after, batch),
                ).fetchall()
            if not rows:
                return
            for row in rows:
                self._check(*row)
            seqs = np.array([row[0] for row in rows], dtype=np.int64)
            yield seqs, np.frombuffer(b"".join(row[4] for row in rows), dtype="<f4").reshape(len(rows), -1)
            after = int(seqs[-1])

    def seqs(self) -> NDArray[np.int64]:
        """Return the numbers of all rows in order."""
        with self._explained():
            rows = self._connection.execute("SELECT seq FROM documents ORDER BY seq").fetchall()
        return np.array([row[0] for row in rows], dtype=np.int64)

    # -- full text

    def lexical(self, query: str, k: int, among: Sequence[int] | None = None) -> dict[int, float]:
        """Return the best k rows (of `among`) for any of the query's words with their BM25 score, higher is better.

        FTS5's `bm25()` has k1 = 1.2 and b = 0.75 and counts down from 0, so its sign is turned. A query is text: its
        words are quoted, and FTS5's own syntax has no meaning in it.
        """
        words = list(dict.fromkeys(re.findall(r"\w+", unicodedata.normalize("NFC", query))))[:_MAX_QUERY_WORDS]
        if not words or k < 1:
            return {}
        match = " OR ".join(f'"{word}"' for word in words)
        if among is None:
            sql = "SELECT rowid, -bm25(fulltext) AS score FROM fulltext WHERE fulltext MATCH ?"
            return self._scores(f"{sql} ORDER BY score DESC, rowid LIMIT ?", (match, k))
        found: dict[int, float] = {}
        for part in _chunks(among):
            sql = f"SELECT rowid, -bm25(fulltext) FROM fulltext WHERE fulltext MATCH ? AND rowid IN ({_marks(part)})"
            found |= self._scores(sql, (match, *part))
        return found

    def _scores(self, sql: str, values: Sequence[Any]) -> dict[int, float]:
        with self._explained():
            return {int(seq): float(score) for seq, score in self._connection.execute(sql, tuple(values))}

    # -- plumbing

    def _connect(self) -> sqlite3.Connection:
        with self._explained():
            connection = sqlite3.connect(self.file, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _connect_read_only(self) -> sqlite3.Connection:
        """Open a file in a place that can't be written, where SQLite could not keep a log."""
        with self._explained():
            uri = f"file:{quote(str(self.file.absolute()))}?mode=ro&immutable=1"
            return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)

    def _readable_format(self) -> int | None:
        """Return the format, through a read-only connection where the place can't be written."""
        try:
            return self._format()
        except IndexAccessError:
            self.close()
            if self.file.with_name(f"{FILE}-wal").exists():
                raise  # what was committed last lies in the log, which can't be read without writing
            self._connection = self._connect_read_only()
            return self._format()

    def _format(self) -> int | None:
        if self._one("SELECT 1 FROM sqlite_master WHERE name = 'meta'") is None:
            return None
        version = self.meta("format")
        return None if version is None else int(version)

    def _one(self, sql: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        with self._explained():
            row: tuple[Any, ...] | None = self._connection.execute(sql, tuple(values)).fetchone()
        return row

    def _check(self, seq: int, id_: str, text: str, metadata: str, vector: bytes, digest: bytes) -> None:
        if _digest(id_, text, metadata, vector) != digest:
            raise CorruptIndexError(f"{self.file}: record {seq} (id {id_!r}) is damaged; its digest does not fit")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into ours, naming the file."""
        try:
            yield
        except sqlite3.ProgrammingError as error:
            raise InputError(f"{self.file}: the index is closed ({error})") from error
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise IndexLockedError(f"{self.file}: another process is writing ({error}); try again") from error
            raise IndexAccessError(f"{self.file}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise CorruptIndexError(f"{self.file}: {error}") from error


def _digest(id_: str, text: str, metadata: str, vector: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in (id_.encode(), text.encode(), metadata.encode(), vector):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def _chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for begin in range(0, len(values), _CHUNK):
        yield values[begin : begin + _CHUNK]


def _marks(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))
