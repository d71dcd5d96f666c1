"""The model, indexes and reranker behind a server; the model computes batches of many callers' texts.

service = Service(Embedder.from_pretrained(), {"faq": Path("faq-index")})
vectors, tokens = service.embed(["a text"], "document")
hits = service.search(ApiKey(""), "faq", "a question", 10, {})
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Semaphore
from typing import Any

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
from tp_retrieval.integrations.server.batched import BatchedEmbedder, BatchedScorer
from tp_retrieval.integrations.server.batcher import Batcher, check_caller
from tp_retrieval.integrations.server.errors import OverloadedError, RequestError
from tp_retrieval.integrations.server.indexes.catalog import Catalog
from tp_retrieval.integrations.server.indexes.jobs import Jobs
from tp_retrieval.integrations.server.limits import Limits
from tp_retrieval.integrations.server.metrics import Metrics
from tp_retrieval.integrations.server.schemas.requests import NewIndexRequest
from tp_retrieval.reranking.reranker import Ranked
from tp_retrieval.types import Float32Array, Role, TextEmbedder

_VIEWS, _TOKENS = 8, 32_768  # of a recipe that a client sends
_LOOK = 0.05  # seconds after which one who waits for a turn looks whether it still wants one


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
        self._batched = self._with_batcher(embedder)
        self._reranker: Reranker | None = None
        self._writer: TextWriter | None = None
        self._writers = Semaphore(settings.limits.writers)
        if settings.method is not None:
            whole = Reranker(embedder, method=settings.method)
            self._batcher.add("rerank", whole.score_pairs)
            self._reranker = Reranker(method=BatchedScorer(self._batcher, embedder), depth=whole.depth)
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
        vectors, tokens = self._batched.embed(texts, role)
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

    def _with_batcher(self, embedder: TextEmbedder) -> BatchedEmbedder:
        return BatchedEmbedder(embedder, self.embedder.count_tokens, self._batcher)

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
