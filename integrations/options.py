"""The keyword options that adapters pass on to a search by vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from tp_retrieval.indexing.search.engine import Fusion, Where


class VectorSearchOptions(TypedDict, total=False):
    """What `Index.search_by_vector` takes by name."""

    where: Where | None
    ids: Sequence[str] | None
    text: str | None
    mmr: float | None
    min_score: float | None
    dense_weight: float | None
    fusion: Fusion
    candidates: int
