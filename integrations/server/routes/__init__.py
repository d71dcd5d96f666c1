"""The routes of a server, each declared once: those that need an API key, if there are keys, and those open to all."""

from fastapi import APIRouter

from tp_retrieval.integrations.server.routes import chat, documents, files, indexes, jobs, models, public, search
from tp_retrieval.integrations.server.routes.dependencies import ERRORS

_PARTS = (models.router, search.router, chat.router, indexes.router, documents.router, files.router, jobs.router)

router, open_router = APIRouter(responses=ERRORS), public.router
for _part in _PARTS:
    router.include_router(_part)


def _paths_of(router: APIRouter) -> set[str]:
    return {path for route in router.routes if (path := getattr(route, "path", None)) is not None}


PATHS, OPEN_PATHS = set[str]().union(*map(_paths_of, _PARTS)), _paths_of(open_router)
"""The paths that need a key, if there are keys, and those open to all."""
