"""What routes depend on: the service, its limits, and the answers they give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from fastapi.responses import Response

from tp_retrieval import Hit
from tp_retrieval.integrations.server.http.answers import encode, hold, listing
from tp_retrieval.integrations.server.limits import Limits
from tp_retrieval.integrations.server.rendering import rendered_hits
from tp_retrieval.integrations.server.schemas.responses import ErrorResponse
from tp_retrieval.integrations.server.service import Service

ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorResponse, "description": "What was wrong with the request"},
    "5XX": {"model": ErrorResponse, "description": "What the server could not do"},
}


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Served = Annotated[Service, Depends(_service)]


async def _limits(service: Served) -> Limits:
    return service.settings.limits


Limited = Annotated[Limits, Depends(_limits)]
Namespace = Annotated[str, Query(description='Of the documents; "" is that of documents without one.')]


def hit_record(hit: Hit) -> dict[str, object]:
    """Return a hit as JSON holds it."""
    document = {"id": hit.document.id, "text": hit.document.text, "metadata": hit.document.metadata}
    context = {"passage": hit.passage} if hit.context else {}
    scores = {"rank": hit.rank, "score": hit.score, "relevance": hit.relevance, "parts": dict(hit.parts)}
    return {**scores, **document, **context}


def hit_records(hits: Sequence[Hit], *, render: bool) -> list[dict[str, object]]:
    """Return hits as JSON holds them, with their texts as HTML if that is asked for."""
    records = [hit_record(hit) for hit in hits]
    if not render:
        return records
    return [record | {"html": html} for record, html in zip(records, rendered_hits(hits), strict=True)]


def held(fields: Mapping[str, object], name: str, rows: Iterable[object]) -> Response:
    """Return an object of fields and one list, whose bytes count as held until the client has read them."""
    encoded = [encode(row) for row in rows]
    hold(sum(map(len, encoded)))
    return listing(fields, name, encoded)
