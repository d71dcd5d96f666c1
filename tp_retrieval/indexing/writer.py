"""The connection that an index's changes go through, beside the one that its searches read.

A commit waits for the disk. SQLite's readers do not wait for it, but calls of one connection do wait for one another, so
that changes have a connection, and a lock, of their own.
"""

from __future__ import annotations

import threading
from pathlib import Path

from tp_retrieval.indexing.storage.store import Store
from tp_retrieval.sqlite.fork_safety import guard


class Writer:
    """The store that an index's changes go through, opened by the first of them.

    Whoever writes to the index's file holds `lock`, and acquires it before the lock of the searches.
    """

    def __init__(self, folder: Path, reader: Store) -> None:
        self.lock = threading.RLock()
        self._folder = folder
        self._reader = reader
        self._store: Store | None = None

    def store(self) -> Store:
        """Return the store, under the lock; raise `IndexAccessError` if the index was moved, removed or replaced.

        Where nothing can be written it is the reader's, whose transactions say so.
        """
        if not self._reader.database.writable:
            return self._reader
        if self._store is None:
            self._reader.database.check_place()
            self._store = Store(self._folder)
            self._reader.database.check_place()  # what was opened is the same file
        guard(self._store.database, self.lock)
        self._reader.database.settles(self._store.database, self.lock)
        return self._store

    def check_free(self) -> None:
        """Raise `InputError` if this call is within a change of the same thread, under the lock."""
        if self._store is not None:
            self._store.database.check_free()

    def close(self) -> None:
        """Close the file, under the lock."""
        if self._store is not None:
            self._store.close()
