"""The rows of an index: documents with their raw vectors, and a log of deletions.

`seq` is a row's number for ever: AUTOINCREMENT never assigns one twice, so that it can serve as FAISS's id.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tp_retrieval.errors import CorruptIndexError
from tp_retrieval.indexing.metadata_json import from_json
from tp_retrieval.indexing.storage.metadata_index import Seqs
from tp_retrieval.indexing.storage.raw_vectors import RawPrecision, RowWidths, decoded, encoded
from tp_retrieval.sqlite.database import Database
from tp_retrieval.sqlite.digest import record_digest
from tp_retrieval.types import Document, Float32Array


@dataclass(frozen=True, slots=True)
class PreparedDocument:
    """A document that was validated: its id, text and metadata, the metadata's JSON, and its namespace."""

    id: str
    text: str
    metadata: Mapping[str, Any]
    metadata_json: str
    namespace: str = ""


class Row(NamedTuple):
    """A row of the table `documents`."""

    seq: int
    namespace: str
    id: str
    text: str
    metadata_json: str
    vector: bytes
    digest: bytes

    @property
    def intact(self) -> bool:
        """Whether the row has its digest; a lost page can make any value None or of another type."""
        return _digest(self[:6]) == self.digest

    @property
    def name(self) -> str:
        """The row's name in messages."""
        of_namespace = f" in namespace {self.namespace!r}" if self.namespace else ""
        return f"record {self.seq} (id {self.id!r}{of_namespace})"

    def check(self, file: Path) -> None:
        """Raise `CorruptIndexError` if the row does not have its digest."""
        if not self.intact:
            raise CorruptIndexError(f"{file}: {self.name} is damaged; its digest does not fit")

    def document(self, file: Path) -> Document:
        """Return the document; raise `CorruptIndexError` if its metadata are no JSON object."""
        try:
            metadata = from_json(self.metadata_json)
        except (ValueError, RecursionError, TypeError) as error:
            raise CorruptIndexError(f"{file}: {self.name} holds no JSON ({error})") from error
        if not isinstance(metadata, dict):
            raise CorruptIndexError(f"{file}: {self.name} has metadata that are no object")
        return Document(self.text, metadata, self.id)


_FEW = 256  # rows that are kept until the next ones are read

_SELECT = "SELECT seq, namespace, id, text, metadata, vector, digest FROM documents WHERE"


def _digest(values: Sequence[Any]) -> bytes:
    """Return the digest of a row's values before it; a namespace without a name is left out, as before format 5."""
    seq, namespace, *others = values
    return record_digest(seq, *others, *([namespace] if namespace != "" else []))


