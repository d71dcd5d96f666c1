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
from tp_retrieval.indexing.vectors.synced_vectors import KEPT_AS_IT_IS, SyncedVectors
from tp_retrieval.types import Float32Array

logger = logging.getLogger(__name__)

_NOT_YET = "the vectors could not be built yet: %s"
_SLICE = 4096  # rows copied under the lock at once, in some milliseconds,
_SLICES = 32  # or this part of all rows where that is more, so that a large index is copied faster than it can grow


class Builder:
    """Builds what is due of an index's vectors; it takes the index's lock to copy some rows at a time, and to hand over.

    What fails is logged, and the former vectors stay. At most one build is under way.
    """

    def __init__(self, lock: threading.RLock, store: Store, vectors: SyncedVectors) -> None:
        self._lock = lock
        self._store = store
        self._vectors = vectors
        self._thread: threading.Thread | None = None
        self._generation = 0  # of the build that is under way

    def start_if_due(self) -> None:
        """Begin to build if there are enough rows; under the lock. What prevents it is logged."""
        if self._thread is not None and self._thread.is_alive():
            return
        plan = self._planned()
        if plan is None:
            return
        thread = threading.Thread(target=self._run, args=(plan,), name="tp-retrieval-build")
        try:
            thread.start()
        except RuntimeError as error:
            logger.warning(_NOT_YET, _reason(error))
        else:
            self._thread = thread

    def wait(self) -> None:
        """Wait for the build that is under way; without the lock."""
        if self._thread is not None:
            self._thread.join()

    def _planned(self) -> Plan | None:
        """Follow the store, and return what is due then; under the lock."""
        try:
            with self._store.snapshot():
                self._vectors.refresh()
                plan = self._vectors.due()
                if plan is not None:
                    self._vectors.make_room(plan)
                return plan
        except (TPRetrievalError, RuntimeError, MemoryError, OSError) as error:
            logger.warning(_NOT_YET, _reason(error))
            return None

    def _run(self, first: Plan) -> None:
        plan: Plan | None = first
        while plan is not None:
            plan = self._built(plan)

    def _built(self, plan: Plan) -> Plan | None:
        """Build, hand over, and return what is due then: rows may have come in meanwhile."""
        self._generation = plan.generation
        try:
            built = plan.build(self, self._vectors.exact)
            with self._while_useful():
                self._vectors.adopt(plan, built)
        except _UselessError:
            logger.debug("the index was closed, or got other maps, before its vectors were built")
        except Exception as error:  # a thread must not end in a traceback: the rows are stored, and searched as before
            logger.warning(KEPT_AS_IT_IS if isinstance(error, InputError) else _NOT_YET, _reason(error))
            with self._lock:
                self._vectors.failed(plan)
            return None
        with self._lock:
            return None if self._store.database.closed else self._planned()

    # -- the rows that are held in memory, copied some at a time

    def some(self, seqs: Seqs) -> Float32Array:
        """Return those of some rows that are there, as unit vectors `(n, dimension)`."""
        parts = []
        for part in np.array_split(seqs, len(seqs) // _SLICE + 1):
            with self._while_useful():
                parts.append(self._vectors.held(np.intersect1d(part, self._vectors.seqs, assume_unique=True)))
        return np.concatenate(parts)

    def after(self, last: int) -> Iterator[tuple[Seqs, Float32Array]]:
        """Yield the rows beyond a number and their vectors, in batches."""
        while True:
            with self._while_useful():
                held = self._vectors.seqs
                beyond = held[np.searchsorted(held, last, side="right") :]
                seqs = beyond[: max(_SLICE, len(held) // _SLICES)].copy()
                vectors = self._vectors.held(seqs)
            if not len(seqs):
                return
            yield seqs, vectors
            last = int(seqs[-1])

    @contextmanager
    def _while_useful(self) -> Iterator[None]:
        with self._lock:
            if self._store.database.closed or self._vectors.generation != self._generation:
                raise _UselessError
            yield


def _reason(error: Exception) -> str:
    """Return an error as text: a log that keeps the error itself keeps its frames, and a statement in them open."""
    return str(error) or type(error).__name__


class _UselessError(Exception):
    """The index was closed, or its maps or kind were changed."""
