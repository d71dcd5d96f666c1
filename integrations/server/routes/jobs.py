"""Requests that write to an index: where to and by whom, and their work as jobs that can be waited for or left."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import JSONResponse, Response

from tp_retrieval import Index
from tp_retrieval.integrations.server.access import Access, ApiKey
from tp_retrieval.integrations.server.errors import RequestError
from tp_retrieval.integrations.server.http.answers import hold, listing
from tp_retrieval.integrations.server.indexes.jobs import Job, Jobs
from tp_retrieval.integrations.server.indexes.writing import check_key
from tp_retrieval.integrations.server.routes.dependencies import Namespace, Served
from tp_retrieval.integrations.server.schemas.responses import JobResponse

router = APIRouter()

ACCEPTED: dict[int | str, dict[str, Any]] = {202: {"model": JobResponse, "description": "The job that was begun"}}

_KEPT = 1_000  # ids that a finished job keeps

Work = Callable[[Job], dict[str, Any]]


@dataclass(frozen=True)
class Writing:
    """A request that writes: `use` gives its index, and refuses one that was made anew under its name meanwhile."""

    name: str
    access: ApiKey
    use: Callable[[], AbstractContextManager[Index]]
    jobs: Jobs
    namespace: str
    wait: bool
    key: str | None

    def open(self, kind: str, content: bytes) -> tuple[Job, bool]:
        """Return the job of this request, or of an equal one that runs, and whether it is new; see `Jobs.open`."""
        return self.jobs.open(kind, self.name, self.access, self.key, content)

    async def answer(self, job: Job, work: Work | None) -> Response:
        """Let the work of a new job be done, and return its result, or without waiting the job as it stands."""
        if not self.wait:
            if work is not None:
                self.jobs.start(job, work)
            return JSONResponse(_record(job).model_dump(), 202)
        if work is None:
            await to_thread.run_sync(job.wait)
        else:
            await to_thread.run_sync(self.jobs.perform, job, work)
        return await told(job)


async def _writing(
    name: str,
    service: Served,
    access: Access,
    namespace: Namespace = "",
    wait: Annotated[bool, Query(description="Answer when the work is done; else at once, with its job.")] = True,
    key: Annotated[str | None, Header(alias="Idempotency-Key")] = None,
) -> Writing:
    access.check_write()
    use = service.catalog.handle(name, access)  # what is not there is told before a long body is read
    return Writing(name, access, use, service.jobs, namespace, wait, check_key(key))


Write = Annotated[Writing, Depends(_writing)]


@router.get("/v1/jobs/{id:path}")
def read_job(id: str, service: Served, access: Access) -> JobResponse:
    """Say how far a job is, by the id that began it or its Idempotency-Key; its result is there when it is done."""
    return _record(service.jobs.get(id, access))


async def told(job: Job) -> Response:
    """Return the result of a finished job; raise `RequestError` 409 for one that failed."""
    return await to_thread.run_sync(_told, job)  # there may be many ids


def _told(job: Job) -> Response:
    if job.result is None:
        raise RequestError(409, f"the work of {job.id!r} failed: {job.error}")
    others, ids = {**job.result}, job.result.get("ids")
    if ids is None:
        return JSONResponse(others)
    if len(ids) > _KEPT:  # they are told now, and not kept
        job.result = {**others, "ids": []}
    del others["ids"]
    rows = [json.dumps(id_) for id_ in ids]
    hold(sum(map(len, rows)))
    return listing(others, "ids", rows)


def _record(job: Job) -> JobResponse:
    seconds = round((job.ended or time.time()) - job.begun, 3)
    names = ("id", "kind", "index", "state", "done", "total", "result", "error")
    fields: dict[str, Any] = {name: getattr(job, name) for name in names}
    return JobResponse(**fields, seconds=seconds)
