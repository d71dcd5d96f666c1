"""The model, indexes and reranker behind a server; the model computes batches of many callers' texts.

service = Service(Embedder.from_pretrained(), {"faq": Path("faq-index")})
vectors, tokens = service.embed(["a text"], "document")
hits = service.search("faq", "a question", 10)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from tp_retrieval import (
    Embedder,
    Hit,
    IncompatibleIndexError,
    Index,
    Recipe,
    RecipeError,
    Reranker,
    UnsupportedModelError,
)
from tp_retrieval.embedding.normalized import UnitEmbedder
from tp_retrieval.indexing.search.query import SearchOptions
from tp_retrieval.integrations.server.batcher import Batcher
from tp_retrieval.integrations.server.errors import RequestError
from tp_retrieval.integrations.server.limits import Limits
from tp_retrieval.integrations.server.metrics import Metrics
from tp_retrieval.reranking.reranker import MAX_TOKENS, Ranked
from tp_retrieval.types import Float32Array, HasLegacyIdentity, HasProvenance, Provenance, Role, TextEmbedder

_TEMPLATE = 8  # tokens that a template adds to a text, roughly


@dataclass(frozen=True)
class Settings:
    """The settings of a server: limits, whether requests share batches, and the method of reranking.

    With `method` None there is no reranking, and the LM head is not loaded.
    """

    limits: Limits = field(default_factory=Limits)
    batching: bool = True
    method: str | None = "query-likelihood"


class Service:
    """Embedding, search and reranking for many callers, from any thread.

    `indexes` are folders by their names in requests. Raises what `Index.open` raises.
    """

    def __init__(self, embedder: Embedder, indexes: Mapping[str, Path], settings: Settings, metrics: Metrics) -> None:
        self.embedder = embedder
        self.settings = settings
        self._metrics = metrics
        self._batcher = Batcher(waiting=settings.limits.waiting_tokens, together=settings.batching, observe=metrics.step)
        metrics.watch(lambda: self._batcher.waiting)
        self._served = _Served(embedder, embedder.count_tokens, self._batcher)
        self._reranker: Reranker | None = None
        if settings.method is not None:
            whole = Reranker(embedder, method=settings.method)
            self._batcher.add("rerank", whole.score_pairs)
            self._reranker = Reranker(method=_Scorer(self._batcher, embedder), depth=whole.depth)
        self.indexes: dict[str, Index] = {}
        try:
            for name, folder in indexes.items():
                self.indexes[name] = self._open(folder)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Finish what was accepted and close the indexes."""
        self._batcher.close()
        for index in self.indexes.values():
            index.close()

    @property
    def model(self) -> str:
        """The model's name in requests."""
        return Path(self.embedder.provenance.model).name

    def check_model(self, name: str | None) -> None:
        """Raise `RequestError` 404 if a client asks for another model."""
        names = (self.model, self.embedder.provenance.model)
        if name is not None and name not in names:
            raise RequestError(404, f"model: {name!r} is not served here; {self.model!r} is", "model")

    def embed(self, texts: Sequence[str], role: Role) -> tuple[Float32Array, int, int]:
        """Return unit vectors `(n, dim) float32`, the number of tokens, and the number of tokens cut off."""
        vectors, tokens = self._served.embed(texts, role)
        self._metrics.tokens("/v1/embeddings", tokens)
        cut = sum(self.embedder.cut_tokens(texts, role))
        return vectors if self.embedder.fitted else self.embedder.normalize(vectors), tokens, cut

    def rerank(self, query: str, texts: Sequence[str], top_n: int | None) -> tuple[list[Ranked], int]:
        """Return texts by position, best first, with the method's scores, and the number of tokens."""
        if self._reranker is None:
            raise RequestError(404, "this server was started without a reranker")
        ranked = self._reranker.order(query, texts, top_n=top_n)
        tokens = len(texts) * self.embedder.count_tokens(query) + sum(map(self.embedder.count_tokens, texts))
        self._metrics.tokens("/v1/rerank", tokens)
        return ranked, tokens

    def search(self, name: str | None, query: str, k: int, options: SearchOptions, *, rerank: bool = False) -> list[Hit]:
        """Return an index's k best hits; `options` are those of `Index.search`."""
        if rerank and self._reranker is None:
            raise RequestError(404, "this server was started without a reranker", "rerank")
        options["rerank"] = self._reranker if rerank else None
        return self._index(name).search(query, k, **options)

    def _index(self, name: str | None) -> Index:
        if name is None and len(self.indexes) == 1:
            return next(iter(self.indexes.values()))
        if name not in self.indexes:
            served = ", ".join(self.indexes) or "none"
            raise RequestError(404, f"index: {name!r} is not served here; there are {served}", "index")
        return self.indexes[name]

    def _open(self, folder: Path) -> Index:
        """Open an index with an embedder that shares the model's weights if it can, and the batcher in any case.

        One whose vectors come from elsewhere, and not from this model, is searched by words alone.
        """
        with Index.open(folder) as index:
            recipe = index.info().recipe
            candidates: list[TextEmbedder] = [self.embedder]
            if not self.embedder.fitted:
                with suppress(RecipeError, UnsupportedModelError):  # it may be of a model with more blocks
                    same = self.embedder if recipe is None else self.embedder.with_recipe(Recipe.from_dict(recipe))
                    candidates += [same, UnitEmbedder.of(same)]
            for candidate in candidates:
                try:
                    return Index.open(folder, _Served(candidate, self.embedder.count_tokens, self._batcher))
                except IncompatibleIndexError:
                    continue
            if index.provenance is None:
                return Index.open(folder)
            loaded = index.embedder
        return Index.open(folder, _Served(loaded, self.embedder.count_tokens, self._batcher))


