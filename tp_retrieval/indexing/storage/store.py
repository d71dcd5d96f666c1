"""The SQLite file of an index: documents, metadata, raw vectors, fitted maps and full text.

Every change is one transaction. Every record has a digest of its content, which is checked when the record is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import RLock

import numpy as np

from tp_retrieval.embedding.maps.within import sampled_views
from tp_retrieval.errors import (
    CorruptIndexError,
    IncompatibleIndexError,
    IndexAccessError,
    IndexExistsError,
    IndexLockedError,
    IndexNotFoundError,
    InputError,
)
from tp_retrieval.indexing.metadata_json import from_json
from tp_retrieval.indexing.search.filters import Condition, answer
from tp_retrieval.indexing.storage.documents import Documents, PreparedDocument, Row
from tp_retrieval.indexing.storage.fitted_maps import FittedMaps, StoredMap
from tp_retrieval.indexing.storage.fulltext import TOKENIZERS, FullText
from tp_retrieval.indexing.storage.meta import FORMAT, IndexMeta, MetaTable
from tp_retrieval.indexing.storage.metadata_index import MetadataIndex, Seqs
from tp_retrieval.indexing.storage.migrations import MIGRATIONS
from tp_retrieval.indexing.storage.raw_vectors import RawPrecision, RowWidths, rounded
from tp_retrieval.indexing.storage.schema import statements
from tp_retrieval.indexing.storage.stretches import StretchTable
from tp_retrieval.sqlite.atomic import make_folder
from tp_retrieval.sqlite.database import objects_made_by
from tp_retrieval.sqlite.fork_safety import guarded
from tp_retrieval.types import Float32Array, Stretches

FILE = "index.sqlite"
_PART = 1_000  # rows that are read at once to be removed


class Store:
    """The SQLite file of an index folder, opened; `create` creates it first.

    A file of an older format is migrated. Raises `IndexNotFoundError`, `IndexAccessError`, `CorruptIndexError` or
    `IncompatibleIndexError`. Not thread-safe: its owner calls it under `lock`.
    """

    def __init__(self, folder: Path) -> None:
        file = folder / FILE
        try:
            exists, linked = file.is_file(), file.is_symlink()
        except OSError as error:
            raise IndexAccessError(f"can't read {folder}: {error}") from error
        if not exists:
            raise IndexNotFoundError(f"no index at {folder}: {FILE} is missing")
        if linked:
            raise IndexAccessError(f"{file} is a link out of its folder; link the folder instead")
        self._hold(file)
        with self.lock:
            try:
                version = self._format()
                if version is None:
                    raise IndexNotFoundError(f"no index at {folder}: its making was cut short; make it again")
                if version not in (FORMAT, *MIGRATIONS):
                    raise IncompatibleIndexError(f"{file}: format stored {version}, this version reads up to {FORMAT}")
                if version != FORMAT:
                    self._migrate()
                self.fulltext = FullText(self.database, self._tokenizer())
            except BaseException:
                self.close()
                raise

    @classmethod
    def create(cls, folder: Path, meta: IndexMeta) -> Store:
        """Create an empty store; raise `IndexExistsError` if the folder holds one, `IndexAccessError` if it can't."""
        self = cls.__new__(cls)
        try:
            make_folder(folder)
        except OSError as error:
            raise IndexAccessError(f"can't make {folder}: {error}") from error
        self._hold(folder / FILE)
        self.fulltext = FullText(self.database, meta.tokenizer)
        with self.lock:
            try:
                self._refuse_another(folder)
                self.database.enable_log()
                with self.transaction():
                    self._refuse_another(folder)  # created meanwhile
                    for statement in statements(meta.tokenizer):
                        self.database.execute(statement)
                    self.meta.set("format", FORMAT)
                    self.meta.write(meta)
            except BaseException:
                self.close()
                raise
        return self

    def _hold(self, file: Path) -> None:
        self.lock = RLock()
        self.database = guarded(self, self.lock, file)
        self.transaction, self.snapshot = self.database.transaction, self.database.snapshot
        self.meta, self.maps = MetaTable(self.database), FittedMaps(self.database)
        self.documents = Documents(self.database, lambda: self._row_widths, self.precision)
        self.metadata_index = MetadataIndex(self.database)
        self.stretches = StretchTable(self.database)

    @cached_property
    def _row_widths(self) -> RowWidths:
        """The numbers of raw vectors, which never change."""
        views = self.meta.read().views
        whole, sampled = sum(view.width for view in views), sum(views[i].width for i in sampled_views(views))
        return RowWidths(whole, whole - sampled)

    def as_stored(self, vectors: Float32Array) -> Float32Array:
        """Return raw vectors as they will be read again, in the precision of the index."""
        return rounded(vectors, self.precision())

    def precision(self) -> RawPrecision:
        """Return the precision that raw vectors are stored in."""
        return "float16" if self.meta.get("raw") == "float16" else "float32"

    @property
    def file(self) -> Path:
        """The database file."""
        return self.database.file

    def close(self, *, checksum: bool = False) -> None:
        """Close the file, with a checksum if no other process has it open."""
        if checksum:
            self.database.close_with_checksum()
        else:
            self.database.close()

    # -- changes of several tables, inside a transaction

    def insert(
        self, documents: Sequence[PreparedDocument], vectors: Float32Array, stretches: Sequence[Stretches] | None = None
    ) -> Seqs:
        """Add documents with their raw vectors `(n, dimension)` and stretches, and return their row numbers."""
        seqs = self.documents.insert(documents, vectors)
        self.fulltext.insert((seq, document.text) for seq, document in zip(seqs, documents, strict=True))
        self.metadata_index.insert((seq, document.metadata) for seq, document in zip(seqs, documents, strict=True))
        numbers = np.array(seqs, dtype=np.int64)
        if stretches is not None:
            self.stretches.insert(numbers, [document.text for document in documents], stretches, self.meta.read().views)
        return numbers

    def delete(self, seqs: Seqs) -> int:
        """Remove rows, damaged ones too, and return how many there were."""
        removed = damaged = 0
        for begin in range(0, len(seqs), _PART):
            rows = self.documents.rows(seqs[begin : begin + _PART])
            intact = [row for row in rows if row.intact]
            for row in intact:
                self.metadata_index.remove(row.seq, from_json(row.metadata_json))
                self.fulltext.remove(row.seq, row.text)
            self.documents.remove(row.seq for row in rows)
            self.stretches.remove(row.seq for row in rows)
            removed += len(rows)
            damaged += len(rows) - len(intact)
        if damaged:  # the facts and words of a damaged row are unknown
            self.rebuild_derived()
        return removed

    def replace(
        self, ids: Sequence[str], documents: Sequence[PreparedDocument], namespace: str
    ) -> tuple[Seqs, Float32Array]:
        """Give rows of a namespace other ids and metadata: each becomes a new row of the same text, vector and stretches.

        Returns the new row numbers and the raw vectors `(n, dimension)`. Raises `InputError` for an id that is not there, a
        text that differs, and an id that another row has.
        """
        by_id = {row.id: row for row in self._rows_of(ids, namespace)}
        for id_, document in zip(ids, documents, strict=True):
            if id_ not in by_id:
                raise InputError(f"documents: there is no document {id_!r}")
            if by_id[id_].text != document.text:
                raise InputError(f"documents[{id_!r}].text: differs from the stored one; add the document instead")
        others = {row.id for row in self._rows_of([document.id for document in documents], namespace)} - {*ids}
        if others:
            raise InputError(f"documents: the id {min(others)!r} is another document's")
        seqs = np.array([by_id[id_].seq for id_ in ids], dtype=np.int64)
        vectors = self.documents.vectors_of(seqs)
        stretches = self.stretches.by_row(self.meta.read().views)
        self.delete(seqs)
        return self.insert(documents, vectors, [stretches.get(seq, {}) for seq in seqs.tolist()]), vectors

    def _rows_of(self, ids: Sequence[str], namespace: str) -> list[Row]:
        return self.documents.rows(self.documents.seqs_of(ids, namespace))

    def clear(self) -> int:
        """Remove every row and the fitted maps, and return how many rows there were."""
        self.fulltext.clear()
        self.metadata_index.clear()
        self.stretches.clear()
        self.set_maps([])
        meta = self.meta.read()
        self.meta.write(replace(meta, vectors=replace(meta.vectors, tuning=None)))
        return self.documents.clear()

    def set_maps(self, maps: Sequence[StoredMap]) -> None:
        """Replace the fitted maps, which invalidates the in-memory vectors of every process."""
        self.maps.replace(maps)
        self.next_generation()

    def next_generation(self) -> None:
        """Invalidate the in-memory vectors of every process."""
        meta = self.meta.read()
        self.meta.write(replace(meta, generation=meta.generation + 1))

    def rebuild_derived(self) -> None:
        """Rebuild metadata index and full text from the documents."""
        self.metadata_index.rebuild()
        self.fulltext.rebuild()

    # -- reading

    def select(
        self,
        condition: Condition | None,
        ids: Sequence[str] | None = None,
        namespace: str = "",
        everything: Seqs | None = None,
    ) -> Seqs | None:
        """Return the rows of a namespace that fit a condition and have one of some ids, ascending; None for every row.

        `everything` are all rows, where the caller has them.
        """
        within = self.documents.seqs_in(namespace) if ids is None else self.documents.seqs_of(ids, namespace)
        if condition is None:
            return within
        matching = answer(
            condition, self.metadata_index.matching, self.documents.seqs() if everything is None else everything
        )
        return matching if within is None else np.intersect1d(within, matching, assume_unique=True)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong in the file beside its rows: SQLite's trees and the derived tables. Nothing is changed."""
        yield from self.meta.problems()
        for line in self.database.execute("PRAGMA integrity_check(20)"):
            if line[0] != "ok":
                yield f"{self.file}: {line[0]}"
        yield from self.metadata_index.problems()
        yield from self.fulltext.problems()
        yield from self.stretches.problems()

    # -- opening

    def _format(self) -> int | None:
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
            raise IndexExistsError(f"there is an index at {folder} already; open it, or choose another folder")

    def _has_meta(self) -> bool:
        return any((kind, name) == ("table", "meta") for kind, name, _ in self.database.objects())

    def _tokenizer(self) -> str:
        """Return the full text's tokenizer; refuse other tables, views or triggers, since reading those would run them."""
        objects = self.database.objects()
        for name in TOKENIZERS:
            if objects == objects_made_by(statements(name)):
                return name
        raise CorruptIndexError(f"{self.file}: its tables are not those of an index of format {FORMAT}")

    def _migrate(self) -> None:
        try:
            with self.transaction():
                version = self._format()
                for step in range(version or 1, FORMAT):
                    MIGRATIONS[step](self.database)
                self.meta.set("format", FORMAT)
        except IndexAccessError as error:
            raise IndexAccessError(
                f"{error}; an index of an older format is brought to format {FORMAT} when it is opened: copy it to a "
                "writable folder"
            ) from error
        with suppress(IndexLockedError, IndexAccessError):  # the space of the tables before is used again later
            self.database.vacuum()
