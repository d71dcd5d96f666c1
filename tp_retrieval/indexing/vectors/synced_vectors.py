"""The in-memory vectors of an index, kept in sync with its store: loaded from a snapshot, updated by replay.

The store is the truth. Vectors that are missing, damaged or behind are rebuilt from its rows.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from tp_retrieval.errors import InputError
from tp_retrieval.indexing.storage.meta import Tuning, VectorSettings
from tp_retrieval.indexing.storage.metadata_index import Seqs
from tp_retrieval.indexing.storage.store import Store
from tp_retrieval.indexing.vectors import kinds
from tp_retrieval.indexing.vectors.faiss_index import FaissIndex
from tp_retrieval.indexing.vectors.fitting import MappedViews, mapped_views
from tp_retrieval.indexing.vectors.plan import Plan
from tp_retrieval.indexing.vectors.snapshot import Moment, Snapshot
from tp_retrieval.types import Float32Array, Role

logger = logging.getLogger(__name__)

SLOW_SECONDS = 0.01
"""A scan that takes longer makes an index of kind "auto" look into a part of its lists alone."""

KEPT_AS_IT_IS = "the index stays exact: %s"
"""What is logged where a kind can't be built: the rows are stored, and searched as before."""

_SNAPSHOT_AT = 10_000  # rows added or removed after which a snapshot is worth its writing,
_SNAPSHOT_SHARE = 0.5  # and as a share of all, so that adding does not write everything again and again
_PART = 1024  # rows that are mapped at once
_GROWTH = 4  # an approximate index is trained anew when the corpus has grown by this factor
_RETRY_GROWTH = 1.25  # and after this one a kind that failed is tried again


class _State(Enum):
    CURRENT = "every change of this process is followed"
    BEHIND = "a change may be committed that is not followed yet"
    BROKEN = "an interrupt may have left a change half done"


@dataclass(frozen=True)
class MappedRows:
    """Rows `(n,)` and their mapped unit vectors `(n, dimension)`."""

    seqs: Seqs
    vectors: Float32Array


