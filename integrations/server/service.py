"""The model, indexes and reranker behind a server; the model computes batches of many callers' texts.

service = Service(Embedder.from_pretrained(), {"faq": Path("faq-index")})
vectors, tokens = service.embed(["a text"], "document")
hits = service.search(ApiKey(""), "faq", "a question", 10, {})
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Semaphore
from typing import Any, NamedTuple

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
from tp_retrieval.answering.answerer import Answerer, AnswerStream
from tp_retrieval.answering.chat import Message
from tp_retrieval.answering.writer import TextWriter, Writing, WritingOptions
from tp_retrieval.embedding.normalized import UnitEmbedder
from tp_retrieval.indexing.search.query import SearchOptions
from tp_retrieval.integrations.server.access import ApiKey
from tp_retrieval.integrations.server.batcher import Batcher, check_caller
from tp_retrieval.integrations.server.errors import OverloadedError, RequestError
from tp_retrieval.integrations.server.indexes.catalog import Catalog
from tp_retrieval.integrations.server.indexes.jobs import Jobs
from tp_retrieval.integrations.server.limits import Limits
from tp_retrieval.integrations.server.metrics import Metrics
from tp_retrieval.integrations.server.schemas.requests import NewIndexRequest
from tp_retrieval.reranking.reranker import MAX_TOKENS, Ranked
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

_VIEWS, _TOKENS = 8, 32_768  # of a recipe that a client sends
_LOOK = 0.05  # seconds after which one who waits for a turn looks whether it still wants one
_TEMPLATE = 8  # tokens that a template adds to a text, roughly


@dataclass(frozen=True)
class Settings:
    """The settings of a server: limits, whether requests share batches, the method of reranking, and what may be changed.

    With `method` None there is no reranking and no writing, and the LM head is not loaded.
    """

    limits: Limits = field(default_factory=Limits)
    batching: bool = True
    method: str | None = "query-likelihood"
    data: Path | None = None
    """The folder in which clients make indexes."""
    read_only: bool = False
    """Whether nothing may be changed, whatever a key may do."""
    mcp_write: bool = False
    """Whether agents may change documents, with keys that may."""


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
        self._served = self._with_batcher(embedder)
        self._reranker: Reranker | None = None
        self._writer: TextWriter | None = None
        self._writers = Semaphore(settings.limits.writers)
        if settings.method is not None:
            whole = Reranker(embedder, method=settings.method)
            self._batcher.add("rerank", whole.score_pairs)
            self._reranker = Reranker(method=_Scorer(self._batcher, embedder), depth=whole.depth)
            self._writer = TextWriter(embedder.backbone.language_model())
        self.jobs = Jobs()
        try:
            self.catalog = Catalog(indexes, settings.data, self._open)
        except BaseException:
            self.jobs.close()
            self._batcher.close()
            raise

    def close(self) -> None:
        """Finish what was accepted and close the indexes."""
        self.jobs.close()
        self._batcher.close()
        self.catalog.close()

    @property
    def model(self) -> str:
        """The model's name in requests."""
        return Path(self.embedder.provenance.model).name

    @property
    def writes(self) -> bool:
        """Whether there is a whole language model, which reranks and answers."""
        return self._writer is not None

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

    def search(
        self, access: ApiKey, name: str | None, query: str, k: int, options: SearchOptions, *, rerank: bool = False
    ) -> list[Hit]:
        """Return an index's k best hits for the holder of a key; `options` are those of `Index.search`."""
        if rerank and self._reranker is None:
            raise RequestError(404, "this server was started without a reranker", "rerank")
        namespace = access.namespace_of(options.get("namespace", ""))
        asked: SearchOptions = {**options, "namespace": namespace, "rerank": self._reranker if rerank else None}
        with self.catalog.use(name, access) as index:
            return index.search(query, k, **asked)

    @contextmanager
    def answering(
        self, question: str, hits: Sequence[Hit], options: WritingOptions, min_evidence: float | None
    ) -> Iterator[AnswerStream]:
        """Yield the answer to a question while it is written from its hits; raises what `writing` does."""
        with self._turn():
            stream = Answerer(self.embedder, min_evidence=min_evidence).stream(question, hits, options)
            with closing(stream):
                yield stream

    @contextmanager
    def writing(self, turns: Sequence[Message], options: WritingOptions) -> Iterator[Writing]:
        """Yield the next turn of a conversation while it is written.

        Raises `RequestError` 404 without a writing model, and `OverloadedError` if others have written for too long.
        """
        with self._turn() as writer, closing(writer.write(turns, options)) as writing:
            yield writing

    @contextmanager
    def _turn(self) -> Iterator[TextWriter]:
        if self._writer is None:
            raise RequestError(404, "this server was started without a writing model (--rerank none)")
        end = time.monotonic() + self.settings.limits.writer_seconds
        while not self._writers.acquire(timeout=_LOOK):
            check_caller()
            if time.monotonic() > end:
                raise OverloadedError("other answers are being written; try later")
        try:
            yield self._writer
        finally:
            self._writers.release()

    def make(self, asked: NewIndexRequest) -> None:
        """Make an empty index of the served model's weights; raise `RequestError` for a recipe that can't be read."""
        embedder = self.embedder
        if asked.recipe is not None:
            try:
                embedder = embedder.with_recipe(_recipe(asked.recipe, embedder.backbone.name))
            except (RecipeError, UnsupportedModelError) as error:
                raise RequestError(400, str(error), "recipe") from error
        options = asked.model_dump(include={"kind", "target_recall", "tokenizer", "raw"})

        def create(folder: Path) -> Index:
            return Index.create(folder, self._with_batcher(embedder), **options)

        self.catalog.make(asked.name, create)

    def _with_batcher(self, embedder: TextEmbedder) -> _Served:
        return _Served(embedder, self.embedder.count_tokens, self._batcher)

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
                    return Index.open(folder, self._with_batcher(candidate))
                except IncompatibleIndexError:
                    continue
            if index.provenance is None:
                return Index.open(folder)
            loaded = index.embedder
        return Index.open(folder, self._with_batcher(loaded))


