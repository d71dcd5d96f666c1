"""The HTTP server: OpenAI's embeddings, Cohere's reranking, search over indexes, and a page to search with.

app = create_app(Embedder.from_pretrained(), {"faq": Path("faq-index")})
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from threading import Event

import anyio.to_thread
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline

from tp_retrieval import Embedder
from tp_retrieval.integrations.server.access import ApiKey, holders
from tp_retrieval.integrations.server.errors import add_error_handlers
from tp_retrieval.integrations.server.http.guard import Guard
from tp_retrieval.integrations.server.http.hosts import Hosts
from tp_retrieval.integrations.server.metrics import Metrics
from tp_retrieval.integrations.server.routes import OPEN_PATHS, PATHS, mcp, open_router, router
from tp_retrieval.integrations.server.service import Service, Settings

_DOCUMENTATION = {"/docs", "/openapi.json"}


def create_app(
    embedder: Embedder,
    indexes: Mapping[str, Path] | None = None,
    *,
    settings: Settings | None = None,
    api_keys: Sequence[str | ApiKey] = (),
    allowed_hosts: Sequence[str] = (),
    cors_origins: Sequence[str] = (),
) -> FastAPI:
    """Return an app that serves an embedder's model, and indexes by name.

    Everything but the page, its documentation, health and metrics needs one of `api_keys`, if there are any; a key that is
    a string may do everything. Pages of `cors_origins`, such as "https://app.example", may use the server. Without keys the
    server answers to the names localhost, 127.0.0.1 and [::1], to `allowed_hosts`, and to no page of another site; with
    keys to `allowed_hosts` too, or to any name if there are none. "*" is any name. Raises what `Index.open` raises, and
    `InputError` for a host that is none.
    """
    settings = settings or Settings()
    keys = holders(api_keys)
    if settings.read_only:
        keys = [replace(key, write=False) for key in keys]
    anyone = None if keys else ApiKey("", write=not settings.read_only)
    open_paths = OPEN_PATHS | _DOCUMENTATION
    hosts = Hosts(allowed_hosts, keyed=bool(keys), origins=cors_origins)
    metrics = Metrics(PATHS | open_paths | {mcp.PATH})
    service = Service(embedder, indexes or {}, settings, metrics)
    limits = service.settings.limits

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = limits.requests + 8  # and files and the end
        async with mcp.running(app):
            yield
        await anyio.to_thread.run_sync(service.close)

    app = FastAPIOffline(  # the usual page of documents loads its script from elsewhere
        title="tp-retrieval",
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,  # what generated clients call it
        version=version("tp-retrieval"),
        summary="One frozen language model that embeds, indexes, searches, reranks and answers.",
        lifespan=lifespan,
    )
    app.state.draining = Event()
    app.state.limits, app.state.service, app.state.metrics = limits, service, metrics
    app.state.anyone = anyone
    app.add_middleware(
        Guard,
        limits=limits,
        keys=keys,
        anyone=anyone,
        metrics=metrics,
        draining=app.state.draining,
        hosts=hosts,
        open_paths=open_paths,
    )
    if cors_origins:
        _let_in(app, cors_origins)
    add_error_handlers(app)
    app.include_router(router)
    app.include_router(open_router)
    app.router.routes.append(mcp.ROUTE)
    return app


def _let_in(app: FastAPI, origins: Sequence[str]) -> None:
    """Answer the questions that browsers ask before a page of another site may use an app."""
    app.add_middleware(
        CORSMiddleware,
        allow_origins=[origin.lower() for origin in origins],
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["authorization", "content-type", "idempotency-key", "mcp-protocol-version"],
    )
