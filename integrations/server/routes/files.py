"""Files for an index, read and cut by the server."""

from __future__ import annotations

from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.datastructures import UploadFile

from tp_retrieval.integrations.server.errors import RequestError
from tp_retrieval.integrations.server.indexes.files import ReceivedFiles
from tp_retrieval.integrations.server.indexes.jobs import Job
from tp_retrieval.integrations.server.routes.dependencies import Limited
from tp_retrieval.integrations.server.routes.jobs import ACCEPTED, Write
from tp_retrieval.integrations.server.schemas.responses import FilesResponse

router = APIRouter()

_FORM = {
    "type": "object",
    "required": ["files"],
    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
}
_BODY = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}}


@router.post("/v1/indexes/{name}/files", response_model=FilesResponse, responses=ACCEPTED, openapi_extra=_BODY)
async def add_files(
    writing: Write,
    request: Request,
    limits: Limited,
    chunk_tokens: Annotated[int | None, Query(ge=16, le=8192, description="Longest chunk; by default the index's.")] = None,
) -> Response:
    """Read files, cut them into chunks and add these, in place of the chunks of files of the same names.

    The fields of the form are named `files`; a file's name may have folders in it. What can't be read is skipped and named.
    """
    namespace = writing.access.namespace_of(writing.namespace)
    async with request.form(max_files=limits.files, max_fields=0) as form:
        uploads = [(part.filename or "", part.file) for part in form.getlist("files") if isinstance(part, UploadFile)]
        if not uploads:
            raise RequestError(400, "files: there is none; send a form with fields named files", "files")
        files = await to_thread.run_sync(ReceivedFiles, uploads)

    def work(job: Job) -> dict[str, Any]:
        def progress(done: int, total: int, seconds: float) -> None:
            job.done, job.total = done, total

        with writing.use() as index:
            return files.add_to(index, namespace, chunk_tokens, progress)

    job, new = writing.open("files", f"{namespace} {chunk_tokens} {files.digest}".encode())
    return await writing.answer(job, work if new else None)
