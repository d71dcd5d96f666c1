"""The documents of an index: added, as files too, read and removed; and the jobs of long work."""

from __future__ import annotations

import codecs
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect

from tp_retrieval import Document, Index
from tp_retrieval.indexing.metadata_json import to_json
from tp_retrieval.integrations.server.access import Access
from tp_retrieval.integrations.server.errors import GoneError, RequestError
from tp_retrieval.integrations.server.http.answers import hold, listing
from tp_retrieval.integrations.server.http.guard import JSON_LINES
from tp_retrieval.integrations.server.indexes.files import received
from tp_retrieval.integrations.server.indexes.jobs import Job
from tp_retrieval.integrations.server.indexes.writing import Written, check_key, upsert, with_ids
from tp_retrieval.integrations.server.limits import Limits
from tp_retrieval.integrations.server.routes.dependencies import Limited, Served
from tp_retrieval.integrations.server.schemas.requests import DocumentsRequest, NewDocument
from tp_retrieval.integrations.server.schemas.responses import (
    DocumentsResponse,
    FilesResponse,
    JobResponse,
    RemovedResponse,
    WrittenResponse,
)

router = APIRouter()

_TOGETHER = 64  # lines that are embedded and stored at once
_PAGE = 1_000  # documents of an answer, at most
_KEPT = 1_000  # ids that a finished job keeps

_ONE = NewDocument.model_json_schema()
_BODY = {
    "type": "object",
    "required": ["documents"],
    "properties": {"documents": {"type": "array", "items": _ONE}, "namespace": {"type": "string", "default": ""}},
}
_DOCUMENTS = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": _BODY}, JSON_LINES[0]: {"schema": _ONE}},
    }
}
_FILES = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            }
        },
    }
}
_ACCEPTED: dict[int | str, dict[str, Any]] = {202: {"model": JobResponse, "description": "The job that was begun"}}

Key = Annotated[str | None, Header(alias="Idempotency-Key")]
Namespace = Annotated[str, Query(description='Of the documents; "" is that of documents without one.')]
Wait = Annotated[bool, Query(description="Answer when the work is done; else at once, with its job.")]


@router.post("/v1/indexes/{name}/documents", response_model=WrittenResponse, responses=_ACCEPTED, openapi_extra=_DOCUMENTS)
async def add_documents(
    name: str,
    request: Request,
    service: Served,
    access: Access,
    limits: Limited,
    namespace: Namespace = "",
    wait: Wait = True,
    idempotency_key: Key = None,
) -> Response:
    """Add documents, or replace those of the same id; they are durable when this is answered.

    The body is JSON, or JSON lines of any length, of which 64 are stored at a time. A document that is there as it is given
    is not embedded again. With an Idempotency-Key, documents without an id get one made of the key and their place: when
    the same body is sent again, after a broken connection or a killed server, what was stored stays, and the rest follows.
    """
    access.check_write()
    key = check_key(idempotency_key)
    with service.catalog.use(name, access) as index:  # told before a long body is read
        expected = index
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in JSON_LINES:
        allowed = access.namespace_of(namespace)
        job, new = service.jobs.open("documents", name, access, key, b"lines of " + allowed.encode())
        return (
            await _joined(job)
            if not new
            else await _stream(request, service, name, expected, access, limits, allowed, job, key)
        )
    body = await request.body()
    return await to_thread.run_sync(_add_json, body, service, name, expected, access, limits, namespace, key, wait)


def _add_json(
    body: bytes,
    service: Served,
    name: str,
    expected: Index,
    access: Access,
    limits: Limits,
    namespace: str,
    key: str | None,
    wait: bool,
) -> Response:
    try:
        asked = DocumentsRequest.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error) from error
    if asked.namespace and namespace not in ("", asked.namespace):
        raise RequestError(400, "namespace: the body and the address name different ones", "namespace")
    allowed = access.namespace_of(asked.namespace or namespace)
    if len(asked.documents) > limits.texts:
        raise RequestError(413, f"documents: {len(asked.documents)}; one request may have {limits.texts}", "documents")
    documents = with_ids([_checked(one, f"documents[{i}]", limits) for i, one in enumerate(asked.documents)], key)
    job, new = service.jobs.open("documents", name, access, key, allowed.encode() + b" " + body)
    if not new and not wait:
        return JSONResponse(job_record(job).model_dump(), 202)
    if not new:
        job.wait()
        return _told(job)
    job.total = len(documents)

    def work(job: Job) -> dict[str, Any]:
        def count(stored: int) -> None:
            job.done += stored

        with service.catalog.use(name, access, expected) as index:
            return asdict(upsert(index, documents, allowed, stored=count))

    if not wait:
        service.jobs.start(job, work)
        return JSONResponse(job_record(job).model_dump(), 202)
    service.jobs.perform(job, work)
    return _told(job)


