"""The vectors as FAISS holds them, in a file beside the database, and the record by which the store knows that file.

A new snapshot is a new file, and the store names it in the same transaction: so the one it names is always whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tp_retrieval.indexing.storage.meta import Meta
from tp_retrieval.indexing.storage.metadata_index import Seqs
from tp_retrieval.indexing.vectors.faiss_index import FaissIndex
from tp_retrieval.indexing.vectors.kinds import Tuning
from tp_retrieval.sqlite.atomic import sha256
from tp_retrieval.types import Float32Array

_NAME = re.compile(r"vectors-([0-9]{1,15})\.faiss")
_SCRATCH = re.compile(r"vectors-([0-9]{1,15})\.tmp")
_HEAD = b"IxMp"  # with which FAISS begins an IndexIDMap; a file of our name without it is not ours
KEY = "snapshot"
"""Of the record in the store's meta table."""


@dataclass(frozen=True)
class Moment:
    """What a snapshot has seen of its store: maps and kind, the last row, the last deletion."""

    generation: int
    last_seq: int
    deletion: int


class Snapshot:
    """Read and write the snapshot of an index's folder."""

    def __init__(self, folder: Path, meta: Meta) -> None:
        self._folder = folder
        self._meta = meta

    def read(
        self, generation: int, dimension: int, exact: Callable[[Seqs], Float32Array], tuning: Tuning | None
    ) -> tuple[FaissIndex, Moment] | None:
        """Return the vectors and what they have seen; None if there are none of this generation, or they are damaged."""
        known, file = self._meta.get(KEY), self._file()
        if file is None or known["generation"] != generation:
            return None
        with ThreadPoolExecutor(1) as beside:  # reading and hashing take a processor each
            digest = beside.submit(sha256, file)
            read = FaissIndex.read(file, dimension, exact, tuning)
            if read is None or digest.result() != known["sha256"]:
                return None
        return read, Moment(generation, known["last_seq"], known["deletion"])

    def write(self, vectors: FaissIndex, moment: Moment) -> str | None:
        """Write vectors and make them the ones the store knows, inside a transaction; return the file before."""
        previous = self._meta.get(KEY) or {"number": 0, "file": None}
        number = self._free_number(previous["number"] + 1)
        name = f"vectors-{number}.faiss"
        vectors.write(self._folder / name)
        known = {"file": name, "number": number, "sha256": sha256(self._folder / name), **asdict(moment)}
        self._meta.set(KEY, known)
        for file in self._folder.glob("vectors-*"):
            ours = _NAME.fullmatch(file.name) or _SCRATCH.fullmatch(file.name)
            if ours is not None and int(ours[1]) < number and file.name != previous["file"]:
                _remove(file)  # of a process that was killed
        return previous["file"] and str(previous["file"])

    def remove(self, previous: str | None) -> None:
        """Remove the file before, once the transaction is through."""
        if previous is not None and _NAME.fullmatch(previous):
            _remove(self._folder / previous)

    def _free_number(self, number: int) -> int:
        """Return the first number from this one on whose names nothing has."""
        while any(os.path.lexists(self._folder / f"vectors-{number}.{ending}") for ending in ("faiss", "tmp")):
            number += 1
        return number

    def size(self) -> int:
        """Return the bytes of the snapshot on disk."""
        file = self._file()
        return 0 if file is None else file.stat().st_size

    def problems(self) -> Iterator[str]:
        """Yield what is wrong with the file."""
        known = self._meta.get(KEY)
        if known is None:
            return
        file = self._file()
        if file is None or sha256(file) != known["sha256"]:
            named = self._folder / known["file"]
            yield f"{named}: the snapshot is missing or damaged; the vectors are made from the rows at each opening"

    def _file(self) -> Path | None:
        """Return the file the store knows, None where there is none that may be trusted to be ours."""
        known = self._meta.get(KEY)
        if known is None or not _NAME.fullmatch(known["file"]):
            return None
        file = self._folder / known["file"]
        return file if file.is_file() and not file.is_symlink() else None


def _remove(file: Path) -> None:
    if _is_ours(file):
        with suppress(OSError):  # it is in nobody's way
            file.unlink()


def _is_ours(file: Path) -> bool:
    """Return whether a file was written by FAISS, and not put there by somebody else under one of our names."""
    if file.is_symlink() or not file.is_file():
        return False
    try:
        with file.open("rb") as stream:
            return stream.read(len(_HEAD)) == _HEAD
    except OSError:
        return False
