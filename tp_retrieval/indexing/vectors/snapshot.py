"""The snapshot of the in-memory vectors: a FAISS file beside the database, named by a record of the meta table.

A new snapshot is a new file that the meta table names in the same transaction, so that the file it names is whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tp_retrieval.indexing.storage.meta import MetaTable, SnapshotRecord, Tuning
from tp_retrieval.indexing.storage.metadata_index import Seqs
from tp_retrieval.indexing.vectors.faiss_index import FaissIndex
from tp_retrieval.sqlite.digest import file_digest
from tp_retrieval.types import Float32Array

_NAME = re.compile(r"vectors-([0-9]{1,15})\.faiss")
_SCRATCH = re.compile(r"vectors-([0-9]{1,15})\.tmp")
_HEAD = b"IxMp"  # with which FAISS begins an IndexIDMap; a file of our name without it is not ours


@dataclass(frozen=True)
class Moment:
    """The state of the store that a snapshot holds: generation (maps and kind), last row, last deletion."""

    generation: int
    last_seq: int
    deletion: int


class Snapshot:
    """The snapshot file of an index's folder."""

    def __init__(self, folder: Path, meta: MetaTable) -> None:
        self._folder = folder
        self._meta = meta

    def read(
        self, generation: int, dimension: int, exact: Callable[[Seqs], Float32Array], tuning: Tuning | None
    ) -> tuple[FaissIndex, Moment] | None:
        """Return the vectors and the state they hold; None if the file is missing, damaged or of another generation."""
        record = self._meta.read().snapshot
        file = self._file(record)
        if record is None or file is None or record.generation != generation:
            return None
        with ThreadPoolExecutor(1) as beside:  # reading and hashing take a processor each
            digest = beside.submit(_digest, file)
            read = FaissIndex.read(file, dimension, exact, tuning)
            if read is None or digest.result() != record.sha256:
                return None
        return read, Moment(generation, record.last_seq, record.deletion)

    def write(self, vectors: FaissIndex, moment: Moment) -> str | None:
        """Write vectors as the current snapshot, inside a transaction; return the name of the previous file."""
        meta = self._meta.read()
        previous = None if meta.snapshot is None else meta.snapshot.file
        number = self._free_number(1 if meta.snapshot is None else meta.snapshot.number + 1)
        name = f"vectors-{number}.faiss"
        self._meta.read()  # which fails in a child whose parent was forked in this call, and must not write
        vectors.write(self._folder / name)
        digest = file_digest(self._folder / name)
        record = SnapshotRecord(name, number, digest, moment.generation, moment.last_seq, moment.deletion)
        self._meta.write(replace(meta, snapshot=record))
        for file in self._folder.glob("vectors-*"):
            ours = _NAME.fullmatch(file.name) or _SCRATCH.fullmatch(file.name)
            if ours is not None and int(ours[1]) < number and file.name != previous:
                _remove(file)  # of a process that was killed
        return previous

    def remove(self, previous: str | None) -> None:
        """Remove the previous file, after the transaction."""
        if previous is not None and _NAME.fullmatch(previous):
            _remove(self._folder / previous)

    def _free_number(self, number: int) -> int:
        """Return the first number from this one on whose file names are free."""
        while any(os.path.lexists(self._folder / f"vectors-{number}.{ending}") for ending in ("faiss", "tmp")):
            number += 1
        return number

    def size(self) -> int:
        """Return the bytes of the snapshot on disk."""
        file = self._file(self._meta.read().snapshot)
        try:
            return 0 if file is None else file.stat().st_size
        except OSError:
            return 0

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the file."""
        record = self._meta.read().snapshot
        if record is None:
            return
        file = self._file(record)
        if file is None or _digest(file) != record.sha256:
            path = self._folder / record.file
            yield f"{path}: the snapshot is missing or damaged; each opening rebuilds the vectors from the rows"

    def _file(self, record: SnapshotRecord | None) -> Path | None:
        """Return the path that a record names, None where there is no regular file that may be ours."""
        if record is None or not _NAME.fullmatch(record.file):
            return None
        file = self._folder / record.file
        return file if file.is_file() and not file.is_symlink() else None


def _digest(file: Path) -> str | None:
    """Return a file's digest, None where it is gone: another process may replace the snapshot at any time."""
    try:
        return file_digest(file)
    except OSError:
        return None


def _remove(file: Path) -> None:
    if _is_ours(file):
        with suppress(OSError):  # it does no harm
            file.unlink()


def _is_ours(file: Path) -> bool:
    """Return whether FAISS wrote a file, and not somebody else under one of our names."""
    if file.is_symlink() or not file.is_file():
        return False
    try:
        with file.open("rb") as stream:
            return stream.read(len(_HEAD)) == _HEAD
    except OSError:
        return False
