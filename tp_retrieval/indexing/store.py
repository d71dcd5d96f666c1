"""The index's truth on disk: documents, metadata, raw vectors, facts for filters and full text, in one SQLite file.

Every change is one transaction. `seq` is a row's number for ever: AUTOINCREMENT never gives one out twice, so that it can
serve as FAISS's id. Every record carries a digest of its content, checked when it is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tp_retrieval.errors import (
    CorruptIndexError,
    IncompatibleIndexError,
    IndexAccessError,
    IndexExistsError,
    IndexNotFoundError,
)
from tp_retrieval.indexing.database import Database, chunks, marks, objects_made_by
from tp_retrieval.indexing.facts import Facts, Seqs
from tp_retrieval.indexing.filters import Condition, answer
from tp_retrieval.indexing.fulltext import TOKENIZERS, FullText
from tp_retrieval.indexing.schema import FORMAT, MIGRATIONS, statements
from tp_retrieval.types import Document, Float32Array

FILE = "index.sqlite"
_ROW = "seq, id, text, metadata, vector, digest"


@dataclass(frozen=True)
class StoredMap:
    """A view's fitted map: its kind, how many rows it was fitted on, and its arrays by name."""

    postprocess: str
    fitted_on: int
    arrays: Mapping[str, Float32Array]


