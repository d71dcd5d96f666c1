"""The middleware in front of every route: host, API key, number of running requests, and a whole body in time.

These are no dependencies of the routes because FastAPI reads a request's body before it resolves dependencies.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import time
from collections.abc import Collection, Sequence
from hashlib import sha256
from threading import Event

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tp_retrieval.integrations.server.access import ApiKey, holders
from tp_retrieval.integrations.server.batcher import CALLER
from tp_retrieval.integrations.server.errors import RequestError, refuse
from tp_retrieval.integrations.server.http.answers import AnswerMemory, in_slices
from tp_retrieval.integrations.server.http.hosts import Hosts
from tp_retrieval.integrations.server.limits import Limits
from tp_retrieval.integrations.server.metrics import Metrics

logger = logging.getLogger("tp_retrieval.access")
"""One line of JSON a request: route, status and time; no text, no name of an index, no key but the digest's beginning."""

_UPLOAD = re.compile(r"/v1/indexes/[^/]+/(documents|files)")
_FORM = "multipart/form-data"
JSON_LINES = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines")
_OPEN_FILES = "/static-offline-docs/"
_DRAINED = 64 * 2**20  # bytes of a body too large that are read and dropped, so that its sender reads the answer
_LARGE = 32 * 2**10  # bytes of a body whose texts compete with the event loop for the interpreter's lock
_PAUSE = 0.01  # seconds from one large body to the next


