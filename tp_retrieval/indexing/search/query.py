"""What a search asks for, validated: which rows, how many, and how they are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypedDict

import numpy as np

from tp_retrieval.errors import InputError
from tp_retrieval.indexing.search.filters import Condition, parsed
from tp_retrieval.indexing.search.neighbours import MOST_EXPANDED, Expand
from tp_retrieval.types import HitReranker, check_text, checked_texts

Mode = Literal["hybrid", "dense", "lexical"]
Fusion = Literal["convex", "reciprocal-rank"]
Where = Mapping[str, Any]

DENSE_WEIGHT = 0.4
"""Dense share of a hybrid score; `benchmarks/exits.py` measures it."""

CANDIDATES = 100
"""Rows that each side brings to a hybrid search, and that MMR chooses from."""


class HitShape(TypedDict, total=False):
    """What hits shall have around them, which of them are one, and how relevant they must be."""

    expand: Expand | None
    group_by: str | None
    min_relevance: float | None


class SearchOptions(HitShape, total=False):
    """What `Index.search` takes by name."""

    where: Where | None
    ids: Sequence[str] | None
    namespace: str
    mode: Mode
    mmr: float | None
    min_score: float | None
    dense_weight: float | None
    fusion: Fusion
    candidates: int
    rerank: HitReranker | None


class VectorSearchOptions(HitShape, total=False):
    """What `Index.search_by_vector` takes by name."""

    where: Where | None
    ids: Sequence[str] | None
    namespace: str
    text: str | None
    mmr: float | None
    min_score: float | None
    dense_weight: float | None
    fusion: Fusion
    candidates: int


@dataclass(frozen=True)
class Selection:
    """The documents of a namespace that fit `where` and have one of `ids`; None restricts nothing. Raises `InputError`."""

    where: Where | None = None
    ids: Sequence[str] | None = None
    namespace: str = ""

    def __post_init__(self) -> None:
        check_text(self.namespace, "namespace")
        if self.ids is not None:
            object.__setattr__(self, "ids", checked_texts(self.ids, "ids"))
        _ = self.condition  # raises before any text is embedded

    @cached_property
    def condition(self) -> Condition | None:
        """The parsed `where`, None if it restricts nothing."""
        return None if self.where is None or self.where == {} else parsed(self.where)


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search for the k best rows of a selection; raises `InputError` for an argument without meaning."""

    selection: Selection
    k: int
    mode: Mode = "hybrid"
    mmr: float | None = None
    min_score: float | None = None
    min_relevance: float | None = None
    dense_weight: float | None = None
    """None is the index's own."""
    fusion: Fusion = "convex"
    candidates: int = CANDIDATES
    rerank: HitReranker | None = None
    expand: Expand | None = None
    group_by: str | None = None

    def __post_init__(self) -> None:
        for name, number in (("k", self.k), ("candidates", self.candidates)):
            if not isinstance(number, (int, np.integer)) or isinstance(number, bool) or number < 0:
                raise InputError(f"{name}: {number!r} must be a whole number from 0")
        if self.mode not in ("hybrid", "dense", "lexical"):
            raise InputError(f"mode: {self.mode!r} must be hybrid, dense or lexical")
        if self.fusion not in ("convex", "reciprocal-rank"):
            raise InputError(f"fusion: {self.fusion!r} must be convex or reciprocal-rank")
        shares = (("dense_weight", self.dense_weight), ("mmr", self.mmr), ("min_relevance", self.min_relevance))
        for name, value in shares:
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if value is not None and not (is_number and 0 <= value <= 1):
                raise InputError(f"{name}: {value!r} must be from 0 to 1")
        if self.min_score is not None and (not isinstance(self.min_score, (int, float)) or np.isnan(self.min_score)):
            raise InputError(f"min_score: {self.min_score!r} must be a number")
        if self.rerank is not None and not isinstance(self.rerank, HitReranker):
            raise InputError(f"rerank: {self.rerank!r} must be a reranker, such as Reranker(index.embedder)")
        if self.rerank is not None and self.mmr is not None:
            raise InputError("mmr: choose either diverse hits or reranked ones; reranking would undo the order of MMR")

        self._check_shape()

    def _check_shape(self) -> None:
        """Raise `InputError` for hits that can't be had: expanded or grouped by what is no number or key."""
        expand = self.expand
        is_count = isinstance(expand, int) and not isinstance(expand, bool) and 0 <= expand <= MOST_EXPANDED
        if expand is not None and not is_count and expand != "section":
            raise InputError(f"expand: {expand!r} must be a number of chunks up to {MOST_EXPANDED}, or 'section'")
        if self.group_by is not None and (not isinstance(self.group_by, str) or not self.group_by):
            raise InputError(f"group_by: {self.group_by!r} must be a key of the metadata, such as 'path'")
        if self.group_by is not None and self.mmr is not None:
            raise InputError("mmr: choose either diverse hits or one of each group")

    @property
    def needs_no_vector(self) -> bool:
        """Whether the hits do not depend on a query's vector."""
        return self.mode == "lexical" or self.k == 0

    @property
    def count(self) -> int:
        """The number of rows to retrieve: k, or as many as are reranked before k are kept."""
        return self.k if self.rerank is None or self.k == 0 else max(self.k, self.rerank.depth)