class _Served:
    """An embedder that computes in the batcher's steps."""

    provenance: Provenance

    def __init__(self, embedder: TextEmbedder, count_tokens: Callable[[str], int], batcher: Batcher) -> None:
        self.dimension = embedder.dimension
        self.fingerprint = embedder.fingerprint
        if isinstance(embedder, HasProvenance):
            self.provenance = embedder.provenance
        if isinstance(embedder, HasLegacyIdentity):
            self.legacy_identity = embedder.legacy_identity
        self._longest = embedder.recipe.max_tokens if isinstance(embedder, Embedder) else sys.maxsize
        self._count_tokens = count_tokens
        self._batcher = batcher
        batcher.add(f"query {self.fingerprint}", embedder.embed_queries)
        batcher.add(f"document {self.fingerprint}", embedder.embed_documents)

    def embed(self, texts: Sequence[str], role: str) -> tuple[Float32Array, int]:
        """Return one vector a text and the number of tokens; equal texts are embedded once."""
        counts = {text: self._count_tokens(text) for text in texts}
        costs = [min(count, self._longest) + _TEMPLATE for count in counts.values()]
        rows = dict(zip(counts, self._batcher.run(f"{role} {self.fingerprint}", list(counts), costs), strict=True))
        vectors = np.stack([rows[text] for text in texts]) if rows else np.zeros((0, self.dimension), dtype=np.float32)
        return vectors, sum(counts[text] for text in texts)

    def embed_queries(self, texts: Sequence[str], *, show_progress: bool = False) -> Float32Array:
        """Return one vector a query."""
        return self.embed(texts, "query")[0]

    def embed_documents(self, texts: Sequence[str], *, show_progress: bool = False) -> Float32Array:
        """Return one vector a document."""
        return self.embed(texts, "document")[0]


class _Scorer:
    """A scorer that computes in the batcher's steps."""

    def __init__(self, batcher: Batcher, embedder: Embedder) -> None:
        self._batcher = batcher
        self._embedder = embedder

    def score_pairs(self, pairs: Sequence[tuple[str, str]], *, show_progress: bool = False) -> Float32Array:
        """Return one score a pair, `(n,) float32`."""
        counts = {text: self._embedder.count_tokens(text) for text in dict.fromkeys(chain.from_iterable(pairs))}
        costs = [min(counts[query] + counts[document], MAX_TOKENS) + _TEMPLATE for query, document in pairs]
        return np.array(self._batcher.run("rerank", list(pairs), costs), dtype=np.float32)
