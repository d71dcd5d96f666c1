"""The search engine: dense, lexical and hybrid searches over a store and its in-memory vectors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tp_retrieval.errors import CorruptIndexError
from tp_retrieval.indexing.search.fusion import fuse, mmr, scaled
from tp_retrieval.indexing.search.query import Mode, Search, Selection
from tp_retrieval.indexing.storage.metadata_index import Seqs
from tp_retrieval.indexing.storage.store import Store
from tp_retrieval.indexing.vectors.synced_vectors import SyncedVectors
from tp_retrieval.types import Float32Array, Hit

_KEPT = 8  # conditions whose rows are kept


class _Candidate(NamedTuple):
    seq: int
    score: float
    parts: dict[str, float]


class SearchEngine:
    """Searches over a store and its vectors, at one state of both; `dense_weight` is the default of hybrid searches."""

    def __init__(self, store: Store, vectors: SyncedVectors, dense_weight: float) -> None:
        self._store = store
        self._vectors = vectors
        self._dense_weight = dense_weight
        self._kept: dict[str, Seqs] = {}  # rows by condition, the latest last
        self._kept_at: tuple[int, ...] = ()

    def selected(self, selection: Selection) -> Seqs | None:
        """Return the rows of a selection, None for all of them; those of the latest conditions are kept until a change."""
        if selection.condition is None or selection.ids is not None:
            return self._store.select(selection.condition, selection.ids, self._vectors.seqs)
        if self._vectors.moment != self._kept_at:
            self._kept.clear()
            self._kept_at = self._vectors.moment
        condition = repr(selection.condition)  # in which 1, 1.0 and true differ
        rows = self._kept.pop(condition, None)
        if rows is None:
            rows = self._store.select(selection.condition, None, self._vectors.seqs)
        if rows is not None:
            self._kept[condition] = rows
            if len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]
        return rows

    def hits(self, search: Search, text: str, unit: Float32Array | None, among: Seqs | None) -> list[Hit]:
        """Return the hits of a query: its text, its mapped unit vector `(dimension,)`, and the selected rows."""
        available = len(self._vectors) if among is None else len(among)
        k = min(search.count, available)
        wanted = k if search.mmr is None else min(max(search.candidates, k), available)
        if k == 0:
            return []
        if search.mode == "lexical" or unit is None:
            lexical = self._store.fulltext.search(text, wanted, among)
            candidates = [_Candidate(seq, score, {"lexical": score}) for seq, score in lexical.items()]
        elif search.mode == "dense":
            dense = self._vectors.search(unit, wanted, among)
            candidates = [_Candidate(seq, score, {"dense": score}) for seq, score in dense]
        else:
            candidates = self._hybrid(search, text, unit, wanted, among)
        if search.min_score is not None:
            candidates = [candidate for candidate in candidates if candidate.score >= search.min_score]
        if search.mmr is not None:
            candidates = self._diverse(candidates, k, search.mmr, search.mode)
        return self._documents(candidates)

    def _hybrid(self, search: Search, text: str, unit: Float32Array, wanted: int, among: Seqs | None) -> list[_Candidate]:
        count = min(max(search.candidates, wanted), len(self._vectors))  # SQLite takes no more than 64 bits
        near = [seq for seq, _ in self._vectors.search(unit, count, among)]
        words = self._store.fulltext.search(text, count, among)
        words |= self._store.fulltext.scores(text, [seq for seq in near if seq not in words])
        seqs = np.array(sorted({*near, *words}), dtype=np.int64)
        dense = self._vectors.scores(unit, seqs)
        lexical = np.array([words.get(int(seq), 0.0) for seq in seqs], dtype=np.float64)
        weight = self._dense_weight if search.dense_weight is None else search.dense_weight
        order, scores = fuse(dense, lexical, weight, count, fusion=search.fusion)
        return [
            _Candidate(int(seqs[i]), float(score), {"dense": float(dense[i]), "lexical": float(lexical[i])})
            for i, score in zip(order[:wanted], scores, strict=False)
        ]

    def _diverse(self, candidates: list[_Candidate], k: int, weight: float, mode: Mode) -> list[_Candidate]:
        scores = np.array([candidate.score for candidate in candidates], dtype=np.float64)
        relevance = scores if mode == "dense" else scaled(scores)
        rows = self._vectors.rows(np.array([candidate.seq for candidate in candidates], dtype=np.int64))
        return [candidates[i] for i in mmr(relevance, rows, k, weight)]

    def _documents(self, candidates: list[_Candidate]) -> list[Hit]:
        documents = self._store.documents.by_seq([candidate.seq for candidate in candidates])
        missing = [candidate.seq for candidate in candidates if candidate.seq not in documents]
        if missing:
            raise CorruptIndexError(f"{self._store.file}: record {missing[0]} has a vector or words but no document")
        return [Hit(documents[seq], score, rank, parts) for rank, (seq, score, parts) in enumerate(candidates, 1)]
