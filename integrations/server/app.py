"""The HTTP server: OpenAI's embeddings, Cohere's reranking, search over indexes, and a page to search with.

app = create_app(Embedder.from_pretrained(), {"faq": Path("faq-index")})
"""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from threading import Event

import anyio.to_thread
import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from tp_retrieval import Embedder, Hit, InputError, TPRetrievalError
from tp_retrieval.integrations.server.batcher import ClosedError, GoneError, OverloadedError
from tp_retrieval.integrations.server.http.answers import encode, hold, listing
from tp_retrieval.integrations.server.http.guard import Guard, error_body, error_headers
from tp_retrieval.integrations.server.http.hosts import Hosts
from tp_retrieval.integrations.server.limits import RequestError
from tp_retrieval.integrations.server.metrics import Metrics
from tp_retrieval.integrations.server.schemas import EmbeddingsRequest, RerankRequest, SearchRequest
from tp_retrieval.integrations.server.service import Service, Settings
from tp_retrieval.types import Float32Array

_PAGE = Path(__file__).parent / "page"
_FILES = {"/": "search.html", "/search.js": "search.js", "/search.css": "search.css"}
_SAFE = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_FLOAT = 4  # bytes of a vector's number
_STATUS = ((OverloadedError, 429), (GoneError, 499), (ClosedError, 503), (InputError, 400), (TPRetrievalError, 503))


def create_app(
    embedder: Embedder,
    indexes: Mapping[str, Path] | None = None,
    *,
    settings: Settings | None = None,
    api_keys: Sequence[str] = (),
    allowed_hosts: Sequence[str] = (),
) -> FastAPI:
    """Return an app that serves an embedder's model, and indexes by name.

    Everything but the page, its documentation, health and metrics needs one of `api_keys`, if there are any. Without keys
    the server answers to the names localhost, 127.0.0.1 and [::1], to `allowed_hosts`, and to no page of another site; with
    keys to `allowed_hosts` too, or to any name if there are none. "*" is any name. Raises what `Index.open` raises, and
    `InputError` for a host that is none.
    """
    hosts = Hosts(allowed_hosts, keyed=bool(api_keys))
    metrics = Metrics()
    service = Service(embedder, indexes or {}, settings or Settings(), metrics)
    limits = service.settings.limits

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = limits.requests + 8  # and files and the end
        yield
        await anyio.to_thread.run_sync(service.close)

    app = FastAPIOffline(  # the usual page of documents loads its script from elsewhere
        title="tp-retrieval",
        redoc_url=None,
        version=version("tp-retrieval"),
        summary="One frozen language model that embeds, searches and reranks.",
        lifespan=lifespan,
    )
    app.state.draining = Event()
    app.state.limits = limits
    app.add_middleware(Guard, limits=limits, keys=api_keys, metrics=metrics, draining=app.state.draining, hosts=hosts)
    _add_errors(app)
    _add_embeddings(app, service)
    _add_rerank(app, service)
    _add_search_routes(app, service)
    _add_health(app, service, metrics)
    return app


def _add_health(app: FastAPI, service: Service, metrics: Metrics) -> None:
    @app.get("/health")
    async def health() -> dict[str, object]:
        """Say that the server runs, and what it serves."""
        return {"status": "ok", "model": service.model, "indexes": list(service.indexes)}

    @app.get("/metrics", response_class=Response)
    async def prometheus() -> Response:
        """Return counters in Prometheus's text format."""
        return Response(metrics.page(), media_type="text/plain; version=0.0.4")


def _add_embeddings(app: FastAPI, service: Service) -> None:
    limits = service.settings.limits

    @app.get("/v1/models")
    def models() -> dict[str, object]:
        """List the model in OpenAI's shape."""
        one = {"id": service.model, "object": "model", "created": 0, "owned_by": "tp-retrieval"}
        return {"object": "list", "data": [one | {"dimension": service.embedder.dimension}]}

    @app.post("/v1/embeddings")
    def embeddings(asked: EmbeddingsRequest) -> Response:
        """Embed texts through the recipe's document template, or with `input_type` "query" its query template.

        Vectors are of unit length. `dimensions` keeps the first ones, and brings them to unit length again. Texts longer
        than the recipe's `max_tokens` are cut; `usage.cut_tokens` says by how many tokens in all.
        """
        service.check_model(asked.model)
        texts = limits.texts_of(_listed(asked.input), "input")
        own = service.embedder.dimension
        if asked.dimensions is not None and asked.dimensions > own:
            raise RequestError(400, f"dimensions: {asked.dimensions} are more than the vectors' {own}", "dimensions")
        hold(len(texts) * own * _FLOAT)
        vectors, tokens, cut = service.embed(texts, asked.input_type.removeprefix("search_"))
        if asked.dimensions is not None:
            vectors = vectors[:, : asked.dimensions]
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens, "cut_tokens": cut}
        fields = {"object": "list", "model": service.model, "usage": usage}
        return listing(fields, "data", _embeddings(vectors, asked.encoding_format == "base64"))


