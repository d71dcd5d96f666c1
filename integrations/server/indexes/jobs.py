"""Long work of a server, which a client can leave and look for again.

job, new = jobs.open("files", "faq", access, "upload-7")
if new:
    jobs.start(job, work)                           # work(job) sets job.done and returns the result
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Any, Literal

from tp_retrieval.integrations.server.access import ApiKey
from tp_retrieval.integrations.server.errors import OverloadedError, RequestError

_KEPT = 1_000  # finished jobs that are remembered
_AT_ONCE = 2
_WAITING = 100


@dataclass
class Job:
    """One piece of work: what is done of it, what it gave, or why it failed; equal work has equal `content`."""

    id: str
    kind: str
    index: str
    holder: str
    content: bytes
    done: int = 0
    total: int | None = None
    begun: float = field(default_factory=time.time)
    ended: float | None = None
    result: dict[str, Any] | None = None
    error: str | None = None
    _ended: Event = field(default_factory=Event)

    @property
    def state(self) -> Literal["running", "done", "failed"]:
        """What became of it."""
        if self.ended is None:
            return "running"
        return "done" if self.error is None else "failed"

    def finish(self) -> None:
        """Tell those who wait that the work has ended."""
        self.ended = time.time()
        self._ended.set()

    def wait(self) -> None:
        """Wait until the work has ended."""
        self._ended.wait()


class Jobs:
    """The jobs of a server; the last finished ones are remembered until it ends."""

    def __init__(self) -> None:
        self._jobs: dict[tuple[str, str], Job] = {}
        self._lock = Lock()
        self._queued = 0
        self._executor = ThreadPoolExecutor(_AT_ONCE, "tp-retrieval-job")

    def close(self) -> None:
        """Finish the running jobs and drop those that wait."""
        self._executor.shutdown(cancel_futures=True)

    def open(self, kind: str, index: str, access: ApiKey, id_: str | None, content: bytes) -> tuple[Job, bool]:
        """Return a new job, or the running one of the same id and content, and whether it is new.

        What has ended is done anew, which embeds nothing that is there. Raises `RequestError` 409 for a running one of the
        same id that is other work.
        """
        job = Job(id_ or uuid.uuid4().hex, kind, index, access.key, content)
        with self._lock:
            known = self._jobs.get((access.key, job.id))
            if known is not None and known.state == "running":
                if (known.kind, known.index, known.content) != (job.kind, job.index, job.content):
                    raise RequestError(409, f"the idempotency key {job.id!r} is that of other work, which still runs")
                return known, False
            self._jobs.pop((access.key, job.id), None)
            self._jobs[access.key, job.id] = job
            self._forget()
        return job, True

    def start(self, job: Job, work: Callable[[Job], dict[str, Any]]) -> None:
        """Let a thread do the work of a job; raise `OverloadedError` if too many wait."""

        def dropped(future: Future[None]) -> None:
            if future.cancelled():
                job.error = "the server ended before the work began"
                job.finish()

        with self._lock:
            if self._queued >= _WAITING:
                job.error = f"{_WAITING} jobs are running or waiting; try later"
                job.finish()
                raise OverloadedError(job.error)
            self._queued += 1
        self._executor.submit(self._performed, job, work).add_done_callback(dropped)

    def _performed(self, job: Job, work: Callable[[Job], dict[str, Any]]) -> None:
        try:
            self.perform(job, work)
        finally:
            with self._lock:
                self._queued -= 1

    def perform(self, job: Job, work: Callable[[Job], dict[str, Any]]) -> None:
        """Do the work of a job on this thread, and keep its result or what it raised."""
        try:
            job.result = work(job)
        except BaseException as error:
            job.error = str(error) or type(error).__name__
            raise
        finally:
            job.finish()

    def get(self, id_: str, access: ApiKey) -> Job:
        """Return a job that the holder of a key began; raise `RequestError` 404 if there is none."""
        with self._lock:
            found = self._jobs.get((access.key, id_))
        if found is None:
            raise RequestError(404, f"there is no job {id_!r}; this server forgets them when it ends", "id")
        return found

    def _forget(self) -> None:
        ended = [key for key, job in self._jobs.items() if job.ended is not None]
        for key in ended[: max(len(ended) - _KEPT, 0)]:
            del self._jobs[key]
