"""The indexes of a server: listed, described, made and removed; and what a key may do."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from fastapi import APIRouter

from tp_retrieval import Index
from tp_retrieval.integrations.server.access import Access, ApiKey
from tp_retrieval.integrations.server.errors import RequestError
from tp_retrieval.integrations.server.routes.dependencies import Served
from tp_retrieval.integrations.server.schemas.requests import NewIndexRequest
from tp_retrieval.integrations.server.schemas.responses import AccessResponse, IndexesResponse, IndexRecord

router = APIRouter()


@router.get("/v1/access")
async def read_access(service: Served, access: Access) -> AccessResponse:
    """Say what the sender's key may do, and whether the server reranks and answers."""
    return AccessResponse(
        write=access.write,
        namespace=access.namespace,
        indexes=None if access.indexes is None else list(access.indexes),
        reranks=service.writes,
        answers=service.writes,
    )


@router.get("/v1/indexes", response_model_exclude_none=True)
def list_indexes(service: Served, access: Access) -> IndexesResponse:
    """List the indexes that the key sees."""
    records = []
    for name in service.catalog.names(access):
        with suppress(RequestError), service.catalog.use(name, access) as index:  # it may be removed just now
            records.append(_record(name, index, access))
    return IndexesResponse(data=records)


@router.post("/v1/indexes", status_code=201, response_model_exclude_none=True)
def create_index(asked: NewIndexRequest, service: Served, access: Access) -> IndexRecord:
    """Make an empty index of the served model, in the folder that the server keeps for such."""
    access.check_manage(asked.name)
    service.make(asked)
    with service.catalog.use(asked.name, access) as index:
        return _described(asked.name, index, access)


@router.get("/v1/indexes/{name}", response_model_exclude_none=True)
def describe_index(name: str, service: Served, access: Access) -> IndexRecord:
    """Describe an index: its documents by namespace, how it is searched, and the keys of its metadata."""
    with service.catalog.use(name, access) as index:
        return _described(name, index, access)


@router.delete("/v1/indexes/{name}", status_code=204)
def remove_index(name: str, service: Served, access: Access) -> None:
    """Remove an index with all its documents, when the requests that use it are answered."""
    access.check_manage(name)
    service.catalog.remove(name, access)


def _record(name: str, index: Index, access: ApiKey) -> IndexRecord:
    namespaces = index.namespaces()
    if access.namespace is not None:
        namespaces = {access.namespace: namespaces.get(access.namespace, 0)}
    named = namespaces if any(namespaces) else None
    return IndexRecord(name=name, documents=sum(namespaces.values()), namespaces=named)


def _described(name: str, index: Index, access: ApiKey) -> IndexRecord:
    info = index.info()
    model = None if info.model is None else Path(info.model).name
    more: dict[str, object] = {"kind": info.kind, "tokenizer": info.tokenizer, "model": model}
    if access.namespace is None:
        more["metadata_keys"] = index.metadata_keys()  # of all namespaces
    return _record(name, index, access).model_copy(update=more)
