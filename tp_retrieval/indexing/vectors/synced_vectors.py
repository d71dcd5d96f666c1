"""The FAISS image of a store: read from its snapshot, brought up to date by replay, written again when worth it.

The store is the truth. The image may be lost, damaged or behind; it is then made from the rows.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from tp_retrieval.errors import InputError
from tp_retrieval.indexing.storage.metadata_index import Seqs
from tp_retrieval.indexing.storage.store import Store
from tp_retrieval.indexing.vectors import kinds
from tp_retrieval.indexing.vectors.faiss_index import FaissIndex
from tp_retrieval.indexing.vectors.fitting import MappedViews, mapped_views
from tp_retrieval.indexing.vectors.snapshot import Moment, Snapshot
from tp_retrieval.types import Float32Array

logger = logging.getLogger(__name__)

SLOW_SECONDS = 0.02
"""An exact search that takes longer makes an index of kind "auto" approximate."""

_SNAPSHOT_AT = 10_000  # rows added or removed after which a snapshot is worth its writing
_PART = 1024  # rows that are mapped at once
_GROWTH = 4  # an approximate index is trained anew when the corpus has grown by this factor
_LOOK_AGAIN = 1.25  # and "auto" times an exact search again after this one, or a kind that failed is tried again


@dataclass(frozen=True)
class MappedRows:
    """Rows `(n,)` and their mapped unit vectors `(n, dimension)`."""

    seqs: Seqs
    vectors: Float32Array


class SyncedVectors:
    """Follow a store with mapped unit vectors in memory. Not thread-safe: its owner calls it under one lock."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.show_progress = False
        self._store = store
        self._snapshot = Snapshot(folder, store.meta)
        self._maps = MappedViews((), ())
        self._faiss = FaissIndex(1, self._exact)
        self._last_seq = self._unsaved = 0
        self._whole = False  # whether nothing is half changed, as an interrupt leaves it
        self._in_step = False  # whether every change of this process was followed
        self._data_version = (0, 0)
        self._deletion = self._compacted = 0  # the last deletion followed, and the last without a dead row here
        self._generation = -1
        self._queries: deque[Float32Array] = deque(maxlen=kinds.HELD_OUT)  # raw; an approximate kind is tuned to them, too
        self._timed_at = self._failed_at = 0  # documents there were when "auto" was timed, and when a kind failed

    @property
    def tuning(self) -> kinds.Tuning | None:
        """How the vectors are searched approximately; None for exact search."""
        return self._faiss.tuning

    def __len__(self) -> int:
        return len(self._faiss)

    # -- following the store

    def load(self, *, from_rows: bool = False) -> None:
        """Read the snapshot if it is the one the store knows, and replay what came after; or replay everything."""
        self._whole = False
        self._load(from_rows)
        self._whole = self._in_step = True

    def _load(self, from_rows: bool) -> None:
        self._timed_at = self._failed_at = 0
        self._data_version = self._store.database.data_version()
        self._generation = self._store.meta.get("generation")
        self._maps = mapped_views(self._store)
        dimension = self._maps.dimension
        self._faiss, self._last_seq, self._unsaved = FaissIndex(dimension, self._exact), 0, 0
        self._deletion = self._compacted = self._store.documents.last_deletion()
        wish = self._store.meta.get("vectors")
        tuning = None if wish["tuning"] is None else kinds.Tuning(**wish["tuning"])
        read = None if from_rows else self._snapshot.read(self._generation, dimension, self._exact, tuning)
        if read is not None:
            self._faiss, moment = read
            self._last_seq, self._deletion, self._compacted = moment.last_seq, moment.deletion, moment.deletion
        elif tuning is not None and len(self._store.documents) >= kinds.TRAIN_AT:
            self._build_or_stay_exact(tuning)
        self._replay()
        if len(self._faiss) != len(self._store.documents):  # a snapshot of other rows
            self._start_over()

    def _build_or_stay_exact(self, tuning: kinds.Tuning) -> None:
        """Build what the lost snapshot held."""
        try:
            self._build(tuning.factory, tuning.target_recall)
        except InputError as error:
            logger.warning("the index stays exact: %s", error)
            self._faiss, self._last_seq = FaissIndex(self._maps.dimension, self._exact), 0

    def prepare(self, seqs: Seqs, raw: Float32Array) -> MappedRows | None:
        """Map rows that are about to be committed, so that nothing can refuse them afterwards; None under new maps.

        Raises `InputError` if a mapped vector is not finite.
        """
        if not self._whole or self._store.meta.get("generation") != self._generation:
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
        if self._whole and self._in_step and current == self._data_version:
            return
        self._in_step = False
        self._data_version = current
        self._follow(added)
        self._in_step = True

    def fall_behind(self) -> None:
        """Note that a change is about to be committed: whoever searches next follows it first.

        Called before the commit, so that an interrupt right after it can't leave an image that answers from the past.
        """
        self._in_step = False

    def discard(self) -> None:
        """Have the next refresh load everything anew."""
        self._whole = self._in_step = False

    def _follow(self, added: MappedRows | None) -> None:
        """Drop what was deleted and add what is new since the last time; under new maps or kinds, start over."""
        if not self._whole or self._store.meta.get("generation") != self._generation:
            self.load()
            return
        self._whole = False
        self._replay(added)
        self._whole = True

    def _replay(self, added: MappedRows | None = None) -> None:
        self._deletion, gone = self._store.documents.deleted(self._deletion)
        self._faiss.remove(gone)
        self._unsaved += len(gone)
        if self._faiss.crowded:
            self._start_over()
            return
        if added is not None and added.seqs[0] == self._last_seq + 1 and not np.isin(added.seqs, gone).any():
            self._take_in(added.seqs, added.vectors)
        self._take_in_stored()

    def _take_in_stored(self) -> None:
        for seqs, vectors in self._mapped_rows(self._last_seq):
            self._take_in(seqs, vectors)

    def _take_in(self, seqs: Seqs, vectors: Float32Array) -> None:
        self._faiss.add(seqs, vectors)
        self._last_seq = int(seqs[-1])
        self._unsaved += len(seqs)

    def _mapped_rows(self, after: int = 0) -> Iterator[tuple[Seqs, Float32Array]]:
        total = len(self._store.documents) if self.show_progress else None
        with tqdm(total=total, unit="vector", disable=not self.show_progress) as bar:
            for seqs, raw in self._store.documents.vectors(after):
                yield seqs, self.mapped(raw)
                bar.update(len(seqs))

    def _start_over(self) -> None:
        """Fill the vectors anew from the rows; what was trained stays."""
        self._faiss.emptied()
        self._last_seq = 0
        self._deletion = self._compacted = self._store.documents.last_deletion()
        self._take_in_stored()

    # -- searching

    def maps_digest(self) -> str:
        """Return a digest of the fitted maps: vectors mapped under different ones can't be compared."""
        return self._maps.digest()

    def mapped(self, raw: Float32Array) -> Float32Array:
        """Return raw vectors `(n, dimension)` as the unit vectors that are compared."""
        return self._maps(raw)

    def mapped_queries(self, raw: Float32Array) -> Float32Array:
        """Return raw query vectors mapped; the latest are kept, to tune an approximate kind to."""
        self._queries.extend(raw)
        return self.mapped(raw)

    def search(self, unit: Float32Array, k: int, among: Seqs | None = None) -> list[tuple[int, float]]:
        """Return the k nearest rows (of `among`) and their cosines, best first."""
        return self._faiss.search(unit, k, among)

    def scores(self, unit: Float32Array, seqs: Seqs) -> NDArray[np.float64]:
        """Return the cosines of rows."""
        return self._faiss.scores(unit, seqs)

    def rows(self, seqs: Seqs) -> Float32Array:
        """Return the unit vectors of rows."""
        return self._faiss.rows(seqs)

    @property
    def seqs(self) -> Seqs:
        """The rows that the image holds, ascending."""
        return self._faiss.seqs

    def _exact(self, seqs: Seqs) -> Float32Array:
        return self.mapped(self._store.documents.vectors_of(seqs))

    # -- approximate kinds

    def build_if_due(self) -> None:
        """Build the wished kind of index if there are rows enough, or four times those it was trained on."""
        wish = self._store.meta.get("vectors")
        count, tuning = len(self), self._faiss.tuning
        if count < max(kinds.TRAIN_AT, _GROWTH * (tuning.trained_on if tuning else 0), _LOOK_AGAIN * self._failed_at):
            return
        kind = wish["kind"]
        if kind == "auto":
            if tuning is None and not self._is_slow():
                return
            kind = "ivf"
        factory = kinds.factory_string(kind, self._maps.dimension, count)
        if factory is None:
            return
        try:
            self.build(factory, wish)
        except InputError as error:  # the rows are in; they are searched exactly
            logger.warning("the index stays exact: %s", error)
            with self._store.snapshot():
                self.load()
            self._failed_at = count

    def build(self, factory: str, wish: Mapping[str, Any]) -> None:
        """Build the vectors anew from the rows, write them, and tell other processes."""
        self._whole = False
        with self._store.snapshot():
            self._build(factory, wish["target_recall"])
        with self._store.transaction():
            if self._store.meta.get("generation") != self._generation or self._store.meta.get("vectors") != wish:
                self.discard()  # another process changed maps or kind meanwhile
                return
            tuning = self._faiss.tuning
            self._store.meta.set("vectors", {**wish, "tuning": None if tuning is None else asdict(tuning)})
            self._store.meta.next_generation()
            generation = self._store.meta.get("generation")
            previous = self._write_snapshot(generation)
        self._generation = generation
        self._whole = True
        self._saved(previous)

    def _build(self, factory: str, target_recall: float) -> None:
        seqs = self._store.documents.seqs()
        self._faiss = FaissIndex(self._maps.dimension, self._exact)  # the old ones go before the new ones come
        logger.info("building %s for %d documents", factory, len(seqs))
        chosen = np.random.default_rng(0).choice(seqs, kinds.sample_size(factory, len(seqs)), replace=False)
        self._deletion = self._compacted = self._store.documents.last_deletion()
        queries = self._maps(np.stack(self._queries)) if self._queries else None
        self._faiss = FaissIndex.build(factory, self._exact(chosen), self._mapped_rows, self._exact, target_recall, queries)
        self._last_seq = int(seqs[-1])
        self._unsaved = len(seqs)

    def _is_slow(self) -> bool:
        if len(self) < _LOOK_AGAIN * self._timed_at:
            return False
        self._timed_at = len(self)
        return self._faiss.seconds_a_search() > SLOW_SECONDS

    # -- snapshots

    def save(self, *, at_least: int = _SNAPSHOT_AT) -> None:
        """Write a snapshot if that many rows changed since the last one; outside a transaction."""
        if self._unsaved < max(at_least, 1) or not self._whole:
            return
        with self._store.transaction():  # one process at a time writes a snapshot
            if self._store.meta.get("generation") != self._generation:
                return  # what would be written is of the past
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
        """Yield how snapshot and vectors differ from the rows."""
        yield from self._snapshot.problems()
        if not np.array_equal(self._faiss.seqs, self._store.documents.seqs()):
            yield f"{self._store.file}: the vectors are not of the rows that are there"
            return
        if not self._faiss.lossless:
            return  # what is kept is not the rows themselves; the digest of the snapshot guards it
        for seqs, raw in self._store.documents.vectors():
            if not np.allclose(self._faiss.rows(seqs), self.mapped(raw), atol=1e-5):
                yield f"{self._store.file}: vectors {seqs[0]} to {seqs[-1]} are not those of the rows"
