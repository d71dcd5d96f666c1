"""The HTTP server: OpenAI's embeddings, Cohere's reranking, search over indexes, and a page to search with.

app = create_app(Embedder.from_pretrained(), {"faq": Path("faq-index")})
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from threading import Event

import anyio.to_thread
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from tp_retrieval import Embedder
from tp_retrieval.integrations.server.errors import add_error_handlers
from tp_retrieval.integrations.server.http.guard import Guard
from tp_retrieval.integrations.server.http.hosts import Hosts
from tp_retrieval.integrations.server.metrics import Metrics
from tp_retrieval.integrations.server.routes import open_router, paths_of, router
from tp_retrieval.integrations.server.service import Service, Settings

_DOCUMENTATION = {"/docs", "/openapi.json"}


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
    open_paths = paths_of(open_router) | _DOCUMENTATION
    hosts = Hosts(allowed_hosts, keyed=bool(api_keys))
    metrics = Metrics(paths_of(router) | open_paths)
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
    app.state.limits, app.state.service, app.state.metrics = limits, service, metrics
    app.add_middleware(
        Guard,
        limits=limits,
        keys=api_keys,
        metrics=metrics,
        draining=app.state.draining,
        hosts=hosts,
        open_paths=open_paths,
    )
    add_error_handlers(app)
    app.include_router(router)
    app.include_router(open_router)
    return app
