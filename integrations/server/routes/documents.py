"""The documents of an index: added, read and removed."""

from __future__ import annotations

import codecs
import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from tp_retrieval import Document
from tp_retrieval.indexing.metadata_json import to_json
from tp_retrieval.integrations.server.access import Access
from tp_retrieval.integrations.server.errors import GoneError, RequestError
from tp_retrieval.integrations.server.http.answers import hold, listing
from tp_retrieval.integrations.server.http.guard import JSON_LINES, content_type
from tp_retrieval.integrations.server.indexes.jobs import Job
from tp_retrieval.integrations.server.indexes.writing import TOGETHER, Written, upsert, with_ids
from tp_retrieval.integrations.server.limits import Limits
from tp_retrieval.integrations.server.routes.dependencies import Limited, Namespace, Served
from tp_retrieval.integrations.server.routes.jobs import ACCEPTED, Write, Writing, told
from tp_retrieval.integrations.server.schemas.requests import DocumentsRequest, NewDocument
from tp_retrieval.integrations.server.schemas.responses import DocumentsResponse, RemovedResponse, WrittenResponse

router = APIRouter()

_PAGE = 1_000  # documents of an answer, at most

_ONE = NewDocument.model_json_schema()
_ALL = {
    "type": "object",
    "required": ["documents"],
    "properties": {"documents": {"type": "array", "items": _ONE}, "namespace": {"type": "string", "default": ""}},
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _ALL}, JSON_LINES[0]: {"schema": _ONE}},
    }
}


@router.post("/v1/indexes/{name}/documents", response_model=WrittenResponse, responses=ACCEPTED, openapi_extra=_BODY)
async def add_documents(writing: Write, request: Request, limits: Limited) -> Response:
    """Add documents, or replace those of the same id; they are durable when this is answered.

    The body is JSON, or JSON lines of any length, of which 64 are stored at a time. A document that is there as it is given
    is not embedded again. With an Idempotency-Key, documents without an id get one made of the key and their place: when
    the same body is sent again, after a broken connection or a killed server, what was stored stays, and the rest follows.
    """
    if content_type(request.scope) in JSON_LINES:
        return await _store_lines(writing, request, limits)
    body = await request.body()
    documents, namespace = await to_thread.run_sync(_parsed, body, writing, limits)

    def work(job: Job) -> dict[str, Any]:
        def count(stored: int) -> None:
            job.done += stored

        with writing.use() as index:
            return asdict(upsert(index, documents, namespace, stored=count))

    job, new = writing.open("documents", namespace.encode() + hashlib.sha256(body).digest())
    if new:
        job.total = len(documents)
    return await writing.answer(job, work if new else None)


def _parsed(body: bytes, writing: Writing, limits: Limits) -> tuple[list[Document], str]:
    """Return the documents of a JSON body, and the namespace to add them to."""
    try:
        asked = DocumentsRequest.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error) from error
    if asked.namespace and writing.namespace not in ("", asked.namespace):
        raise RequestError(400, "namespace: the body and the address name different ones", "namespace")
    namespace = writing.access.namespace_of(asked.namespace or writing.namespace)
    if len(asked.documents) > limits.texts:
        raise RequestError(413, f"documents: {len(asked.documents)}; one request may have {limits.texts}", "documents")
    documents = [_checked(one, f"documents[{i}]", limits) for i, one in enumerate(asked.documents)]
    return with_ids(documents, writing.key), namespace


async def _store_lines(writing: Writing, request: Request, limits: Limits) -> Response:
    """Store the lines of a body as they come; while they do, another request of the same key is refused."""
    namespace = writing.access.namespace_of(writing.namespace)
    job, _ = writing.open("documents", uuid.uuid4().bytes)  # what is to come is not known to equal anything
    ids: list[str] = []
    added = 0

    def store(lines: Sequence[bytes]) -> Written:
        documents = [_of_line(line, job.done + i, limits) for i, line in enumerate(lines)]
        with writing.use() as index:
            return upsert(index, with_ids(documents, writing.key, job.done), namespace)

    try:
        async for lines in _lines(request, limits):
            written = await to_thread.run_sync(store, lines)
            ids += written.ids
            added += written.added
            job.done += len(lines)
        job.result = {"ids": ids, "added": added, "unchanged": len(ids) - added}
    except BaseException as error:
        job.error = f"{str(error) or type(error).__name__}; {job.done} documents were stored before"
        raise
    finally:
        job.finish()
    return await told(job)


