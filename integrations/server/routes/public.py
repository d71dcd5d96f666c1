"""What is open to all: health, metrics, and the search page, which asks for a key itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response

from tp_retrieval.integrations.server.routes.dependencies import Served
from tp_retrieval.integrations.server.schemas.responses import HealthResponse

router = APIRouter()

_PAGE = Path(__file__).parents[1] / "page"
_SCRIPTS = ("answer.js", "api.js", "documents.js", "facets.js", "hits.js", "search.js", "state.js", "text.js")
_FILES = {"/": "search.html", "/search.css": "search.css"} | {f"/{name}": name for name in _SCRIPTS}
_SAFE = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # the scripts are of one version
}


@router.get("/health")
async def health(request: Request, service: Served) -> HealthResponse:
    """Say that the server runs, and what it serves; with keys the names of indexes are for their holders alone."""
    anyone = request.app.state.anyone
    return HealthResponse(model=service.model, indexes=[] if anyone is None else service.catalog.names(anyone))


@router.get("/metrics", response_class=Response)
async def prometheus(request: Request) -> Response:
    """Return counters in Prometheus's text format."""
    return Response(request.app.state.metrics.page(), media_type="text/plain; version=0.0.4")


def _sender(file: Path) -> Callable[[], Awaitable[FileResponse]]:
    async def send() -> FileResponse:
        return FileResponse(file, headers=_SAFE)

    return send


for _path, _name in _FILES.items():
    router.add_api_route(_path, _sender(_PAGE / _name), include_in_schema=False)
