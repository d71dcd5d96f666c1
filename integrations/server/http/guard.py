"""What a request passes before its route sees it: its host, API keys, bounds on what runs at once, a whole body in time."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Sequence
from threading import Event

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tp_retrieval.integrations.server.batcher import CALLER
from tp_retrieval.integrations.server.http.answers import AnswerMemory, in_slices
from tp_retrieval.integrations.server.http.hosts import Hosts
from tp_retrieval.integrations.server.limits import Limits, RequestError
from tp_retrieval.integrations.server.metrics import Metrics

_OPEN = frozenset({"/", "/search.css", "/search.js", "/docs", "/openapi.json", "/health", "/metrics"})
_OPEN_FILES = "/static-offline-docs/"
_DRAINED = 64 * 2**20  # bytes of a body too large that are read and forgotten, so that its sender reads the answer


class Guard:
    """Refuse requests that pass the limits, lack a key or are for another host, before anything is done for them.

    The page, its documentation, health and metrics are open to all; any other path needs a key, as
    `Authorization: Bearer KEY`, if there are any. A request runs until its client has read the answer or is gone. While the
    server is `draining`, every answer is its connection's last.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        keys: Sequence[str],
        metrics: Metrics,
        draining: Event,
        hosts: Hosts | None = None,
    ) -> None:
        self._app = app
        self._limits = limits
        self._keys = [key.encode() for key in keys]
        self._metrics = metrics
        self._draining = draining
        self._hosts = hosts or Hosts(keyed=bool(keys))
        self._memory = AnswerMemory(limits.answer_bytes)
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let the app do it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = _route_path(scope)
        begin, status = time.perf_counter(), 499  # what is noted if the client went away

        async def noting(message: Message) -> None:
            """Send, and remember the status."""
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._draining.is_set():
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        try:
            self._hosts.check(scope)
            if path in _OPEN or path.startswith(_OPEN_FILES):
                await self._app(scope, receive, noting)  # none of these reads a body
            else:
                await self._answer(scope, receive, noting)
        except RequestError as error:
            await refuse(error, noting)
        finally:
            self._metrics.request(path, status, time.perf_counter() - begin)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._check_key(scope)
        if self._running == self._limits.requests:
            raise RequestError(429, f"{self._running} requests are running, no more may; try later")
        self._memory.check()
        self._running += 1
        try:
            with self._memory.request():
                await self._app_with_body(scope, receive, send)
        except _GoneError:
            pass
        finally:
            self._running -= 1

    async def _app_with_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app answer once the whole body is here, and note when the client goes away."""
        body = await self._body(receive)
        parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        gone = Event()
        watch = asyncio.create_task(_until_gone(receive, gone))

        async def replay() -> Message:
            return parts.pop() if parts else await watch

        token = CALLER.set(gone)
        try:
            await self._app(scope, replay, in_slices(send))
        finally:
            CALLER.reset(token)
            watch.cancel()
            gone.set()  # also where the server gave the request up at its end

    def _check_key(self, scope: Scope) -> None:
        if not self._keys:
            return
        sent = dict(scope["headers"]).get(b"authorization", b"").removeprefix(b"Bearer ")
        # every key is compared, each in constant time, so that the answer's time tells nothing
        if not any([hmac.compare_digest(sent, key) for key in self._keys]):
            raise RequestError(401, "the header `Authorization: Bearer KEY` must hold one of the server's keys")

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


async def _until_gone(receive: Receive, gone: Event) -> Message:
    """Wait until the client closes its connection, and note it for the threads that work for it."""
    message = await receive()
    while message["type"] != "http.disconnect":
        message = await receive()
    gone.set()
    return message


class _GoneError(Exception):
    """The client closed its connection."""


def error_body(error: RequestError) -> bytes:
    """Return an error in OpenAI's shape, in ASCII, so that whatever a client sent can be quoted."""
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 500: "server_error"}
    kind = kinds.get(error.status, "invalid_request_error")
    return json.dumps({"error": {"message": str(error), "type": kind, "param": error.field, "code": error.status}}).encode()


def error_headers(error: RequestError) -> dict[str, str]:
    """Return the headers that belong to an error."""
    headers = {"content-type": "application/json"}
    if error.status in (429, 503):
        headers["retry-after"] = "1"
    if error.status in (408, 413):
        headers["connection"] = "close"  # the rest of the body may still be on its way
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return headers


async def refuse(error: RequestError, send: Send) -> None:
    """Send an error as a whole response."""
    body = error_body(error)
    headers = [(name.encode(), value.encode()) for name, value in error_headers(error).items()]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
