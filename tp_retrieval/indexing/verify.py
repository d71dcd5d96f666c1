"""Check an index from the ground up, and make again what can be made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tp_retrieval.errors import CorruptIndexError
from tp_retrieval.indexing.storage.store import Store
from tp_retrieval.indexing.vectors.fitting import fit, mapped_views
from tp_retrieval.indexing.vectors.snapshot import KEY as SNAPSHOT
from tp_retrieval.indexing.vectors.synced_vectors import SyncedVectors


@dataclass(frozen=True)
class Verification:
    """What was found wrong with an index, each in a sentence, and what of it is left after a repair."""

    documents: int
    problems: tuple[str, ...]
    left: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong now."""
        return not self.left


def verify(folder: Path, *, repair: bool = False) -> Verification:
    """Check the index in a folder, also one that does not open any more because it is damaged.

    Every record's digest, SQLite's trees, facts and full text against the documents, the vectors and their snapshot against
    the rows. `repair` makes facts, full text and vectors anew, and removes documents whose record is damaged: their text or
    vector is lost, and the problem names their id, so that they can be added again.
    """
    store = Store(folder)
    broken: list[str] = []
    try:
        if not store.database.checksum.intact():
            broken.append(f"{store.file}: its bytes are not those it was closed with")
        damage = _broken(store)
        broken += damage
        problems = left = broken if damage else broken + _stale(folder, store)
        if repair and problems:
            _repair(folder, store)
            broken = left = _broken(store) or _stale(folder, store)
        return Verification(len(store.documents), tuple(problems), tuple(left))
    finally:
        if repair and broken:  # also where a repair was interrupted
            store.database.checksum.refuse()
        store.close(seal=repair)


def _broken(store: Store) -> list[str]:
    """Return what is wrong in the database."""
    damaged = store.documents.damaged()
    if damaged:
        return list(damaged.values())  # all else is made of the documents
    try:
        mapped_views(store)
    except CorruptIndexError as error:
        return [*store.problems(), str(error)]
    return list(store.problems())


def _stale(folder: Path, store: Store) -> list[str]:
    """Return what is wrong with the vectors, which are made of the rows."""
    vectors = SyncedVectors(folder, store)
    try:
        with store.snapshot():
            vectors.load()
            return list(vectors.problems())
    except CorruptIndexError as error:
        return [str(error)]


def _repair(folder: Path, store: Store) -> None:
    store.database.execute("REINDEX")
    with store.transaction():
        store.documents.drop(store.documents.damaged())
        store.remake()
        store.meta.forget(SNAPSHOT)
        _mend_maps(store)
    store.database.execute("VACUUM")
    vectors = SyncedVectors(folder, store)
    with store.snapshot():
        vectors.load(from_rows=True)
    vectors.save(at_least=1)


def _mend_maps(store: Store) -> None:
    """Keep the maps that are there, fit them anew if they are damaged or not finite."""
    try:
        mapped_views(store)
    except CorruptIndexError:
        fit(store)
    else:
        store.meta.next_generation()
