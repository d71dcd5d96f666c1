"""The FAISS image of a store: read from its snapshot, brought up to date by replay, written again when worth it.

The store is the truth. The image may be lost, damaged or behind; it is then made from the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tp_retrieval.embedding.postprocess import AffineMap, combine, rows_needed, split
from tp_retrieval.indexing.store import Store, StoredMap
from tp_retrieval.indexing.vectors import Vectors
from tp_retrieval.types import Float32Array, VectorView

FIT_AT = 64
"""Rows from which on maps are fitted; fewer say too little about where a corpus lies."""

_SNAPSHOT_AT = 10_000  # rows added or removed after which a snapshot is worth its writing


class VectorImage:
    """Follow a store with mapped unit vectors in memory. Not thread-safe: its owner calls it under one lock."""

    def __init__(self, folder: Path, store: Store, dimension: int, views: Sequence[VectorView]) -> None:
        self._folder = folder
        self._store = store
        self._views = tuple(views)
        self._maps = (AffineMap(),) * len(self._views)
        self._vectors = Vectors(dimension)
        self._last_seq = self._deletions = self._map_generation = self._data_version = 0
        self._unsaved = 0

    def load(self, *, from_rows: bool = False) -> None:
        """Read the snapshot if it is the one the store knows, and replay what came after; or replay everything."""
        self._data_version = self._store.data_version()
        self._map_generation = self._store.meta("map_generation")
        fitted = tuple(AffineMap(**stored.arrays) for stored in self._store.maps())
        self._maps = fitted or (AffineMap(),) * len(self._views)
        dimension = sum(map_.width(view.width) for map_, view in zip(self._maps, self._views, strict=True))
        self._vectors, self._last_seq, self._deletions = Vectors(dimension), 0, 0
        known = None if from_rows else self._store.meta("snapshot")
        if known is not None and known["map_generation"] == self._map_generation:
            read = Vectors.read(self._folder / known["file"], dimension, known["sha256"])
            if read is not None:
                self._vectors, self._last_seq, self._deletions = read, known["last_seq"], known["deletions"]
        self._unsaved = 0
        self.replay()
        if len(self._vectors) != len(self._store):  # a snapshot of other rows
            self._vectors, self._last_seq = Vectors(dimension), 0
            self.replay()

    def refresh(self) -> None:
        """Follow what other processes committed."""
        current = self._store.data_version()
        if current != self._data_version:
            self._data_version = current
            self.replay()

    def replay(self) -> None:
        """Drop what was deleted and add what is new since the last replay; under new maps, start over."""
        if self._store.meta("map_generation") != self._map_generation:
            self.load()
            return
        deletions = self._store.meta("deletions")
        if deletions != self._deletions:
            gone = np.setdiff1d(self._vectors.seqs, self._store.seqs())
            self._vectors.remove(gone)
            self._unsaved += len(gone)
            self._deletions = deletions
        for seqs, raw in self._store.vectors(after=self._last_seq):
            self._vectors.add(seqs, self.mapped(raw))
            self._last_seq = int(seqs[-1])
            self._unsaved += len(seqs)

    def mapped(self, raw: Float32Array) -> Float32Array:
        """Return raw vectors `(n, dimension)` as the unit vectors that are compared."""
        return combine(raw, self._views, self._maps)

    def search(self, unit: Float32Array, k: int) -> list[tuple[int, float]]:
        """Return the k nearest rows and their cosines, best first."""
        return self._vectors.search(unit, k)

    def scores(self, unit: Float32Array, seqs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the cosines of rows."""
        return self._vectors.scores(unit, seqs)

    def fit_if_due(self) -> None:
        """Fit the maps if there are now rows enough for better ones than there are, inside a transaction."""
        if all(view.postprocess == "none" for view in self._views):
            return
        have = [stored.postprocess for stored in self._store.maps()] or ["none"] * len(self._views)
        want = self._attainable()
        wished = [view.postprocess for view in self._views]
        if any(h not in (w, full) and w != "none" for h, w, full in zip(have, want, wished, strict=True)):
            self.fit()

    def fit(self) -> None:
        """Fit every view's map on all rows of the store, inside a transaction.

        A map that needs more rows than there are falls back to `center`, and below `FIT_AT` rows to none.
        """
        count = len(self._store)
        fitted = []
        for i, postprocess in enumerate(self._attainable()):
            map_ = AffineMap.fit(postprocess, partial(self._raw_view, i))
            fitted.append(StoredMap(postprocess, count, map_.arrays()))
        self._store.set_maps(fitted)

    def _raw_view(self, i: int) -> Iterator[Float32Array]:
        return (split(raw, self._views)[i] for _, raw in self._store.vectors())

    def _attainable(self) -> list[str]:
        count = len(self._store)

        def best(view: VectorView) -> str:
            if view.postprocess == "none" or count < FIT_AT:
                return "none"
            return view.postprocess if count >= rows_needed(view.postprocess, view.width) else "center"

        return [best(view) for view in self._views]

    def save(self, *, at_least: int = _SNAPSHOT_AT) -> None:
        """Write a snapshot if that many rows changed since the last one; outside a transaction."""
        if self._unsaved < max(at_least, 1):
            return
        with self._store.transaction():  # one process at a time writes a snapshot
            previous = self._store.meta("snapshot")
            generation = 1 if previous is None else previous["generation"] + 1
            name = f"vectors-{generation}.faiss"
            known = {
                "file": name,
                "generation": generation,
                "sha256": self._vectors.write(self._folder / name),
                "last_seq": self._last_seq,
                "deletions": self._deletions,
                "map_generation": self._map_generation,
            }
            self._store.set_meta("snapshot", known)
            for file in self._folder.glob("vectors-*"):
                if file.name not in (name, previous and previous["file"]):
                    file.unlink(missing_ok=True)
        self._unsaved = 0
        if previous is not None:
            (self._folder / previous["file"]).unlink(missing_ok=True)

    def size(self) -> int:
        """Return the bytes of the snapshot on disk."""
        known = self._store.meta("snapshot")
        file = self._folder / known["file"] if known else None
        return file.stat().st_size if file is not None and file.is_file() else 0
