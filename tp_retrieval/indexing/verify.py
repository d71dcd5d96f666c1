"""Check every record of an index, and rebuild what is derived from others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tp_retrieval.errors import CorruptIndexError
from tp_retrieval.indexing.storage.store import Store
from tp_retrieval.indexing.vectors.fitting import fit, mapped_views
from tp_retrieval.indexing.vectors.synced_vectors import SyncedVectors


@dataclass(frozen=True)
class Verification:
    """The problems of an index, a sentence each, and those that are left after a repair."""

    documents: int
    problems: tuple[str, ...]
    left: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong now."""
        return not self.left


def verify(folder: Path, *, repair: bool = False) -> Verification:
    """Check the index in a folder, also one that is too damaged to open.

    Every record is checked against its digest, SQLite's trees, metadata index and full text against the documents, vectors
    and snapshot against the rows. `repair` rebuilds metadata index, full text and vectors, and removes documents of damaged
    records: their text or vector is lost, and the problem names their id, so that they can be added again. Damaged
    stretches are removed; `Index.rebuild` reads them again.
    """
    store = Store(folder)
    with store.lock:
        broken: list[str] = []
        try:
            if not store.database.checksum.intact():
                broken.append(f"{store.file}: its bytes are not those it was closed with")
            damage = _broken_now(store)
            broken += damage
            problems = left = broken if damage else broken + _stale(folder, store)
            if repair and problems:
                _repair(folder, store)
                broken = left = _broken(store) or _stale(folder, store)
            return Verification(len(store.documents), tuple(problems), tuple(left))
        finally:
            if repair and broken:  # also where a repair was interrupted
                store.database.checksum.refuse()
            store.close(checksum=repair)


def _broken_now(store: Store) -> list[str]:
    """Return what is wrong in the database, also while other processes write."""
    if not store.database.writable:
        with store.snapshot():  # which fails if the owner writes meanwhile
            return _broken(store)
    before = store.database.data_version()
    damage = _broken(store)
    if not damage or store.database.data_version() == before:
        return damage
    with store.transaction():  # what was read may be of several states
        return _broken(store)


def _broken(store: Store) -> list[str]:
    """Return what is wrong in the database."""
    damaged = store.documents.damaged()
    if damaged:
        return list(damaged.values())  # everything else is derived from the documents
    try:
        mapped_views(store)
    except CorruptIndexError as error:
        return list(dict.fromkeys([*store.problems(), str(error)]))
    return list(store.problems())


def _stale(folder: Path, store: Store) -> list[str]:
    """Return what is wrong with the vectors, which are derived from the rows."""
    vectors = SyncedVectors(folder, store)
    try:
        while True:
            with store.snapshot():
                vectors.load()
                problems, file = list(vectors.problems()), store.meta.read().snapshot
            if not problems or store.meta.read().snapshot == file:  # and no other process replaced the file meanwhile
                return problems
    except CorruptIndexError as error:
        return [str(error)]


def _repair(folder: Path, store: Store) -> None:
    store.database.execute("REINDEX")
    with store.transaction():
        store.documents.remove(store.documents.damaged())
        store.rebuild_derived()
        store.stretches.remove_damaged()
        is_readable = _repair_meta(store)
        if is_readable:
            _repair_maps(store)
    store.database.vacuum()
    if not is_readable:
        return  # what a damaged record held is lost, and the index does not open
    vectors = SyncedVectors(folder, store)
    with store.snapshot():
        vectors.load(from_rows=True)
    vectors.save(at_least=1)


def _repair_meta(store: Store) -> bool:
    """Remove derived and damaged records that an index works without; return whether the others are readable."""
    try:
        store.meta.remove_derived()
    except CorruptIndexError:
        return False
    return True


def _repair_maps(store: Store) -> None:
    """Fit the maps anew if they are damaged or not finite."""
    try:
        mapped_views(store)
    except CorruptIndexError:
        fit(store)
    else:
        store.next_generation()