class Store:
    """Open the SQLite file of an index folder; `create` makes it first.

    An older format is brought to the present one. Raises `IndexNotFoundError`, `IndexAccessError`, `CorruptIndexError` or
    `IncompatibleIndexError`. Not thread-safe: its owner calls it under one lock.
    """

    def __init__(self, folder: Path) -> None:
        file = folder / FILE
        try:
            there, linked = file.is_file(), file.is_symlink()
        except OSError as error:
            raise IndexAccessError(f"can't read {folder}: {error}") from error
        if not there:
            raise IndexNotFoundError(f"no index at {folder}: {FILE} is missing")
        if linked:
            raise IndexAccessError(f"{file} is a link out of its folder; link the folder instead")
        self.database = Database(file)
        self.facts = Facts(self.database)
        try:
            version = self._format()
            if version is None:
                raise IndexNotFoundError(f"no index at {folder}: its making was cut short; make it again")
            if version not in (FORMAT, *MIGRATIONS):
                raise IncompatibleIndexError(f"{file}: format stored {version}, this version reads up to {FORMAT}")
            if version == FORMAT:
                self._check_schema()
            else:
                self._migrate()
            self.fulltext = FullText(self.database, self.meta("tokenizer"))
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, folder: Path, meta: Mapping[str, Any], *, tokenizer: str = "words") -> Store:
        """Make an empty store whose meta table holds `meta` as JSON values."""
        self = cls.__new__(cls)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise IndexAccessError(f"can't make {folder}: {error}") from error
        self.database = Database(folder / FILE)
        self.facts, self.fulltext = Facts(self.database), FullText(self.database, tokenizer)
        try:
            self._refuse_another(folder)
            self.database.keep_log()
            with self.transaction():
                self._refuse_another(folder)  # made meanwhile
                for statement in statements(tokenizer):
                    self.database.execute(statement)
                for key, value in {"format": FORMAT, "generation": 0, "tokenizer": tokenizer, **meta}.items():
                    self.set_meta(key, value)
        except BaseException:
            self.close()
            raise
        return self

    @property
    def file(self) -> Path:
        """The database file."""
        return self.database.file

    def forget_meta(self, key: str) -> None:
        """Remove a record of the meta table, inside a transaction."""
        self.database.execute("DELETE FROM meta WHERE key = ?", (key,))

    def close(self, *, seal: bool = False) -> None:
        """Close the file, sealed if it may be."""
        if seal:
            self.database.close_sealed()
        else:
            self.database.close()

    def transaction(self) -> AbstractContextManager[None]:
        """Make the changes inside durable together, or none of them."""
        return self.database.transaction()

    def snapshot(self) -> AbstractContextManager[None]:
        """Let everything read inside be of one moment."""
        return self.database.snapshot()

    # -- meta

    def meta(self, key: str) -> Any:
        """Return a value of the meta table, None where it is missing."""
        row = self.database.first("SELECT value, digest FROM meta WHERE key = ?", (key,))
        if row is None:
            return None
        self._check(row[1], f"meta record {key!r}", key, row[0])
        return self._loaded(row[0], f"meta record {key!r}")

    def set_meta(self, key: str, value: Any) -> None:
        """Put a JSON value into the meta table."""
        text = json.dumps(value, sort_keys=True)
        self.database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (key, text, _digest(key, text)))

    def maps(self) -> list[StoredMap]:
        """Return the fitted maps, one a view; empty before the first fit."""
        found = []
        for view, postprocess, fitted_on, digest in self.database.execute("SELECT * FROM maps ORDER BY view"):
            self._check(digest, f"map {view}", view, postprocess, fitted_on)
            arrays = {}
            rows = self.database.execute("SELECT name, shape, data, digest FROM map_arrays WHERE view = ?", (view,))
            for name, shape, data, digest_ in rows:
                self._check(digest_, f"map {view}, {name}", view, name, shape, data)
                arrays[name] = np.frombuffer(data, "<f4").reshape(json.loads(shape))
            found.append(StoredMap(postprocess, fitted_on, arrays))
        return found

    def set_maps(self, maps: Sequence[StoredMap]) -> None:
        """Replace the fitted maps, inside a transaction."""
        self.database.execute("DELETE FROM maps")
        self.database.execute("DELETE FROM map_arrays")
        for view, fitted in enumerate(maps):
            self.put_map(view, fitted.postprocess, fitted.fitted_on)
            for name, array in fitted.arrays.items():
                self.put_map_array(view, name, json.dumps(array.shape), array.astype("<f4").tobytes())
        self.next_generation()

    def put_map(self, view: int, postprocess: str, fitted_on: int) -> None:
        """Add a record of `maps`."""
        values = (view, postprocess, fitted_on)
        self.database.execute("INSERT INTO maps VALUES (?, ?, ?, ?)", (*values, _digest(*values)))

    def put_map_array(self, view: int, name: str, shape: str, data: bytes) -> None:
        """Add a record of `map_arrays`."""
        values = (view, name, shape, data)
        self.database.execute("INSERT INTO map_arrays VALUES (?, ?, ?, ?, ?)", (*values, _digest(*values)))

    def next_generation(self) -> None:
        """Tell every process that its image of the vectors is of the past, inside a transaction."""
        self.set_meta("generation", self.meta("generation") + 1)

    # -- documents

    def __len__(self) -> int:
        row = self.database.first("SELECT count(*) FROM documents")
        return 0 if row is None else int(row[0])

    def insert(self, documents: Sequence[tuple[str, str, str]], vectors: Float32Array) -> None:
        """Add rows `(id, text, metadata JSON)` with their raw vectors, inside a transaction."""
        last = self.database.first("SELECT seq FROM sqlite_sequence WHERE name = 'documents'")
        numbered = list(enumerate(documents, 1 + (0 if last is None else int(last[0]))))

        def rows() -> Iterator[tuple[Any, ...]]:
            for (seq, (id_, text, metadata)), vector in zip(numbered, vectors, strict=True):
                values = (seq, id_, text, metadata, vector.astype("<f4").tobytes())
                yield (*values, _digest(*values))

        self.database.execute_many("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?)", rows())
        self.fulltext.insert((seq, text) for seq, (_, text, _) in numbered)
        self.facts.insert((seq, metadata) for seq, (_, _, metadata) in numbered)

    def delete(self, ids: Sequence[str]) -> int:
        """Remove rows by id, damaged ones too, inside a transaction, and return how many there were."""
        rows = []
        for part in chunks(list(dict.fromkeys(ids))):
            rows += self.database.execute(f"SELECT {_ROW} FROM documents WHERE id IN ({marks(part)})", part)
        damaged = False
        for row in rows:
            seq, _, text, metadata = row[:4]
            if _digest(*row[:5]) == row[5]:
                self.facts.delete(seq, metadata)
                self.fulltext.delete(seq, text)
            else:
                damaged = True
        self.drop(row[0] for row in rows)
        if damaged:  # what was made of them when they were whole can't be told any more
            self.remake()
        return len(rows)

    def clear(self) -> int:
        """Remove every row and the fitted maps, inside a transaction, and return how many rows there were."""
        count = len(self)
        self.fulltext.clear()
        for table in ("documents", "facts", "deletions"):
            self.database.execute(f"DELETE FROM {table}")
        self.set_maps([])
        self.set_meta("vectors", self.meta("vectors") | {"tuning": None})
        return count

    def select(self, condition: Condition | None, ids: Sequence[str] | None, everything: Seqs | None = None) -> Seqs | None:
        """Return the rows that a condition holds for and that are named, ascending; None if neither restricts them.

        `everything` are all rows, where they are known already.
        """
        named = None if ids is None else self._seqs_of(ids)
        if condition is None:
            return named
        matching = answer(condition, self.facts.matching, self.seqs() if everything is None else everything)
        return matching if named is None else np.intersect1d(named, matching, assume_unique=True)

    def _seqs_of(self, ids: Sequence[str]) -> Seqs:
        found: list[int] = []
        for part in chunks(list(dict.fromkeys(ids))):
            rows = self.database.execute(f"SELECT seq FROM documents WHERE id IN ({marks(part)})", part)
            found += [row[0] for row in rows]
        return np.array(sorted(found), dtype=np.int64)

    def ids_of(self, seqs: Seqs) -> list[str]:
        """Return the ids of rows."""
        found: list[str] = []
        for part in chunks(seqs.tolist()):
            rows = self.database.execute(f"SELECT id FROM documents WHERE seq IN ({marks(part)})", part)
            found += [row[0] for row in rows]
        return found

    def documents_by_seq(self, seqs: Sequence[int]) -> dict[int, Document]:
        """Return the documents of rows."""
        found: dict[int, Document] = {}
        for part in chunks(seqs):
            found.update(self._documents(f"seq IN ({marks(part)})", part))
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
        for row in self.database.execute(f"SELECT {_ROW} FROM documents WHERE {condition}", values):
            self._check_row(row)
            seq, id_, text, metadata = row[:4]
            yield seq, Document(text, self._loaded(metadata, f"record {seq}"), id_)

    def vectors(self, after: int = 0, batch: int = 1024) -> Iterator[tuple[Seqs, Float32Array]]:
        """Yield row numbers beyond `after` and their raw vectors, in order, in batches."""
        while True:
            sql = f"SELECT {_ROW} FROM documents WHERE seq > ? ORDER BY seq LIMIT ?"
            rows = self.database.execute(sql, (after, batch))
            if not rows:
                return
            seqs, vectors = self._matrix(rows)
            yield seqs, vectors
            after = int(seqs[-1])

    def vectors_of(self, seqs: Seqs) -> Float32Array:
        """Return the raw vectors of rows, in the order asked for; raise `CorruptIndexError` if one is missing."""
        rows = []
        for part in chunks(seqs.tolist()):
            rows += self.database.execute(f"SELECT {_ROW} FROM documents WHERE seq IN ({marks(part)})", part)
        found, vectors = self._matrix(rows) if rows else (seqs[:0], np.zeros((0, 0), dtype=np.float32))
        missing = np.setdiff1d(seqs, found)
        if len(missing):
            raise CorruptIndexError(f"{self.file}: record {missing[0]} is missing")
        return vectors[np.searchsorted(found, seqs)]

    def _matrix(self, rows: list[tuple[Any, ...]]) -> tuple[Seqs, Float32Array]:
        for row in rows:
            self._check_row(row)
        rows.sort(key=lambda row: int(row[0]))
        seqs = np.array([row[0] for row in rows], dtype=np.int64)
        return seqs, np.frombuffer(b"".join(row[4] for row in rows), dtype="<f4").reshape(len(rows), -1)

    def seqs(self) -> Seqs:
        """Return the numbers of all rows in order."""
        return np.sort(self.database.numbers("SELECT seq FROM documents"))

    def last_deletion(self) -> int:
        """Return the number of the last deletion."""
        ((number,),) = self.database.execute("SELECT max(number) FROM deletions")
        return number or 0

    def deleted(self, after: int) -> tuple[int, Seqs]:
        """Return the number of the last deletion, and the rows that were deleted after another one."""
        rows = self.database.execute("SELECT number, seq FROM deletions WHERE number > ? ORDER BY number", (after,))
        return (int(rows[-1][0]) if rows else after), np.array([row[1] for row in rows], dtype=np.int64)

    # -- what can be made again

    def damaged(self) -> dict[int, str]:
        """Return the rows whose digest does not fit, each with what to tell of it."""
        found = {}
        for seq in self.seqs().tolist():
            try:
                list(self._documents("seq = ?", (seq,)))
            except CorruptIndexError as error:
                found[seq] = str(error)
        return found

    def problems(self) -> Iterator[str]:
        """Yield what else is wrong in the file: its trees, and what is made of the documents; nothing is changed."""
        for (key,) in self.database.execute("SELECT key FROM meta"):
            try:
                self.meta(key)
            except CorruptIndexError as error:
                yield str(error)
        for line in self.database.execute("PRAGMA integrity_check(20)"):
            if line[0] != "ok":
                yield f"{self.file}: {line[0]}"
        yield from self.facts.problems()
        yield from self.fulltext.problems()

    def drop(self, seqs: Iterable[int]) -> None:
        """Remove rows whatever is in them, inside a transaction; facts and full text must then be remade."""
        for seq in seqs:
            self.database.execute("DELETE FROM documents WHERE seq = ?", (seq,))
            self.database.execute("INSERT INTO deletions(seq) VALUES (?)", (seq,))

    def remake(self) -> None:
        """Make facts and full text anew from the documents, inside a transaction."""
        self.facts.remake()
        self.fulltext.remake()

    def redigest_documents(self) -> None:
        """Give every row the present format's digest, after checking it against format 1's, and its facts."""
        for (seq,) in self.database.execute("SELECT seq FROM documents"):
            (row,) = self.database.execute(f"SELECT {_ROW} FROM documents WHERE seq = ?", (seq,))
            self._check(row[5], f"record {seq} (id {row[1]!r})", *row[1:5])
            self.database.execute("UPDATE documents SET digest = ? WHERE seq = ?", (_digest(*row[:5]), seq))
            self.facts.insert([(seq, row[3])])

    # -- opening

    def _format(self) -> int | None:
        """Return the format, through a read-only connection where the place can't be written."""
        try:
            if not self._has_meta():
                return None
        except IndexAccessError:
            self.database.reopen_read_only()
            if not self._has_meta():
                return None
        row = self.database.first("SELECT value FROM meta WHERE key = 'format'")
        if row is None:
            return None
        if not str(row[0]).isdecimal():
            raise CorruptIndexError(f"{self.file}: meta record 'format' is damaged ({row[0]!r})")
        return int(row[0])

    def _refuse_another(self, folder: Path) -> None:
        if self._has_meta():
            raise IndexExistsError(f"there is an index at {folder} already; open it, or choose another place")

    def _has_meta(self) -> bool:
        return any((kind, name) == ("table", "meta") for kind, name, _ in self.database.objects())

    def _check_schema(self) -> None:
        """Refuse a file with other tables, views or triggers than ours, since reading those would run them."""
        if not any(self.database.objects() == objects_made_by(statements(name)) for name in TOKENIZERS):
            raise CorruptIndexError(f"{self.file}: its tables are not those of an index of format {FORMAT}")

    def _migrate(self) -> None:
        try:
            with self.transaction():
                version = self._format()
                for step in range(version or 1, FORMAT):
                    MIGRATIONS[step](self)
                self.set_meta("format", FORMAT)
        except IndexAccessError as error:
            raise IndexAccessError(
                f"{error}; an index of an older format is brought to format {FORMAT} when it is opened: copy it to a place "
                "that can be written"
            ) from error

    def _loaded(self, text: str, record: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CorruptIndexError(f"{self.file}: {record} holds no JSON ({error})") from error

    def _check_row(self, row: tuple[Any, ...]) -> None:
        self._check(row[5], f"record {row[0]} (id {row[1]!r})", *row[:5])

    def _check(self, digest: bytes, record: str, *values: Any) -> None:
        if _digest(*values) != digest:
            raise CorruptIndexError(f"{self.file}: {record} is damaged; its digest does not fit")


def _digest(*values: str | int | bytes) -> bytes:
    digest = hashlib.sha256()
    for value in values:
        part = value if isinstance(value, bytes) else str(value).encode()
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()
