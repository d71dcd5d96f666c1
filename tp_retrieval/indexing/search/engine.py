"""What a search asks for, and the ways to answer it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np

from tp_retrieval.errors import CorruptIndexError, InputError
from tp_retrieval.indexing.search import fusion as fusions
from tp_retrieval.indexing.search.filters import Condition, parsed
from tp_retrieval.indexing.storage.metadata_index import Seqs
from tp_retrieval.indexing.storage.store import Store
from tp_retrieval.indexing.vectors.synced_vectors import SyncedVectors
from tp_retrieval.types import Float32Array, Hit, HitReranker, checked_texts

Mode = Literal["hybrid", "dense", "lexical"]
Fusion = Literal["convex", "reciprocal-rank"]
Where = Mapping[str, Any]

DENSE_WEIGHT = 0.4
"""Dense share of a hybrid score; `benchmarks/retrieval.py` measures it."""

CANDIDATES = 100
"""Rows that each side brings to a hybrid search, and that MMR chooses from."""


class SearchOptions(TypedDict, total=False):
    """What `Index.search` takes by name."""

    where: Where | None
    ids: Sequence[str] | None
    mode: Mode
    mmr: float | None
    min_score: float | None
    dense_weight: float | None
    fusion: Fusion
    candidates: int
    rerank: HitReranker | None


@dataclass(frozen=True)
class Search:
    """Ask for k rows; raise `InputError` for an argument that has no meaning."""

    k: int
    where: Where | None = None
    ids: Sequence[str] | None = None
    mode: Mode = "hybrid"
    mmr: float | None = None
    min_score: float | None = None
    dense_weight: float = DENSE_WEIGHT
    fusion: Fusion = "convex"
    candidates: int = CANDIDATES
    rerank: HitReranker | None = None

    def __post_init__(self) -> None:
        for name, number in (("k", self.k), ("candidates", self.candidates)):
            if not isinstance(number, (int, np.integer)) or isinstance(number, bool) or number < 0:
                raise InputError(f"{name}: {number!r} must be a whole number from 0")
        if self.mode not in ("hybrid", "dense", "lexical"):
            raise InputError(f"mode: {self.mode!r} must be hybrid, dense or lexical")
        if self.fusion not in ("convex", "reciprocal-rank"):
            raise InputError(f"fusion: {self.fusion!r} must be convex or reciprocal-rank")
        for name, value in (("dense_weight", self.dense_weight), ("mmr", 0 if self.mmr is None else self.mmr)):
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
                raise InputError(f"{name}: {value!r} must be from 0 to 1")
        if self.ids is not None:
            object.__setattr__(self, "ids", checked_texts(self.ids, "ids"))
        _ = self.condition  # what is wrong in it is told before anything is embedded
        if self.min_score is not None and (not isinstance(self.min_score, (int, float)) or np.isnan(self.min_score)):
            raise InputError(f"min_score: {self.min_score!r} must be a number")
        self._check_rerank()

    def _check_rerank(self) -> None:
        if self.rerank is not None and not isinstance(self.rerank, HitReranker):
            raise InputError(f"rerank: {self.rerank!r} must be a reranker, such as Reranker(index.embedder)")
        if self.rerank is not None and self.mmr is not None:
            raise InputError("mmr: choose either hits unlike each other or reranked ones; rerank would undo mmr's order")

    @property
    def count(self) -> int:
        """How many rows to find: k, or as many as are reranked before k are taken."""
        return self.k if self.rerank is None or self.k == 0 else max(self.k, self.rerank.depth)

    @cached_property
    def condition(self) -> Condition | None:
        """What `where` states, None if that is nothing."""
        return None if self.where is None or self.where == {} else parsed(self.where)


class _Found(NamedTuple):
    seq: int
    score: float
    parts: dict[str, float]


class Searcher:
    """Answer searches from a store and its image, at one moment of both."""

    def __init__(self, store: Store, vectors: SyncedVectors) -> None:
        self._store = store
        self._vectors = vectors

    def among(self, search: Search) -> Seqs | None:
        """Return the rows that a search is restricted to, None for all of them."""
        return self._store.select(search.condition, search.ids, self._vectors.seqs)

    def hits(self, search: Search, text: str, unit: Float32Array | None, among: Seqs | None) -> list[Hit]:
        """Return the hits for a query: its text, its mapped unit vector `(dimension,)`, and the rows a filter keeps."""
        there = len(self._vectors) if among is None else len(among)
        k = min(search.count, there)
        wanted = k if search.mmr is None else min(max(search.candidates, k), there)
        if k == 0:
            return []
        if search.mode == "lexical" or unit is None:
            found = [
                _Found(s, score, {"lexical": score})
                for s, score in self._store.fulltext.search(text, wanted, among).items()
            ]
        elif search.mode == "dense":
            found = [_Found(s, score, {"dense": score}) for s, score in self._vectors.search(unit, wanted, among)]
        else:
            found = self._hybrid(search, text, unit, wanted, among)
        if search.min_score is not None:
            found = [one for one in found if one.score >= search.min_score]
        if search.mmr is not None:
            found = self._diverse(found, k, search.mmr, search.mode)
        return self._documents(found)

    def _hybrid(self, search: Search, text: str, unit: Float32Array, wanted: int, among: Seqs | None) -> list[_Found]:
        count = min(max(search.candidates, wanted), len(self._vectors))  # SQLite takes no more than 64 bits
        near = self._vectors.search(unit, count, among)
        words = self._store.fulltext.search(text, count, among)
        words |= self._store.fulltext.scores(text, [seq for seq, _ in near if seq not in words])
        seqs = np.array(sorted({seq for seq, _ in near} | set(words)), dtype=np.int64)
        dense = self._vectors.scores(unit, seqs)
        lexical = np.array([words.get(int(seq), 0.0) for seq in seqs], dtype=np.float64)
        fuse = fusions.convex if search.fusion == "convex" else fusions.reciprocal_rank
        scores = fuse(dense, lexical, search.dense_weight)
        order = np.argsort(-scores, kind="stable")[:wanted]
        parts = ({"dense": float(dense[i]), "lexical": float(lexical[i])} for i in order)
        return [_Found(int(seqs[i]), float(scores[i]), part) for i, part in zip(order, parts, strict=True)]

    def _diverse(self, found: list[_Found], k: int, weight: float, mode: Mode) -> list[_Found]:
        scores = np.array([one.score for one in found], dtype=np.float64)
        relevance = scores if mode == "dense" else fusions.scaled(scores)
        rows = self._vectors.rows(np.array([one.seq for one in found], dtype=np.int64))
        return [found[i] for i in fusions.mmr(relevance, rows, k, weight)]

    def _documents(self, found: list[_Found]) -> list[Hit]:
        documents = self._store.documents.by_seq([one.seq for one in found])
        missing = [one.seq for one in found if one.seq not in documents]
        if missing:
            raise CorruptIndexError(f"{self._store.file}: record {missing[0]} has a vector or words but no document")
        return [Hit(documents[one.seq], one.score, rank, one.parts) for rank, one in enumerate(found, 1)]