class Guard:
    """A middleware that refuses requests beyond the limits, without a key or for another host, before any work.

    `open_paths` are open to all; any other path needs a key, as `Authorization: Bearer KEY`, if there are any; without them
    everybody is `anyone`. The route finds what the sender may do in `request.state.access`. A request runs until its client
    has read the answer or is gone. While the server is `draining`, every answer is its connection's last. Of documents and
    files that are added the route reads the body itself, as it comes.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        keys: Sequence[str | ApiKey],
        metrics: Metrics,
        draining: Event,
        anyone: ApiKey | None = None,
        hosts: Hosts | None = None,
        open_paths: Collection[str] = (),
    ) -> None:
        self._app = app
        self._limits = limits
        self._keys = [(access.key.encode(), access) for access in holders(keys)]
        self._anyone = anyone or ApiKey("")
        self._metrics = metrics
        self._draining = draining
        self._hosts = hosts or Hosts(keyed=bool(keys))
        self._memory = AnswerMemory(limits.answer_bytes)
        self._open_paths = frozenset(open_paths)
        self._running = 0
        self._turn = asyncio.Lock()
        self._next_turn = 0.0  # when the next large body may go to the app, on the loop's clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on to the app."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = _route_path(scope)
        begin, status = time.perf_counter(), 499  # counted if the client disconnects

        async def counted(message: Message) -> None:
            """Send, and store the status."""
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._draining.is_set():
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        try:
            self._hosts.check(scope)
            if path in self._open_paths or path.startswith(_OPEN_FILES):
                await self._app(scope, receive, counted)  # none of these reads a body
            else:
                await self._answer(scope, receive, counted)
        except RequestError as error:
            await refuse(error, counted)
        finally:
            self._told(scope, path, status, time.perf_counter() - begin)

    def _told(self, scope: Scope, path: str, status: int, seconds: float) -> None:
        """Count an answer, and log it without what it says."""
        route = getattr(scope.get("route"), "path", path)
        self._metrics.request(route, status, seconds)
        if logger.isEnabledFor(logging.INFO):
            access = scope.get("state", {}).get("access")
            holder = sha256(access.key.encode()).hexdigest()[:8] if access is not None and access.key else None
            record = {"method": scope.get("method"), "route": route, "status": status, "ms": round(1000 * seconds, 1)}
            logger.info(json.dumps({**record, "key": holder, "client": (scope.get("client") or [None])[0]}))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["access"] = self._access(scope)
        if self._running == self._limits.requests:
            raise RequestError(429, f"{self._running} requests are running, no more may; try later")
        self._memory.check()
        self._running += 1
        try:
            with self._memory.request():
                if _is_upload(scope):
                    await self._app_with_stream(scope, receive, send)
                else:
                    await self._app_with_body(scope, receive, send)
        except _GoneError:
            pass
        finally:
            self._running -= 1

    async def _app_with_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its whole body, and signal when the client disconnects."""
        body = await self._body(receive)
        parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        gone = Event()
        watch = asyncio.create_task(_until_gone(receive, gone))

        async def replay() -> Message:
            return parts.pop() if parts else await watch

        token = CALLER.set(gone)
        try:
            if len(body) > _LARGE:
                await self._wait_for_turn()
            await self._app(scope, replay, in_slices(send))
        finally:
            CALLER.reset(token)
            watch.cancel()
            gone.set()  # also where the server gave the request up at its end

    async def _app_with_stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, whose body the route reads piece by piece, each in time."""
        seconds, limit, gone, size = self._limits.body_seconds, self._limits.upload_bytes, Event(), 0
        is_bounded = content_type(scope) == _FORM

        async def next_part() -> Message:
            """Receive the next part; raise `RequestError` for one that comes too late, or that is too much."""
            nonlocal size
            if size < 0:  # the body is whole: what comes now is the client's leaving
                return await _until_gone(receive, gone)
            try:
                async with asyncio.timeout(seconds):
                    message = await receive()
            except TimeoutError:
                raise RequestError(408, f"the next part of the body must be here within {seconds:g} seconds") from None
            if message["type"] == "http.disconnect":
                gone.set()
                return message
            size += len(message.get("body", b""))
            if is_bounded and size > limit:
                raise RequestError(413, f"the files have over {limit} bytes; send them in several requests")
            if not message.get("more_body", False):
                size = -1
            return message

        token = CALLER.set(gone)
        try:
            await self._app(scope, next_part, in_slices(send))
        finally:
            CALLER.reset(token)
            gone.set()

    async def _wait_for_turn(self) -> None:
        """Pass large bodies on one at a time, with a pause in which the event loop serves every other client."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            await asyncio.sleep(self._next_turn - loop.time())
            self._next_turn = loop.time() + _PAUSE

    def _access(self, scope: Scope) -> ApiKey:
        """Return what the sender may do."""
        if not self._keys:
            return self._anyone
        sent = dict(scope["headers"]).get(b"authorization", b"").removeprefix(b"Bearer ")
        # every key is compared, each in constant time, so that timing reveals nothing
        found = [access for key, access in self._keys if hmac.compare_digest(sent, key)]
        if not found:
            raise RequestError(401, "the header `Authorization: Bearer KEY` must hold one of the server's keys")
        return found[0]

    async def _body(self, receive: Receive) -> bytes:
        limit = self._limits.body_bytes
        parts, size, more = [], 0, True
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while more and size <= _DRAINED:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _GoneError
                    size += len(message.get("body", b""))
                    if size <= limit:
                        parts.append(message.get("body", b""))
                    more = message.get("more_body", False)
        except TimeoutError:
            seconds = f"{self._limits.body_seconds:g}"
            raise RequestError(408, f"the body must be here within {seconds} seconds; {size} bytes are") from None
        if size > limit:
            raise RequestError(413, f"the body has {'over ' if more else ''}{size} bytes; it may have {limit}")
        return b"".join(parts)


def _route_path(scope: Scope) -> str:
    """Return the path that the router reads, whatever the app is mounted under."""
    path: str = scope["path"]
    root = scope.get("root_path", "")
    inside = path.removeprefix(root)
    return inside if not inside or inside.startswith("/") else path


def content_type(scope: Scope) -> str:
    """Return the type of a body; raise `RequestError` 400 for several, of which others might read another one."""
    values: list[bytes] = [value for name, value in scope["headers"] if name == b"content-type"]
    if len(values) > 1:
        raise RequestError(400, "the header Content-Type stands there twice")
    return (values or [b""])[0].partition(b";")[0].strip().lower().decode("latin-1")


def _is_upload(scope: Scope) -> bool:
    """Return whether a request's body may be longer than memory should hold: files as a form, documents as lines."""
    kind, match = content_type(scope), _UPLOAD.fullmatch(_route_path(scope))
    if scope.get("method") != "POST" or match is None:
        return False
    return kind == _FORM if match[1] == "files" else kind in JSON_LINES


async def _until_gone(receive: Receive, gone: Event) -> Message:
    """Wait until the client disconnects, and signal it to the threads that work for it."""
    message = await receive()
    while message["type"] != "http.disconnect":
        message = await receive()
    gone.set()
    return message


class _GoneError(Exception):
    """The client closed its connection."""
