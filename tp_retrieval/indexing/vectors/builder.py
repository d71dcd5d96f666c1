"""Approximate vectors built in a thread of their own, while searches and adds go on with the former ones."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from tp_retrieval.errors import InputError, TPRetrievalError
from tp_retrieval.indexing.storage.metadata_index import Seqs
from tp_retrieval.indexing.storage.store import Store
from tp_retrieval.indexing.vectors.plan import Plan
from tp_retrieval.indexing.vectors.synced_vectors import SyncedVectors
from tp_retrieval.types import Float32Array

logger = logging.getLogger(__name__)

_SLICE = 512  # rows read under the lock at once, in a few milliseconds


class Builder:
    """Builds what is due of an index's vectors; it takes the index's lock to read some rows at a time, and to hand over.

    What fails is logged, and the former vectors stay. At most one build is under way.
    """

    def __init__(self, lock: threading.RLock, store: Store, vectors: SyncedVectors) -> None:
        self._lock = lock
        self._store = store
        self._vectors = vectors
        self._thread: threading.Thread | None = None

    def start_if_due(self) -> None:
        """Begin to build if there are enough rows; under the lock."""
        if self._thread is not None and self._thread.is_alive():
            return
        plan = self._vectors.due()
        if plan is not None:
            self._thread = threading.Thread(target=self._run, args=(plan,), name="tp-retrieval-build")
            self._thread.start()

    def wait(self) -> None:
        """Wait for the build that is under way; without the lock."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, first: Plan) -> None:
        plan: Plan | None = first
        while plan is not None:
            plan = self._built(plan)

    def _built(self, plan: Plan) -> Plan | None:
        """Build, hand over, and return what is due then: rows may have come in meanwhile."""
        try:
            built = plan.build(_SlicedRows(self._lock, self._store), self._vectors.exact)
            with self._lock, _while_open(self._store):
                self._vectors.adopt(plan, built)
                return self._vectors.due()
        except _ClosedError:
            logger.debug("the index was closed before its vectors were built")
        except InputError as error:  # the rows are stored; they are searched as before
            logger.warning("the index stays exact: %s", error)
            with self._lock:
                self._vectors.failed(plan)
        except TPRetrievalError as error:
            logger.warning("the vectors could not be built yet: %s", error)
        return None


class _ClosedError(Exception):
    """The index was closed meanwhile."""


@contextmanager
def _while_open(store: Store) -> Iterator[None]:
    if store.database.closed:
        raise _ClosedError
    yield


class _SlicedRows:
    """The rows of a store, read some at a time, each time under the lock; rows never change between two times."""

    def __init__(self, lock: threading.RLock, store: Store) -> None:
        self._lock = lock
        self._store = store

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock, _while_open(self._store), self._store.snapshot():
            yield

    def stored(self, seqs: Seqs) -> tuple[Seqs, Float32Array]:
        """Return those of some rows that are there, and their raw vectors."""
        parts = []
        for part in np.array_split(seqs, len(seqs) // _SLICE + 1):
            with self._reading():
                parts.append(self._store.documents.stored(part))
        whole = [part for part in parts if len(part[0])] or parts[:1]
        return np.concatenate([seqs for seqs, _ in whole]), np.concatenate([raw for _, raw in whole])

    def vectors(self, after: int = 0) -> Iterator[tuple[Seqs, Float32Array]]:
        """Yield the row numbers beyond one and their raw vectors, in batches."""
        while True:
            with self._reading():
                batch = next(self._store.documents.vectors(after, _SLICE), None)
            if batch is None:
                return
            yield batch
            after = int(batch[0][-1])