def _embeddings(vectors: Float32Array, base64_: bool) -> Iterator[str]:
    """Yield vectors as JSON objects in OpenAI's shape."""
    for i, row in enumerate(vectors):
        numbers = base64.b64encode(row.astype("<f4").tobytes()).decode() if base64_ else row.tolist()
        yield encode({"object": "embedding", "index": i, "embedding": numbers})


def _add_rerank(app: FastAPI, service: Service) -> None:
    limits = service.settings.limits

    @app.post("/v2/rerank", include_in_schema=False)
    @app.post("/v1/rerank")
    def rerank(asked: RerankRequest) -> Response:
        """Score documents by how well they answer a query; best first, in the method's own unit."""
        service.check_model(asked.model)
        limits.checked(asked.query, "query")
        texts = limits.texts_of(asked.documents, "documents")
        scores, tokens = service.rerank(asked.query, texts)
        order = np.argsort(-scores, kind="stable")[: asked.top_n]
        results: list[dict[str, object]] = [{"index": int(i), "relevance_score": float(scores[i])} for i in order]
        if asked.return_documents:
            results = [one | {"document": {"text": texts[i]}} for one, i in zip(results, order, strict=True)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return _held({"id": "rerank", "model": service.model, "usage": usage}, "results", results)


def _add_search_routes(app: FastAPI, service: Service) -> None:
    limits = service.settings.limits

    @app.get("/v1/indexes")
    def indexes() -> dict[str, object]:
        """List the indexes that can be searched."""
        return {"data": [{"name": name, "documents": len(index)} for name, index in service.indexes.items()]}

    @app.post("/v1/search")
    def search(asked: SearchRequest) -> Response:
        """Find the documents of an index that answer a query, best first, with the parts of each score."""
        limits.checked(asked.query, "query")
        limits.check_where(asked.where)
        if asked.k > limits.hits:
            raise RequestError(413, f"k: {asked.k} hits; a search may have {limits.hits}", "k")
        begin = time.perf_counter()
        options = asked.model_dump(include={"mode", "where", "mmr", "min_score", "dense_weight"})
        hits = service.search(asked.index, asked.query, asked.k, rerank=asked.rerank, **options)
        milliseconds = round(1000 * (time.perf_counter() - begin), 1)
        return _held({"query": asked.query, "milliseconds": milliseconds}, "hits", map(_record, hits))

    for path, name in _FILES.items():
        app.add_api_route(path, _sender(_PAGE / name), include_in_schema=False)


def _sender(file: Path) -> Callable[[], Awaitable[FileResponse]]:
    async def send() -> FileResponse:
        return FileResponse(file, headers=_SAFE)

    return send


def _listed(given: object) -> object:
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and given and isinstance(given[0], (int, list)):
        raise RequestError(
            400,
            "input: token ids are of another model's tokenizer; send texts. LangChain's OpenAIEmbeddings does with "
            "check_embedding_ctx_length=False",
            "input",
        )
    return given


def _record(hit: Hit) -> dict[str, object]:
    document = hit.document
    found = {"id": document.id, "text": document.text, "metadata": document.metadata}
    return {"rank": hit.rank, "score": hit.score, "parts": dict(hit.parts), **found}


def _held(fields: Mapping[str, object], name: str, rows: Iterable[object]) -> Response:
    """Return an object of fields and one list, whose bytes are held until its client has read them."""
    encoded = [encode(row) for row in rows]
    hold(sum(map(len, encoded)))
    return listing(fields, name, encoded)


def _add_errors(app: FastAPI) -> None:
    """Answer every error in OpenAI's shape."""

    def answer(error: RequestError) -> Response:
        return Response(error_body(error), error.status, error_headers(error))

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> Response:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:2])
        return answer(RequestError(400, f"{place or 'the body'}: {first['msg']}", place or None))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        return answer(RequestError(error.status_code, f"{request.method} {request.url.path}: {error.detail}"))

    @app.exception_handler(TPRetrievalError)
    async def ours(request: Request, error: TPRetrievalError) -> Response:
        status = next(status for kind, status in _STATUS if isinstance(error, kind))
        return answer(RequestError(status, str(error)))