async def _lines(request: Request, limits: Limits) -> AsyncIterator[list[bytes]]:
    """Yield the lines of a body, some at a time; raise `RequestError` 413 for one that is too long."""
    rest, lines = bytearray(), list[bytes]()
    async for chunk in _chunks(request):
        rest += chunk
        if b"\n" in chunk:  # else a long line would be searched again with each piece of it
            *whole, left = bytes(rest).split(b"\n")
            lines += [line for line in whole if line.strip()]
            rest = bytearray(left)
        if len(rest) > limits.body_bytes:
            raise RequestError(413, f"a line has over {limits.body_bytes} bytes; it may have no more")
        while len(lines) >= TOGETHER:
            yield lines[:TOGETHER]
            del lines[:TOGETHER]
    if rest.strip():
        lines.append(bytes(rest))
    if lines:
        yield lines


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """Yield a body as it comes; raise `GoneError` where the client leaves before its end."""
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect as error:
        raise GoneError("the client closed its connection") from error


def _of_line(line: bytes, place: int, limits: Limits) -> Document:
    try:
        return _checked(NewDocument.model_validate_json(line.removeprefix(codecs.BOM_UTF8)), f"line {place + 1}", limits)
    except ValidationError as error:
        raise _invalid(error, f"line {place + 1}: ") from error


def _checked(given: NewDocument, place: str, limits: Limits) -> Document:
    limits.checked(given.text, f"{place}.text")
    return given.document


def _invalid(error: ValidationError, place: str = "") -> RequestError:
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"]))
    return RequestError(400, f"{place}{name or 'the body'}: {first['msg']}", name.partition(".")[0] or None)


@router.get("/v1/indexes/{name}/documents", response_model=DocumentsResponse)
def read_documents(
    name: str,
    service: Served,
    access: Access,
    limits: Limited,
    ids: Annotated[list[str] | None, Query(description="Only these, in this order.")] = None,
    where: Annotated[str | None, Query(description='A filter as JSON, such as {"year": {"$gte": 2020}}.')] = None,
    limit: Annotated[int, Query(ge=1, le=_PAGE)] = 100,
    offset: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    namespace: Namespace = "",
) -> Response:
    """Read documents by id, by a filter, or all in the order of adding, page by page; dates stand as `{"$date": …}`."""
    condition = _where(where, limits)
    with service.catalog.use(name, access) as index:
        found = index.get(ids, where=condition, namespace=access.namespace_of(namespace), limit=limit + 1, offset=offset)
    next_offset = offset + limit if len(found) > limit else None
    rows = [
        f'{{"id": {json.dumps(one.id)}, "text": {json.dumps(one.text)}, "metadata": {to_json(one.metadata)}}}'
        for one in found[:limit]
    ]
    hold(sum(map(len, rows)))
    return listing({"next_offset": next_offset}, "documents", rows)


@router.delete("/v1/indexes/{name}/documents")
def remove_documents(
    name: str,
    service: Served,
    access: Access,
    limits: Limited,
    ids: Annotated[list[str] | None, Query(description="Only these.")] = None,
    where: Annotated[str | None, Query(description="A filter as JSON.")] = None,
    everything: Annotated[bool, Query(alias="all", description="Remove every document of the namespace.")] = False,
    namespace: Namespace = "",
) -> RemovedResponse:
    """Remove documents by id, by a filter, both at once, or all of a namespace; unknown ids are passed over."""
    access.check_write()
    condition = _where(where, limits)
    if everything == (ids is not None or bool(condition)):
        raise RequestError(400, "give ids, where or all=true, and that alone", "ids")
    allowed = access.namespace_of(namespace)
    with service.catalog.use(name, access) as index:
        removed = index.clear(namespace=allowed) if everything else index.delete(ids, where=condition, namespace=allowed)
    return RemovedResponse(removed=removed)


def _where(text: str | None, limits: Limits) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        where = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"where: no JSON ({error})", "where") from error
    if not isinstance(where, dict):
        raise RequestError(400, "where: must be a JSON object", "where")
    limits.check_where(where)
    return where