async def _stream(
    request: Request,
    service: Served,
    name: str,
    expected: Index,
    access: Access,
    limits: Limits,
    namespace: str,
    job: Job,
    key: str | None,
) -> Response:
    """Store the lines of a body as they come."""
    ids: list[str] = []
    added = 0

    def store(lines: Sequence[bytes]) -> Written:
        documents = with_ids([_of_line(line, job.done + i, limits) for i, line in enumerate(lines)], key, job.done)
        with service.catalog.use(name, access, expected) as index:
            return upsert(index, documents, namespace)

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
    return _told(job)


async def _joined(job: Job) -> Response:
    """Return the answer of a job that another request runs, or has run."""
    await to_thread.run_sync(job.wait)
    return _told(job)


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
        while len(lines) >= _TOGETHER:
            yield lines[:_TOGETHER]
            del lines[:_TOGETHER]
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


@router.post("/v1/indexes/{name}/files", response_model=FilesResponse, responses=_ACCEPTED, openapi_extra=_FILES)
async def add_files(
    name: str,
    request: Request,
    service: Served,
    access: Access,
    limits: Limited,
    namespace: Namespace = "",
    chunk_tokens: Annotated[int | None, Query(ge=16, le=8192, description="Longest chunk; by default the index's.")] = None,
    wait: Wait = True,
    idempotency_key: Key = None,
) -> Response:
    """Read files, cut them into chunks and add these, in place of the chunks of files of the same names.

    The fields of the form are named `files`; a file's name may have folders in it. What can't be read is skipped and named.
    """
    access.check_write()
    allowed = access.namespace_of(namespace)
    key = check_key(idempotency_key)
    with service.catalog.use(name, access) as index:
        expected = index
    async with request.form(max_files=limits.files, max_fields=0) as form:
        uploads = [(part.filename or "", part.file) for part in form.getlist("files") if isinstance(part, UploadFile)]
        if not uploads:
            raise RequestError(400, "files: there is none; send a form with fields named files", "files")
        folder = await to_thread.run_sync(received, uploads)
    content = f"{allowed} {chunk_tokens} {sorted(file for file, _ in uploads)}".encode()
    try:
        job, new = service.jobs.open("files", name, access, key, content)
    except BaseException:
        folder.remove()
        raise
    if not new:
        folder.remove()
        return await _joined(job)

    def work(job: Job) -> dict[str, Any]:
        def progress(done: int, total: int, seconds: float) -> None:
            job.done, job.total = done, total

        with folder, service.catalog.use(name, access, expected) as index:
            return folder.add_to(index, allowed, chunk_tokens, progress)

    if not wait:
        service.jobs.start(job, work)
        return JSONResponse(job_record(job).model_dump(), 202)
    await to_thread.run_sync(service.jobs.perform, job, work)
    return _told(job)


@router.get("/v1/jobs/{id:path}")
def read_job(id: str, service: Served, access: Access) -> JobResponse:
    """Say how far a job is, by the id that began it or its Idempotency-Key; its result is there when it is done."""
    return job_record(service.jobs.get(id, access))


def job_record(job: Job) -> JobResponse:
    """Return a job as JSON holds it."""
    seconds = round((job.ended or time.time()) - job.begun, 3)
    fields: Mapping[str, Any] = {
        name: getattr(job, name) for name in ("id", "kind", "index", "state", "done", "total", "result", "error")
    }
    return JobResponse(**fields, seconds=seconds)


def _told(job: Job) -> Response:
    """Return the result of a finished job; raise `RequestError` 409 for one that failed."""
    if job.result is None:
        raise RequestError(409, f"the work of {job.id!r} failed: {job.error}")
    ids = job.result.get("ids")
    if ids is None:
        return JSONResponse(job.result)
    if len(ids) > _KEPT:  # they are told now, and not kept
        job.result = job.result | {"ids": []}
    rows = [json.dumps(id_) for id_ in ids]
    hold(sum(map(len, rows)))
    return listing({name: value for name, value in job.result.items() if name != "ids"}, "ids", rows)