class SyncedVectors:
    """The mapped unit vectors of a store in memory. Not thread-safe: its owner calls it under one lock."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.show_progress = False
        self._store = store
        self._snapshot = Snapshot(folder, store.meta)
        self._maps = MappedViews((), ())
        self._faiss = FaissIndex(1, self.exact)
        self._last_seq = self._unsaved = 0
        self._state = _State.BROKEN
        self._data_version = (0, 0)
        self._torn_reads = 0
        self._deletion = self._compacted = 0  # the last deletion followed, and the last whose row is not a tombstone here
        self._generation = -1
        self._queries: deque[Float32Array] = deque(maxlen=kinds.HELD_OUT)  # raw; approximate kinds are tuned to them
        self._failed_at = 0  # number of documents when a kind failed

    @property
    def tuning(self) -> Tuning | None:
        """How the vectors are searched approximately; None for exact search."""
        return self._faiss.tuning

    @property
    def moment(self) -> tuple[int, ...]:
        """What changes whenever a document or its metadata did: a row is never changed in place."""
        return (*self._data_version, self._generation, self._last_seq, self._deletion)

    def __len__(self) -> int:
        return len(self._faiss)

    # -- following the store

    def load(self, *, from_rows: bool = False) -> None:
        """Read the snapshot that the store names and replay later changes, or rebuild everything from the rows."""
        self._state = _State.BROKEN
        self._load(from_rows)
        self._state = _State.CURRENT

    def _load(self, from_rows: bool) -> None:
        self._failed_at = 0
        self._data_version = self._store.database.data_version()
        meta = self._store.meta.read()
        self._generation = meta.generation
        self._maps = mapped_views(self._store)
        dimension = self._maps.dimension
        rounded = kinds.scans(meta.vectors.kind) and len(self._store.documents) >= kinds.TRAIN_AT
        self._faiss, self._last_seq, self._unsaved = FaissIndex(dimension, self.exact, rounded=rounded), 0, 0
        self._deletion = self._compacted = self._store.documents.last_deletion()
        tuning = meta.vectors.tuning
        read = None if from_rows else self._snapshot.read(self._generation, dimension, self.exact, tuning)
        if read is not None:
            self._faiss, moment = read
            self._last_seq, self._deletion, self._compacted = moment.last_seq, moment.deletion, moment.deletion
        elif tuning is not None and len(self._store.documents) >= kinds.TRAIN_AT:
            self._build_or_stay_exact(tuning.factory, meta.vectors)
        self._replay()
        if len(self._faiss) != len(self._store.documents):  # a snapshot of other rows
            self._start_over()

    def _build_or_stay_exact(self, factory: str, settings: VectorSettings) -> None:
        """Build the approximate index that the missing snapshot held."""
        plan = self.plan(factory, settings, self._store.documents.seqs())
        try:
            self._take(plan, plan.build(self, self.exact, show_progress=self.show_progress))
        except InputError as error:
            logger.warning(KEPT_AS_IT_IS, error)
            self._faiss, self._last_seq = FaissIndex(self._maps.dimension, self.exact), 0

    def prepare(self, seqs: Seqs, raw: Float32Array) -> MappedRows | None:
        """Map rows that are about to be committed, so that nothing can fail on them afterwards; None under new maps.

        Raises `InputError` if a mapped vector is not finite.
        """
        if self._is_outdated():
            return None  # everything is loaded anew
        vectors = np.empty((len(raw), self._maps.dimension), dtype=np.float32)
        for begin in range(0, len(raw), _PART):  # mapping takes several times the memory of what it gives
            vectors[begin : begin + _PART] = self.mapped(raw[begin : begin + _PART])
        if not np.isfinite(vectors).all():
            raise InputError("vectors: their mapped values are not finite")
        return MappedRows(seqs, vectors)

    def refresh(self, added: MappedRows | None = None) -> None:
        """Follow what was committed since the last time, here or by other processes; `added` are rows just committed."""
        current = self._store.database.data_version()
        if self._torn_reads != self._store.database.torn_reads:  # what was followed was not one state of the file
            self._torn_reads = self._store.database.torn_reads
            self.discard()
        if self._state is _State.CURRENT and current == self._data_version:
            return
        self.fall_behind()
        self._data_version = current
        self._follow(added)
        self._state = _State.CURRENT

    def fall_behind(self) -> None:
        """Make the next search follow the store first; called within a transaction, since an interrupt may come at its end.

        Before it began, a signal handler could search, and the vectors would be taken to be up to date again.
        """
        if self._state is _State.CURRENT:
            self._state = _State.BEHIND

    def discard(self) -> None:
        """Make the next refresh load everything anew."""
        self._state = _State.BROKEN

    def _follow(self, added: MappedRows | None) -> None:
        """Remove deleted rows and add new ones; under new maps or kinds, load everything anew."""
        if self._is_outdated():
            self.load()
            return
        self._state = _State.BROKEN
        self._replay(added)
        self._state = _State.BEHIND

    def _is_outdated(self) -> bool:
        """Return whether the vectors are of another generation than the store, or half changed."""
        return self._state is _State.BROKEN or self._store.meta.read().generation != self._generation

    def _replay(self, added: MappedRows | None = None) -> None:
        self._deletion, gone = self._store.documents.deleted(self._deletion)
        self._faiss.remove(gone)
        self._unsaved += len(gone)
        if self._faiss.crowded:
            self._start_over()
            return
        if added is not None and added.seqs[0] == self._last_seq + 1 and not np.isin(added.seqs, gone).any():
            self._append(added.seqs, added.vectors)
        self._append_stored()

    def _append_stored(self) -> None:
        total = len(self._store.documents) if self.show_progress else None
        with tqdm(total=total, unit="vector", disable=not self.show_progress) as bar:
            for seqs, vectors in self.after(self._last_seq):
                self._append(seqs, vectors)
                bar.update(len(seqs))

    def _append(self, seqs: Seqs, vectors: Float32Array) -> None:
        self._faiss.add(seqs, vectors)
        self._last_seq = int(seqs[-1])
        self._unsaved += len(seqs)

    def _start_over(self) -> None:
        """Fill the vectors anew from the rows; a trained quantizer or graph structure is kept."""
        self._faiss.empty()
        self._last_seq = 0
        self._deletion = self._compacted = self._store.documents.last_deletion()
        self._append_stored()

    # -- searching

    def maps_digest(self) -> str:
        """Return a digest of the fitted maps: vectors mapped under different ones can't be compared."""
        return self._maps.digest()

    def mapped(self, raw: Float32Array, role: Role = "document") -> Float32Array:
        """Return raw vectors `(n, dimension)` as the unit vectors that are compared."""
        return self._maps(raw, role)

    def mapped_queries(self, raw: Float32Array) -> Float32Array:
        """Return raw query vectors mapped, and keep the latest for tuning an approximate kind."""
        self._queries.extend(raw)
        return self._maps(raw, "query")

    def search(self, units: Float32Array, k: int, among: Seqs | None = None) -> list[list[tuple[int, float]]]:
        """Return for each query `(n, dimension)` the k nearest rows (of `among`) and their cosines, best first."""
        return self._faiss.search_many(units, k, among)

    def scores(self, unit: Float32Array, seqs: Seqs) -> NDArray[np.float64]:
        """Return the cosines of rows."""
        return self._faiss.scores(unit, seqs)

    def rows(self, seqs: Seqs) -> Float32Array:
        """Return the unit vectors of rows."""
        return self._faiss.rows(seqs)

    def held(self, seqs: Seqs) -> Float32Array:
        """Return the unit vectors of rows as memory holds them: at 8 bits a number where codes are scanned."""
        return self._faiss.held(seqs)

    @property
    def seqs(self) -> Seqs:
        """The numbers of the rows held, ascending."""
        return self._faiss.seqs

    def exact(self, seqs: Seqs) -> Float32Array:
        """Return the unit vectors of rows from the store."""
        return self.mapped(self._store.documents.vectors_of(seqs, keep=True))

    # -- approximate kinds

    def due(self) -> Plan | None:
        """Return what should be built by now: there are enough rows, four times those trained on, or many unlike those.

        The plan is of the rows that are held, at the state of the store that they follow.
        """
        count, tuning = len(self), self._faiss.tuning
        if self._state is _State.BROKEN or count < max(kinds.TRAIN_AT, _RETRY_GROWTH * self._failed_at):
            return None
        if tuning is not None and count < _GROWTH * tuning.trained_on and not self._faiss.drifted:
            return None
        settings = self._store.meta.read().vectors
        kind = settings.kind
        if kind == "auto":
            kind = "ivf" if tuning is not None and self._is_beyond_scanning(tuning) else "scan"
        factory = kinds.factory_string(kind, self._maps.dimension, count)
        return None if factory is None else self.plan(factory, settings, self._faiss.seqs)

    def _is_beyond_scanning(self, tuning: Tuning) -> bool:
        """Return whether a scan takes too long, or took too long before: lists that replaced it are fast."""
        return not kinds.scans(tuning.factory) or self._faiss.seconds_a_search() > SLOW_SECONDS

    @property
    def generation(self) -> int:
        """The generation of the store's maps and kind that the vectors are of."""
        return self._generation

    def make_room(self, plan: Plan) -> None:
        """Hold rows that are exact in memory rounded from now on, if that is what will be built."""
        if kinds.scans(plan.factory) and self._faiss.tuning is None and self._faiss.lossless:
            self._faiss = self._faiss.as_rounded()

    def build_if_due(self) -> None:
        """Build what is due now, under the lock; a kind that can't be built leaves the vectors exact."""
        plan = self.due()
        if plan is None:
            return
        try:
            self.build(plan)
        except InputError as error:  # the rows are stored; they are searched exactly
            logger.warning(KEPT_AS_IT_IS, error)
            with self._store.snapshot():
                self.load()
            self.failed(plan)

    def failed(self, plan: Plan) -> None:
        """Try no build again until there are a quarter more rows."""
        self._failed_at = plan.count

    def build(self, plan: Plan) -> None:
        """Build the vectors from the rows, under the lock, and use them."""
        self._state = _State.BROKEN
        self._faiss = FaissIndex(self._maps.dimension, self.exact)  # frees the memory of the former ones
        with self._store.snapshot():
            built = plan.build(self, self.exact, show_progress=self.show_progress)
        self.adopt(plan, built)

    def adopt(self, plan: Plan, built: FaissIndex) -> None:
        """Use vectors that were built, and store their snapshot, which other processes then load.

        What changed meanwhile is replayed; after a change of maps or kind, they are of no use and dropped.
        """
        with self._store.transaction():
            meta = self._store.meta.read()
            if meta.generation != plan.generation or meta.vectors != plan.settings:
                return
            self._state = _State.BROKEN
            self._take(plan, built)
            self._store.meta.write(replace(meta, vectors=replace(plan.settings, tuning=built.tuning)))
            self._store.next_generation()
            self._generation = meta.generation + 1
            previous = self._write_snapshot(self._generation)
        self._state = _State.BEHIND
        self._saved(previous)

    def _take(self, plan: Plan, built: FaissIndex) -> None:
        """Use vectors that were built, and replay what changed meanwhile."""
        self._faiss, self._last_seq = built, max(plan.last, int(built.seqs[-1]))
        self._deletion = self._compacted = plan.deletion
        self._unsaved = len(built)
        self._replay()
        if not np.array_equal(self._faiss.seqs, self._store.documents.seqs()):  # a last check, before it is written
            self._start_over()

    def plan(self, factory: str, settings: VectorSettings, seqs: Seqs) -> Plan:
        """Return what it takes to build a factory string's index of some rows, at the state that is followed."""
        logger.info("building %s for %d documents", factory, len(seqs))
        chosen = np.random.default_rng(0).choice(seqs, kinds.sample_size(factory, len(seqs)), replace=False)
        return Plan(
            factory=factory,
            target_recall=max(settings.target_recall, kinds.floor_of(factory, self._maps.dimension).recall),
            settings=settings,
            generation=self._generation,
            deletion=self._deletion,
            count=len(seqs),
            last=int(seqs[-1]),
            sample=chosen,
            queries=self._maps(np.stack(self._queries), "query") if self._queries else None,
        )

    def some(self, seqs: Seqs) -> Float32Array:
        """Return those of some rows that are stored, as unit vectors `(n, dimension)`."""
        _, raw = self._store.documents.stored(seqs)
        return self.mapped(raw)

    def after(self, last: int) -> Iterator[tuple[Seqs, Float32Array]]:
        """Yield the stored rows beyond a number and their unit vectors, in batches."""
        for seqs, raw in self._store.documents.vectors(last):
            yield seqs, self.mapped(raw)

    # -- snapshots

    def save(self, *, at_least: int | None = None) -> None:
        """Write a snapshot if that many rows changed since the last one, or half of them; outside a transaction."""
        if at_least is None:
            at_least = max(_SNAPSHOT_AT, int(_SNAPSHOT_SHARE * len(self)))
        if self._unsaved < max(at_least, 1) or self._state is _State.BROKEN:
            return
        with self._store.transaction():  # one process at a time writes a snapshot
            if self._is_outdated():
                return
            previous = self._write_snapshot(self._generation)
        self._saved(previous)

    def _write_snapshot(self, generation: int) -> str | None:
        return self._snapshot.write(self._faiss, Moment(generation, self._last_seq, self._compacted))

    def _saved(self, previous: str | None) -> None:
        self._unsaved = 0
        self._snapshot.remove(previous)

    def size(self) -> int:
        """Return the bytes of the snapshot on disk."""
        return self._snapshot.size()

    def problems(self) -> Iterator[str]:
        """Yield the differences between snapshot, vectors and rows."""
        yield from self._snapshot.problems()
        if not np.array_equal(self._faiss.seqs, self._store.documents.seqs()):
            yield f"{self._store.file}: the vectors are not those of the stored rows"
            return
        if not self._faiss.lossless:
            return  # quantized; the snapshot's digest covers them
        for seqs, raw in self._store.documents.vectors():
            if not np.allclose(self._faiss.rows(seqs), self.mapped(raw), atol=1e-5):
                yield f"{self._store.file}: vectors {seqs[0]} to {seqs[-1]} are not those of the rows"
