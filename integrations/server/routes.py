"""The routes of a server, each declared once: those that need an API key, if there are keys, and those open to all."""

from __future__ import annotations

import base64
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse, Response

from tp_retrieval import Hit
from tp_retrieval.integrations.server.errors import RequestError
from tp_retrieval.integrations.server.http.answers import encode, hold, listing
from tp_retrieval.integrations.server.limits import Limits
from tp_retrieval.integrations.server.schemas import EmbeddingsRequest, RerankRequest, SearchRequest
from tp_retrieval.integrations.server.service import Service
from tp_retrieval.types import Float32Array

router, open_router = APIRouter(), APIRouter()

_PAGE = Path(__file__).parent / "page"
_FILES = {"/": "search.html", "/search.js": "search.js", "/search.css": "search.css"}
_SAFE = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_FLOAT = 4  # bytes of a vector's number


def paths_of(router: APIRouter) -> set[str]:
    """Return the paths that a router declares."""
    return {path for route in router.routes if (path := getattr(route, "path", None)) is not None}


# -- what a route depends on: the service, and its request within the limits


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Served = Annotated[Service, Depends(_service)]


async def _limits(service: Served) -> Limits:
    return service.settings.limits


Limited = Annotated[Limits, Depends(_limits)]


def _input_texts(asked: EmbeddingsRequest, service: Served, limits: Limited) -> list[str]:
    service.check_model(asked.model)
    texts = asked.input
    if isinstance(texts, list) and texts and isinstance(texts[0], (int, list)):
        raise RequestError(
            400,
            "input: token ids are of another model's tokenizer; send texts. LangChain's OpenAIEmbeddings does with "
            "check_embedding_ctx_length=False",
            "input",
        )
    return limits.texts_of([texts] if isinstance(texts, str) else texts, "input")


def _documents(asked: RerankRequest, service: Served, limits: Limited) -> list[str]:
    service.check_model(asked.model)
    limits.checked(asked.query, "query")
    return limits.texts_of(asked.documents, "documents")


def _check_search(asked: SearchRequest, limits: Limited) -> None:
    limits.checked(asked.query, "query")
    limits.check_where(asked.where)
    if asked.k > limits.hits:
        raise RequestError(413, f"k: {asked.k} hits; a search may have {limits.hits}", "k")


# -- routes with a key


@router.get("/v1/models")
def models(service: Served) -> dict[str, object]:
    """List the model in OpenAI's shape."""
    model = {"id": service.model, "object": "model", "created": 0, "owned_by": "tp-retrieval"}
    return {"object": "list", "data": [model | {"dimension": service.embedder.dimension}]}


@router.post("/v1/embeddings")
def embeddings(asked: EmbeddingsRequest, service: Served, texts: Annotated[list[str], Depends(_input_texts)]) -> Response:
    """Embed texts through the recipe's document template, or with `input_type` "query" its query template.

    Vectors are of unit length. `dimensions` keeps the first ones, and brings them to unit length again. Texts longer
    than the recipe's `max_tokens` are cut; `usage.cut_tokens` says by how many tokens in all.
    """
    width = service.embedder.dimension
    if asked.dimensions is not None and asked.dimensions > width:
        raise RequestError(400, f"dimensions: {asked.dimensions} are more than the vectors' {width}", "dimensions")
    hold(len(texts) * width * _FLOAT)
    vectors, tokens, cut = service.embed(texts, asked.role)
    if asked.dimensions is not None:
        vectors = vectors[:, : asked.dimensions]
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens, "cut_tokens": cut}
    fields = {"object": "list", "model": service.model, "usage": usage}
    return listing(fields, "data", _embeddings(vectors, asked.encoding_format == "base64"))


@router.post("/v2/rerank", include_in_schema=False)
@router.post("/v1/rerank")
def rerank(asked: RerankRequest, service: Served, texts: Annotated[list[str], Depends(_documents)]) -> Response:
    """Score documents by how well they answer a query; best first, in the method's own unit."""
    ranked, tokens = service.rerank(asked.query, texts, asked.top_n)
    results: list[dict[str, object]] = [{"index": i, "relevance_score": score} for i, score in ranked]
    if asked.return_documents:
        results = [result | {"document": {"text": texts[i]}} for result, (i, _) in zip(results, ranked, strict=True)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _held({"id": "rerank", "model": service.model, "usage": usage}, "results", results)


@router.get("/v1/indexes")
def indexes(service: Served) -> dict[str, object]:
    """List the indexes that can be searched."""
    return {"data": [{"name": name, "documents": len(index)} for name, index in service.indexes.items()]}


@router.post("/v1/search", dependencies=[Depends(_check_search)])
def search(asked: SearchRequest, service: Served) -> Response:
    """Find the documents of an index that answer a query, best first, with the parts of each score."""
    begin = time.perf_counter()
    hits = service.search(asked.index, asked.query, asked.k, asked.options, rerank=asked.rerank)
    milliseconds = round(1000 * (time.perf_counter() - begin), 1)
    return _held({"query": asked.query, "milliseconds": milliseconds}, "hits", map(_record, hits))


# -- routes open to all


@open_router.get("/health")
async def health(service: Served) -> dict[str, object]:
    """Say that the server runs, and what it serves."""
    return {"status": "ok", "model": service.model, "indexes": list(service.indexes)}


@open_router.get("/metrics", response_class=Response)
async def prometheus(request: Request) -> Response:
    """Return counters in Prometheus's text format."""
    return Response(request.app.state.metrics.page(), media_type="text/plain; version=0.0.4")


def _sender(file: Path) -> Callable[[], Awaitable[FileResponse]]:
    async def send() -> FileResponse:
        return FileResponse(file, headers=_SAFE)

    return send


for _path, _name in _FILES.items():
    open_router.add_api_route(_path, _sender(_PAGE / _name), include_in_schema=False)


# -- answers


def _embeddings(vectors: Float32Array, as_base64: bool) -> Iterator[str]:
    """Yield vectors as JSON objects in OpenAI's shape."""
    for i, row in enumerate(vectors):
        numbers = base64.b64encode(row.astype("<f4").tobytes()).decode() if as_base64 else row.tolist()
        yield encode({"object": "embedding", "index": i, "embedding": numbers})


def _record(hit: Hit) -> dict[str, object]:
    document = {"id": hit.document.id, "text": hit.document.text, "metadata": hit.document.metadata}
    context = {"passage": hit.passage} if hit.context else {}
    scores = {"rank": hit.rank, "score": hit.score, "relevance": hit.relevance, "parts": dict(hit.parts)}
    return {**scores, **document, **context}


def _held(fields: Mapping[str, object], name: str, rows: Iterable[object]) -> Response:
    """Return an object of fields and one list, whose bytes count as held until the client has read them."""
    encoded = [encode(row) for row in rows]
    hold(sum(map(len, encoded)))
    return listing(fields, name, encoded)
