"""An embedder and a scorer that compute in the batcher's steps.

embedder = BatchedEmbedder(Embedder.from_pretrained(), count_tokens, batcher)
vectors, tokens = embedder.embed(["a text"], "query")
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from tp_retrieval import Embedder
from tp_retrieval.integrations.server.batcher import Batcher
from tp_retrieval.reranking.reranker import MAX_TOKENS
from tp_retrieval.types import (
    EmbedsStretches,
    Float32Array,
    HasLegacyIdentity,
    HasProvenance,
    Provenance,
    Role,
    Stretches,
    TextEmbedder,
)

_TEMPLATE = 8  # tokens that a template adds to a text, roughly


class BatchedEmbedder:
    """An embedder that computes in the batcher's steps; documents that are added to an index in the background."""

    provenance: Provenance

    def __init__(self, embedder: TextEmbedder, count_tokens: Callable[[str], int], batcher: Batcher) -> None:
        self.dimension = embedder.dimension
        self.fingerprint = embedder.fingerprint
        if isinstance(embedder, HasProvenance):
            self.provenance = embedder.provenance
        if isinstance(embedder, HasLegacyIdentity):
            self.legacy_identity = embedder.legacy_identity
        self._longest = embedder.recipe.max_tokens if isinstance(embedder, Embedder) else sys.maxsize
        self.count_tokens = count_tokens
        self._batcher = batcher
        batcher.add(f"query {self.fingerprint}", embedder.embed_queries)
        batcher.add(f"document {self.fingerprint}", embedder.embed_documents)
        batcher.add(f"stored {self.fingerprint}", embedder.embed_documents)
        if isinstance(embedder, EmbedsStretches):
            batcher.add(f"stretches {self.fingerprint}", partial(_with_stretches, embedder))
            self.embed_with_stretches = self._with_stretches

    def embed(self, texts: Sequence[str], role: Role) -> tuple[Float32Array, int]:
        """Return one vector a text and the number of tokens; equal texts are embedded once."""
        return self._embedded(texts, role, background=False)

    def _embedded(self, texts: Sequence[str], work: str, *, background: bool) -> tuple[Float32Array, int]:
        unique = list(dict.fromkeys(texts))
        counts = dict(zip(unique, map(self.count_tokens, unique), strict=True))
        rows = dict(zip(unique, self._run(work, unique, counts, unique, background=background), strict=True))
        vectors = np.stack([rows[text] for text in texts]) if rows else np.zeros((0, self.dimension), dtype=np.float32)
        return vectors, sum(counts[text] for text in texts)

    def embed_queries(self, texts: Sequence[str], *, show_progress: bool = False) -> Float32Array:
        """Return one vector a query."""
        return self.embed(texts, "query")[0]

    def embed_documents(self, texts: Sequence[str], *, show_progress: bool = False) -> Float32Array:
        """Return one vector a document, in the background."""
        return self._embedded(texts, "stored", background=True)[0]

    def _with_stretches(
        self,
        texts: Sequence[str],
        wanted: Sequence[Collection[int]],
        *,
        sampled: Collection[int] = (),
        show_progress: bool = False,
    ) -> tuple[Float32Array, list[Stretches]]:
        """Return the vectors of documents and the stretches that are wanted of each, in the background."""
        of_texts = zip(texts, wanted, strict=True)
        items = [_Stretched(text, frozenset(of_text), frozenset(sampled)) for text, of_text in of_texts]
        counts = {text: self.count_tokens(text) for text in texts}
        found = self._run("stretches", items, counts, texts, background=True)
        vectors = np.stack([row for row, _ in found]) if found else np.zeros((0, self.dimension), dtype=np.float32)
        return vectors, [stretches for _, stretches in found]

    def _run(
        self, work: str, items: Sequence[object], counts: Mapping[str, int], texts: Sequence[str], *, background: bool
    ) -> list[Any]:
        costs = [min(counts[text], self._longest) + _TEMPLATE for text in texts]
        return self._batcher.run(f"{work} {self.fingerprint}", items, costs, background=background)


class _Stretched(NamedTuple):
    """A document, the views of which stretches are wanted of it, and those that are read of a sample."""

    text: str
    wanted: frozenset[int]
    sampled: frozenset[int]


def _with_stretches(embedder: EmbedsStretches, items: list[_Stretched]) -> list[tuple[Float32Array, Stretches]]:
    """Return the vector and the stretches of each document; of one step all are of one index."""
    by_sample: dict[frozenset[int], list[int]] = {}
    for place, item in enumerate(items):
        by_sample.setdefault(item.sampled, []).append(place)
    results: dict[int, tuple[Float32Array, Stretches]] = {}
    for sampled, places in by_sample.items():
        of_these = [items[place] for place in places]
        vectors, stretches = embedder.embed_with_stretches(
            [item.text for item in of_these], [item.wanted for item in of_these], sampled=sampled
        )
        results |= dict(zip(places, zip(vectors, stretches, strict=True), strict=True))
    return [results[place] for place in range(len(items))]


class BatchedScorer:
    """A scorer that computes in the batcher's steps."""

    def __init__(self, batcher: Batcher, embedder: Embedder) -> None:
        self._batcher = batcher
        self._embedder = embedder

    def score_pairs(self, pairs: Sequence[tuple[str, str]], *, show_progress: bool = False) -> Float32Array:
        """Return one score a pair, `(n,) float32`."""
        counts = {text: self._embedder.count_tokens(text) for text in dict.fromkeys(chain.from_iterable(pairs))}
        costs = [min(counts[query] + counts[document], MAX_TOKENS) + _TEMPLATE for query, document in pairs]
        return np.array(self._batcher.run("rerank", list(pairs), costs), dtype=np.float32)
