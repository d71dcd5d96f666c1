"""Reranking by the vectors of another recipe or another embedder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tp_retrieval.embedding.embedder import Embedder
from tp_retrieval.types import Float32Array


class EmbeddingScorer:
    """A scorer by the cosine of an embedder's query and document vectors, mapped if it has fitted maps."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def score_pairs(self, pairs: Sequence[tuple[str, str]], *, show_progress: bool = False) -> Float32Array:
        """Return one cosine a pair of query and document, `(n,) float32`."""
        if not pairs:
            return np.zeros(0, dtype=np.float32)
        queries = self._embedder.embed_queries([query for query, _ in pairs])
        documents = self._embedder.embed_documents([document for _, document in pairs], show_progress=show_progress)
        if not self._embedder.fitted:
            queries, documents = self._embedder.normalize(queries), self._embedder.normalize(documents)
        cosines: Float32Array = np.einsum("nd,nd->n", queries, documents)
        return cosines
