"""The index's truth on disk: documents, metadata, raw vectors, facts for filters and full text, in one SQLite file.

Every change is one transaction. Every record carries a digest of its content, checked when it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from tp_retrieval.indexing.search.filters import Condition, answer
from tp_retrieval.indexing.storage.documents import Documents, intact
from tp_retrieval.indexing.storage.fulltext import TOKENIZERS, FullText
from tp_retrieval.indexing.storage.meta import Maps, Meta, StoredMap
from tp_retrieval.indexing.storage.metadata_index import MetadataIndex, Seqs
from tp_retrieval.indexing.storage.schema import FORMAT, MIGRATIONS, statements
from tp_retrieval.sqlite.atomic import make_folder
from tp_retrieval.sqlite.database import Database, objects_made_by
from tp_retrieval.types import Float32Array

FILE = "index.sqlite"


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
        self._hold(file)
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
            self.fulltext = FullText(self.database, self.meta.get("tokenizer"))
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, folder: Path, meta: Mapping[str, Any], *, tokenizer: str = "words") -> Store:
        """Make an empty store whose meta table holds `meta` as JSON values."""
        self = cls.__new__(cls)
        try:
            make_folder(folder)
        except OSError as error:
            raise IndexAccessError(f"can't make {folder}: {error}") from error
        self._hold(folder / FILE)
        self.fulltext = FullText(self.database, tokenizer)
        try:
            self._refuse_another(folder)
            self.database.keep_log()
            with self.transaction():
                self._refuse_another(folder)  # made meanwhile
                for statement in statements(tokenizer):
                    self.database.execute(statement)
                for key, value in {"format": FORMAT, "generation": 0, "tokenizer": tokenizer, **meta}.items():
                    self.meta.set(key, value)
        except BaseException:
            self.close()
            raise
        return self

    def _hold(self, file: Path) -> None:
        self.database = Database(file)
        self.transaction, self.snapshot = self.database.transaction, self.database.snapshot
        self.meta, self.maps = Meta(self.database), Maps(self.database)
        self.documents, self.metadata_index = Documents(self.database), MetadataIndex(self.database)

    @property
    def file(self) -> Path:
        """The database file."""
        return self.database.file

    def close(self, *, seal: bool = False) -> None:
        """Close the file, sealed if it may be."""
        if seal:
            self.database.close_with_checksum()
        else:
            self.database.close()

    # -- what touches several tables, inside a transaction

    def insert(self, documents: Sequence[tuple[str, str, str]], vectors: Float32Array) -> Seqs:
        """Add rows `(id, text, metadata JSON)` with their raw vectors, and return their numbers."""
        seqs = self.documents.insert(documents, vectors)
        self.fulltext.insert((seq, text) for seq, (_, text, _) in zip(seqs, documents, strict=True))
        self.metadata_index.insert((seq, metadata) for seq, (_, _, metadata) in zip(seqs, documents, strict=True))
        return np.array(seqs, dtype=np.int64)

    def delete(self, ids: Sequence[str]) -> int:
        """Remove rows by id, damaged ones too, and return how many there were."""
        rows = self.documents.rows_of(ids)
        for seq, _, text, metadata, *_ in filter(intact, rows):
            self.metadata_index.delete(seq, metadata)
            self.fulltext.delete(seq, text)
        self.documents.drop(row[0] for row in rows)
        if not all(map(intact, rows)):  # what was made of a damaged one when it was whole can't be told any more
            self.remake()
        return len(rows)

    def clear(self) -> int:
        """Remove every row and the fitted maps, and return how many rows there were."""
        self.fulltext.clear()
        self.metadata_index.clear()
        self.set_maps([])
        self.meta.set("vectors", self.meta.get("vectors") | {"tuning": None})
        return self.documents.clear()

    def set_maps(self, maps: Sequence[StoredMap]) -> None:
        """Replace the fitted maps, by which every image of the vectors is of the past."""
        self.maps.replace(maps)
        self.meta.next_generation()

    def remake(self) -> None:
        """Make facts and full text anew from the documents."""
        self.metadata_index.remake()
        self.fulltext.remake()

    def redigest_documents(self) -> None:
        """Give every row the present format's digest, after checking it against format 1's, and its facts."""
        for seq, metadata in self.documents.redigest():
            self.metadata_index.insert([(seq, metadata)])

    # -- reading

    def select(self, condition: Condition | None, ids: Sequence[str] | None, everything: Seqs | None = None) -> Seqs | None:
        """Return the rows that a condition holds for and that are named, ascending; None if neither restricts them.

        `everything` are all rows, where they are known already.
        """
        named = None if ids is None else self.documents.seqs_of(ids)
        if condition is None:
            return named
        matching = answer(
            condition, self.metadata_index.matching, self.documents.seqs() if everything is None else everything
        )
        return matching if named is None else np.intersect1d(named, matching, assume_unique=True)

    def problems(self) -> Iterator[str]:
        """Yield what is wrong in the file beside its rows: its trees, and what is made of those. Nothing is changed."""
        yield from self.meta.problems()
        for line in self.database.execute("PRAGMA integrity_check(20)"):
            if line[0] != "ok":
                yield f"{self.file}: {line[0]}"
        yield from self.metadata_index.problems()
        yield from self.fulltext.problems()

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
                self.meta.set("format", FORMAT)
        except IndexAccessError as error:
            raise IndexAccessError(
                f"{error}; an index of an older format is brought to format {FORMAT} when it is opened: copy it to a place "
                "that can be written"
            ) from error