def wanted(pieces: Iterable[str]) -> Iterator[str]:
    """Yield what is written for a caller; raise `GoneError` when it has left."""
    for piece in pieces:
        check_caller()
        yield piece


def _recipe(asked: str | Mapping[str, Any], model: str) -> Recipe:
    """Return a recipe by its JSON or the name of a shipped one; no file is opened that a client names."""
    if not isinstance(asked, str):
        recipe = Recipe.from_dict(asked)
        if len(recipe.views) > _VIEWS or recipe.max_tokens > _TOKENS:
            raise RecipeError(f"recipe: at most {_VIEWS} views and {_TOKENS} max_tokens are served")
        return recipe
    if not re.fullmatch(r"[\w-]+", asked):
        raise RecipeError(f"recipe: {asked!r} is no shipped recipe; send its JSON")
    return Recipe.load(asked, model)


class _Served:
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

    def embed(self, texts: Sequence[str], role: str, *, background: bool = False) -> tuple[Float32Array, int]:
        """Return one vector a text and the number of tokens; equal texts are embedded once."""
        unique = list(dict.fromkeys(texts))
        counts = dict(zip(unique, map(self.count_tokens, unique), strict=True))
        rows = dict(zip(unique, self._run(role, unique, counts, unique, background=background), strict=True))
        vectors = np.stack([rows[text] for text in texts]) if rows else np.zeros((0, self.dimension), dtype=np.float32)
        return vectors, sum(counts[text] for text in texts)

    def embed_queries(self, texts: Sequence[str], *, show_progress: bool = False) -> Float32Array:
        """Return one vector a query."""
        return self.embed(texts, "query")[0]

    def embed_documents(self, texts: Sequence[str], *, show_progress: bool = False) -> Float32Array:
        """Return one vector a document, in the background."""
        return self.embed(texts, "stored", background=True)[0]

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
