"""The search engine: dense, lexical and hybrid searches over a store and its in-memory vectors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from tp_retrieval.errors import CorruptIndexError
from tp_retrieval.indexing.metadata_json import iso_of
from tp_retrieval.indexing.search.fusion import fuse, mmr, scaled
from tp_retrieval.indexing.search.query import Mode, Search, Selection
from tp_retrieval.indexing.search.relevance import QueryScale, sample_of
from tp_retrieval.indexing.storage.fulltext import terms_of
from tp_retrieval.indexing.storage.metadata_index import Seqs
from tp_retrieval.indexing.storage.store import Store
from tp_retrieval.indexing.vectors.synced_vectors import SyncedVectors
from tp_retrieval.types import Document, Float32Array, Hit

_KEPT = 8  # conditions whose rows are kept
_WIDER = 4  # times as many hits as groups are asked for, at first


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
        self._kept: dict[tuple[str, str], Seqs | None] = {}  # rows by condition and namespace, the latest last
        self._kept_at: tuple[int, ...] = ()
        self._sample: tuple[Seqs, Float32Array] | None = None  # rows, and their vectors, at `_sampled_at`
        self._sampled_at: tuple[int, ...] = ()

    def selected(self, selection: Selection) -> Seqs | None:
        """Return the rows of a selection, None for all of them; those of the latest ones are kept until a change."""
        if selection.ids is not None:
            return self._select(selection)
        if self._vectors.moment != self._kept_at:
            self._kept.clear()
            self._kept_at = self._vectors.moment
        wanted = (repr(selection.condition), selection.namespace)  # in which 1, 1.0 and true differ
        rows = self._kept.pop(wanted) if wanted in self._kept else self._select(selection)
        self._kept[wanted] = rows
        if len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        return rows

    def _select(self, selection: Selection) -> Seqs | None:
        return self._store.select(selection.condition, selection.ids, selection.namespace, self._vectors.seqs)

    def hits(self, search: Search, texts: Sequence[str], units: Float32Array | None, among: Seqs | None) -> list[list[Hit]]:
        """Return the hits of each query: its text, its mapped unit vector of `(n, dimension)`, and the selected rows."""
        if search.group_by is not None:
            return [
                self._best_of_groups(search, text, None if units is None else units[i : i + 1], among)
                for i, text in enumerate(texts)
            ]
        available = len(self._vectors) if among is None else len(among)
        k = min(search.count, available)
        wanted = k if search.mmr is None else min(max(search.candidates, k), available)
        if k == 0:
            return [[] for _ in texts]
        if search.mode == "lexical" or units is None:
            return [self._chosen(search, k, self._lexical(text, wanted, among), self._scale(text, None)) for text in texts]
        count = wanted
        if search.mode == "hybrid":
            count = min(max(search.candidates, wanted), len(self._vectors))  # SQLite takes no more than 64 bits
        results = []
        for text, unit, near in zip(texts, units, self._vectors.search(units, count, among), strict=True):
            if search.mode == "dense":
                candidates = [_Candidate(seq, score, {"dense": score}) for seq, score in near]
            else:
                candidates = self._hybrid(search, text, unit, dict(near), count, among)[:wanted]
            results.append(self._chosen(search, k, candidates, self._scale(text, unit)))
        return results

    def _best_of_groups(self, search: Search, text: str, unit: Float32Array | None, among: Seqs | None) -> list[Hit]:
        """Return the best hit of each group; a search looks further until there are enough groups, or no more rows."""
        wide = _WIDER * search.count
        while True:
            wider = replace(search, k=wide, group_by=None, rerank=None, candidates=max(search.candidates, wide))
            (hits,) = self.hits(wider, [text], unit, among)
            best: dict[str, Hit] = {}
            for hit in hits:
                best.setdefault(_group_of(hit.document, str(search.group_by)), hit)
            if len(best) >= search.count or len(hits) < wide:
                return [replace(hit, rank=rank) for rank, hit in enumerate([*best.values()][: search.count], 1)]
            wide *= _WIDER

    def _chosen(self, search: Search, k: int, candidates: list[_Candidate], scale: QueryScale) -> list[Hit]:
        """Return the hits among candidates, best first."""
        if search.min_score is not None:
            candidates = [candidate for candidate in candidates if candidate.score >= search.min_score]
        if search.min_relevance is not None:
            least = search.min_relevance
            candidates = [candidate for candidate in candidates if scale.relevance(candidate.seq, candidate.parts) >= least]
        if search.mmr is not None:
            candidates = self._diverse(candidates, k, search.mmr, search.mode)
        return self._documents(candidates, scale)

    def _scale(self, text: str, unit: Float32Array | None) -> QueryScale:
        """Return what the scores of a query are compared with, given its text and its unit vector `(n,)`."""
        terms = len(terms_of(text, self._store.fulltext.tokenizer, warn=False))
        if unit is None:
            return QueryScale(len(self._vectors), terms, np.zeros(0, dtype=np.int64), np.zeros(0))
        if self._sample is None or self._sampled_at != self._vectors.moment:
            seqs = sample_of(self._vectors.seqs)
            self._sample, self._sampled_at = (seqs, self._vectors.held(seqs)), self._vectors.moment
        seqs, rows = self._sample
        return QueryScale(len(self._vectors), terms, seqs, rows @ unit)

    def _lexical(self, text: str, count: int, among: Seqs | None) -> list[_Candidate]:
        scores = self._store.fulltext.search(text, count, among)
        return [_Candidate(seq, score, {"lexical": score}) for seq, score in scores.items()]

    def _hybrid(
        self, search: Search, text: str, unit: Float32Array, near: dict[int, float], count: int, among: Seqs | None
    ) -> list[_Candidate]:
        """Return the union of the nearest rows, with their cosines, and of those with the query's words, best first."""
        words = self._store.fulltext.search(text, count, among)
        words |= self._store.fulltext.scores(text, [seq for seq in near if seq not in words])
        others = np.array([seq for seq in words if seq not in near], dtype=np.int64)
        cosines = near | dict(zip(others.tolist(), self._vectors.scores(unit, others).tolist(), strict=True))
        seqs = sorted(cosines)
        dense = np.array([cosines[seq] for seq in seqs], dtype=np.float64)
        lexical = np.array([words.get(seq, 0.0) for seq in seqs], dtype=np.float64)
        weight = self._dense_weight if search.dense_weight is None else search.dense_weight
        order, scores = fuse(dense, lexical, weight, count, fusion=search.fusion)
        return [
            _Candidate(seqs[i], float(score), {"dense": float(dense[i]), "lexical": float(lexical[i])})
            for i, score in zip(order, scores, strict=False)
        ]

    def _diverse(self, candidates: list[_Candidate], k: int, weight: float, mode: Mode) -> list[_Candidate]:
        scores = np.array([candidate.score for candidate in candidates], dtype=np.float64)
        relevance = scores if mode == "dense" else scaled(scores)
        rows = self._vectors.rows(np.array([candidate.seq for candidate in candidates], dtype=np.int64))
        return [candidates[i] for i in mmr(relevance, rows, k, weight)]

    def _documents(self, candidates: list[_Candidate], scale: QueryScale) -> list[Hit]:
        documents = self._store.documents.found([candidate.seq for candidate in candidates])
        missing = [candidate.seq for candidate in candidates if candidate.seq not in documents]
        if missing:
            raise CorruptIndexError(f"{self._store.file}: record {missing[0]} has a vector or words but no document")
        return [
            Hit(documents[seq], score, rank, parts, relevance=scale.relevance(seq, parts))
            for rank, (seq, score, parts) in enumerate(candidates, 1)
        ]


def _group_of(document: Document, path: str) -> str:
    """Return the value under a dotted path as JSON, the document's id where there is none."""
    value: object = document.metadata
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return f"id {document.id}"
        value = value[key]
    return json.dumps(value, sort_keys=True, default=iso_of)