class Documents:
    """The tables `documents` and `deletions`. Changes are made inside a transaction.

    The views that are read of a sample are the last ones. Of a document that was not read for them they are NaN, and not
    stored.
    """

    def __init__(self, database: Database, widths: Callable[[], RowWidths], precision: Callable[[], RawPrecision]) -> None:
        self._database = database
        self._widths = widths
        self._precision = precision
        self._just_read: dict[
            int, Row
        ] = {}  # checked, whose vectors were asked for last: the best of them are what a search finds

    # -- changes

    def insert(self, documents: Sequence[PreparedDocument], vectors: Float32Array) -> list[int]:
        """Add documents with their raw vectors `(n, dimension)`, and return their row numbers."""
        last = self._database.first("SELECT seq FROM sqlite_sequence WHERE name = 'documents'")
        first = 1 + (0 if last is None else int(last[0]))

        def rows() -> Iterator[tuple[Any, ...]]:
            for seq, (document, vector) in enumerate(zip(documents, self._encoded(vectors), strict=True), first):
                values = (seq, document.namespace, document.id, document.text, document.metadata_json, vector)
                yield (*values, _digest(values))

        self._database.execute_many("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?)", rows())
        return list(range(first, first + len(documents)))

    def replace_vector(self, seq: int, vector: Float32Array) -> None:
        """Replace the raw vector `(dimension,)` of a row."""
        for row in self._select_rows([seq]):
            self._replace(self._checked(row), *self._encoded(vector[None]))

    def _replace(self, row: Row, vector: bytes) -> None:
        values = (*row[:5], vector)
        sql = "UPDATE documents SET vector = ?, digest = ? WHERE seq = ?"
        self._database.execute(sql, (vector, _digest(values), row.seq))

    def convert(self) -> int:
        """Store every raw vector in the precision of the index, and return how many were in another one."""
        count, last = 0, 0
        while rows := self._rows("seq > ? ORDER BY seq LIMIT 500", (last,)):
            _, vectors = self._matrix(rows)
            for row, vector in zip(rows, self._encoded(vectors), strict=True):
                if vector != row.vector:
                    self._replace(row, vector)
                    count += 1
            last = rows[-1].seq
        return count

    def _encoded(self, vectors: Float32Array) -> list[bytes]:
        return encoded(vectors, self._precision(), self._widths())

    def remove(self, seqs: Iterable[int]) -> None:
        """Remove rows whatever they hold, and log it."""
        for seq in seqs:
            self._database.execute("DELETE FROM documents WHERE seq = ?", (seq,))
            self._database.execute("INSERT INTO deletions(seq) VALUES (?)", (seq,))

    def clear(self) -> int:
        """Remove all rows and the log, and return how many rows there were."""
        count = len(self)
        for table in ("documents", "deletions"):
            self._database.execute(f"DELETE FROM {table}")
        return count

    # -- reading

    def __len__(self) -> int:
        row = self._database.first("SELECT count(*) FROM documents")
        return 0 if row is None else int(row[0])

    def __iter__(self) -> Iterator[Document]:
        """Yield every document in the order of adding."""
        last = 0
        while rows := self._rows("seq > ? ORDER BY seq LIMIT 500", (last,)):
            yield from (self._checked(row).document(self._database.file) for row in rows)
            last = rows[-1].seq

    def seqs(self) -> Seqs:
        """Return the numbers of all rows, ascending."""
        return np.sort(self._database.numbers("SELECT seq FROM documents"))

    def namespaces(self) -> dict[str, int]:
        """Return the number of rows in each namespace, by name."""
        return dict(
            self._database.execute("SELECT namespace, count(*) FROM documents GROUP BY namespace ORDER BY namespace")
        )

    def seqs_in(self, namespace: str) -> Seqs | None:
        """Return the numbers of the rows in a namespace, ascending, None if all are in it."""
        sql = "SELECT 1 FROM documents WHERE namespace {} ? LIMIT 1"
        if not any(self._database.first(sql.format(side), (namespace,)) for side in "<>"):
            return None
        return np.sort(self._database.numbers("SELECT seq FROM documents WHERE namespace = ?", (namespace,)))

    def seqs_of(self, ids: Sequence[str], namespace: str = "") -> Seqs:
        """Return the numbers of the rows in a namespace that have one of some ids, ascending."""
        sql = "SELECT seq FROM documents WHERE namespace = ? AND id IN (?)"
        rows = self._database.select_in(sql, list(dict.fromkeys(ids)), before=(namespace,))
        return np.array(sorted(seq for (seq,) in rows), dtype=np.int64)

    def rows(self, seqs: Seqs) -> list[Row]:
        """Return rows without checking their digests."""
        return self._select_rows(seqs.tolist())

    def by_seq(self, seqs: Collection[int]) -> dict[int, Document]:
        """Return the documents of rows by row number."""
        return {row.seq: self._checked(row).document(self._database.file) for row in self._select_rows(seqs)}

    def found(self, seqs: Collection[int]) -> dict[int, Document]:
        """Return the documents of rows that are there; those whose vectors were read last are not read again.

        A row that is there never changes but for its vector.
        """
        read = [row for row in map(self._just_read.get, seqs) if row is not None]
        others = self.by_seq([seq for seq in seqs if seq not in self._just_read])
        return others | {row.seq: row.document(self._database.file) for row in read}

    def vectors(self, after: int = 0, batch: int = 1024) -> Iterator[tuple[Seqs, Float32Array]]:
        """Yield the row numbers beyond `after` and their raw vectors `(n, dimension)`, ascending, in batches."""
        while rows := self._rows("seq > ? ORDER BY seq LIMIT ?", (after, batch)):
            seqs, vectors = self._matrix(rows)
            yield seqs, vectors
            after = int(seqs[-1])

    def vectors_of(self, seqs: Seqs, *, keep: bool = False) -> Float32Array:
        """Return the raw vectors `(n, dimension)` of rows in the order of `seqs`; `keep` is that of `stored`.

        Raises `CorruptIndexError` if a row is missing.
        """
        stored, vectors = self.stored(seqs, keep=keep)
        missing = np.setdiff1d(seqs, stored) if len(stored) < len(seqs) else seqs[:0]
        if len(missing):
            raise CorruptIndexError(f"{self._database.file}: record {missing[0]} is missing")
        return vectors[np.searchsorted(stored, seqs)]

    def stored(self, seqs: Seqs, *, keep: bool = False) -> tuple[Seqs, Float32Array]:
        """Return those of some rows that are there, ascending, and their raw vectors `(n, dimension)`.

        `keep` remembers committed rows for `found`.
        """
        rows = self._select_rows(seqs.tolist())
        if keep:
            self._just_read = {row.seq: row for row in rows} if len(rows) <= _FEW else {}
        return self._matrix(rows) if rows else (seqs[:0], np.zeros((0, self._widths().whole), dtype=np.float32))

    def last_deletion(self) -> int:
        """Return the number of the last deletion."""
        return int(self._database.numbers("SELECT coalesce(max(number), 0) FROM deletions")[0])

    def deleted(self, after: int) -> tuple[int, Seqs]:
        """Return the number of the last deletion, and the rows deleted after another one."""
        seqs = self._database.numbers("SELECT seq FROM deletions WHERE number > ? ORDER BY number", (after,))
        return max(after, self.last_deletion()), seqs

    def damaged(self) -> dict[int, str]:
        """Return a sentence for each row that does not have its digest, by row number."""
        problems = {}
        for seq in self.seqs().tolist():
            try:
                self.by_seq([seq])
            except CorruptIndexError as error:
                problems[seq] = str(error)
        return problems

    def count_wholly_read(self) -> int:
        """Return how many rows have a vector in which all views were read."""
        sizes = [size for size, (width, _) in self._widths().sizes().items() if width == self._widths().whole]
        rows = self._database.select_in("SELECT count(*) FROM documents WHERE length(vector) IN (?)", sizes)
        return sum(count for (count,) in rows)

    def _select_rows(self, seqs: Collection[int]) -> list[Row]:
        return [Row(*row) for row in self._database.select_in(f"{_SELECT} seq IN (?)", [*seqs])]

    def _rows(self, condition: str, values: Sequence[Any]) -> list[Row]:
        return [Row(*row) for row in self._database.execute(f"{_SELECT} {condition}", values)]

    def _checked(self, row: Row) -> Row:
        row.check(self._database.file)
        return row

    def _matrix(self, rows: list[Row]) -> tuple[Seqs, Float32Array]:
        rows.sort(key=lambda row: row.seq)
        widths = self._widths()
        sizes = widths.sizes()
        for row in rows:
            row.check(self._database.file)
            if not isinstance(row.vector, bytes) or len(row.vector) not in sizes:
                raise CorruptIndexError(f"{self._database.file}: {row.name} has a vector of another length")
        return np.array([row.seq for row in rows], dtype=np.int64), decoded([row.vector for row in rows], widths)
