"""The rows of an index: documents with their raw vectors, and a log of those that were deleted.

`seq` is a row's number for ever: AUTOINCREMENT never gives one out twice, so that it can serve as FAISS's id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tp_retrieval.errors import CorruptIndexError
from tp_retrieval.indexing.storage.meta import check, digest_of, loaded
from tp_retrieval.indexing.storage.metadata_index import Seqs
from tp_retrieval.sqlite.database import Database, chunks, marks
from tp_retrieval.types import Document, Float32Array

ROW = "seq, id, text, metadata, vector, digest"
Row = tuple[Any, ...]
"""These columns."""


def intact(row: Row) -> bool:
    """Return whether a row is as it was written."""
    return digest_of(*row[:5]) == bytes(row[5])


class Documents:
    """The tables `documents` and `deletions`. Changes are made inside a transaction; facts and full text follow apart."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- changes

    def insert(self, documents: Sequence[tuple[str, str, str]], vectors: Float32Array) -> list[int]:
        """Add rows `(id, text, metadata JSON)` with their raw vectors, and return their numbers."""
        last = self._database.first("SELECT seq FROM sqlite_sequence WHERE name = 'documents'")
        first = 1 + (0 if last is None else int(last[0]))

        def rows() -> Iterator[Row]:
            for seq, (document, vector) in enumerate(zip(documents, vectors, strict=True), first):
                values = (seq, *document, vector.astype("<f4").tobytes())
                yield (*values, digest_of(*values))

        self._database.execute_many("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?)", rows())
        return list(range(first, first + len(documents)))

    def drop(self, seqs: Iterable[int]) -> None:
        """Remove rows whatever is in them, and note it."""
        for seq in seqs:
            self._database.execute("DELETE FROM documents WHERE seq = ?", (seq,))
            self._database.execute("INSERT INTO deletions(seq) VALUES (?)", (seq,))

    def clear(self) -> int:
        """Remove all rows and the log, and return how many rows there were."""
        count = len(self)
        for table in ("documents", "deletions"):
            self._database.execute(f"DELETE FROM {table}")
        return count

    def redigest(self) -> Iterator[tuple[int, str]]:
        """Give every row the present format's digest, after checking it against format 1's; yield number and metadata."""
        for seq in self.seqs().tolist():
            (row,) = self._database.execute(f"SELECT {ROW} FROM documents WHERE seq = ?", (seq,))
            check(self._database.file, _name(row), row[5], *row[1:5])
            self._database.execute("UPDATE documents SET digest = ? WHERE seq = ?", (digest_of(*row[:5]), seq))
            yield seq, row[3]

    # -- reading

    def __len__(self) -> int:
        row = self._database.first("SELECT count(*) FROM documents")
        return 0 if row is None else int(row[0])

    def __iter__(self) -> Iterator[Document]:
        """Yield every document in the order they were added."""
        last = 0
        while True:
            rows = list(self._documents("seq > ? ORDER BY seq LIMIT 500", (last,)))
            if not rows:
                return
            yield from (document for _, document in rows)
            last = rows[-1][0]

    def seqs(self) -> Seqs:
        """Return the numbers of all rows in order."""
        return np.sort(self._database.numbers("SELECT seq FROM documents"))

    def seqs_of(self, ids: Sequence[str]) -> Seqs:
        """Return the numbers of those rows that have one of these ids, in order."""
        found: list[int] = []
        for part in chunks(list(dict.fromkeys(ids))):
            rows = self._database.execute(f"SELECT seq FROM documents WHERE id IN ({marks(part)})", part)
            found += [row[0] for row in rows]
        return np.array(sorted(found), dtype=np.int64)

    def ids_of(self, seqs: Seqs) -> list[str]:
        """Return the ids of rows."""
        found: list[str] = []
        for part in chunks(seqs.tolist()):
            rows = self._database.execute(f"SELECT id FROM documents WHERE seq IN ({marks(part)})", part)
            found += [row[0] for row in rows]
        return found

    def rows_of(self, ids: Sequence[str]) -> list[Row]:
        """Return rows by id as they are, damaged ones too."""
        found: list[Row] = []
        for part in chunks(list(dict.fromkeys(ids))):
            found += self._database.execute(f"SELECT {ROW} FROM documents WHERE id IN ({marks(part)})", part)
        return found

    def by_seq(self, seqs: Sequence[int]) -> dict[int, Document]:
        """Return the documents of rows."""
        found: dict[int, Document] = {}
        for part in chunks(seqs):
            found.update(self._documents(f"seq IN ({marks(part)})", part))
        return found

    def vectors(self, after: int = 0, batch: int = 1024) -> Iterator[tuple[Seqs, Float32Array]]:
        """Yield row numbers beyond `after` and their raw vectors, in order, in batches."""
        while True:
            sql = f"SELECT {ROW} FROM documents WHERE seq > ? ORDER BY seq LIMIT ?"
            rows = self._database.execute(sql, (after, batch))
            if not rows:
                return
            seqs, vectors = self._matrix(rows)
            yield seqs, vectors
            after = int(seqs[-1])

    def vectors_of(self, seqs: Seqs) -> Float32Array:
        """Return the raw vectors of rows, in the order asked for; raise `CorruptIndexError` if one is missing."""
        rows: list[Row] = []
        for part in chunks(seqs.tolist()):
            rows += self._database.execute(f"SELECT {ROW} FROM documents WHERE seq IN ({marks(part)})", part)
        found, vectors = self._matrix(rows) if rows else (seqs[:0], np.zeros((0, 0), dtype=np.float32))
        missing = np.setdiff1d(seqs, found)
        if len(missing):
            raise CorruptIndexError(f"{self._database.file}: record {missing[0]} is missing")
        return vectors[np.searchsorted(found, seqs)]

    def last_deletion(self) -> int:
        """Return the number of the last deletion."""
        ((number,),) = self._database.execute("SELECT max(number) FROM deletions")
        return number or 0

    def deleted(self, after: int) -> tuple[int, Seqs]:
        """Return the number of the last deletion, and the rows that were deleted after another one."""
        rows = self._database.execute("SELECT number, seq FROM deletions WHERE number > ? ORDER BY number", (after,))
        return (int(rows[-1][0]) if rows else after), np.array([row[1] for row in rows], dtype=np.int64)

    def damaged(self) -> dict[int, str]:
        """Return the rows whose digest does not fit, each with what to tell of it."""
        found = {}
        for seq in self.seqs().tolist():
            try:
                list(self._documents("seq = ?", (seq,)))
            except CorruptIndexError as error:
                found[seq] = str(error)
        return found

    def _documents(self, condition: str, values: Sequence[Any]) -> Iterator[tuple[int, Document]]:
        for row in self._database.execute(f"SELECT {ROW} FROM documents WHERE {condition}", values):
            self._check(row)
            seq, id_, text, metadata = row[:4]
            yield seq, Document(text, loaded(self._database.file, f"record {seq}", metadata), id_)

    def _matrix(self, rows: list[Row]) -> tuple[Seqs, Float32Array]:
        for row in rows:
            self._check(row)
        rows.sort(key=lambda row: int(row[0]))
        seqs = np.array([row[0] for row in rows], dtype=np.int64)
        return seqs, np.frombuffer(b"".join(row[4] for row in rows), dtype="<f4").reshape(len(rows), -1)

    def _check(self, row: Row) -> None:
        check(self._database.file, _name(row), row[5], *row[:5])


def _name(row: Row) -> str:
    return f"record {row[0]} (id {row[1]!r})"
