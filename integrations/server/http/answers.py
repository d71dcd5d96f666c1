"""Answers on their way to clients: encoded row by row, sent in slices, and counted until they are read.

hold(len(texts) * dimension * 4)                     # raises if other answers leave no room
return listing({"model": "m"}, "data", (encode(row) for row in rows))
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain
from threading import Lock

from fastapi.responses import Response, StreamingResponse
from starlette.types import Message, Send

from tp_retrieval.indexing.metadata_json import tagged
from tp_retrieval.integrations.server.errors import RequestError

SLICE = 64 * 2**10  # bytes that are encoded, or given to a connection, at once
_ENCODING = Lock()


class AnswerMemory:
    """The bytes of all answers that are computed, encoded or not yet read by their clients, and their bound."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._lock = Lock()

    def check(self) -> None:
        """Raise `RequestError` 429 if answers take all the bytes there are."""
        if self._held >= self._limit:
            raise self._refusal()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count what `hold` is given in this context until its end."""
        share = _Share(self)
        token = _SHARE.set(share)
        try:
            yield
        finally:
            _SHARE.reset(token)
            with self._lock:
                self._held -= share.size

    def take(self, size: int) -> None:
        """Count further bytes; one answer larger than the bound is taken where no other is held."""
        with self._lock:
            if self._held and self._held + size > self._limit:
                raise self._refusal()
            self._held += size

    def _refusal(self) -> RequestError:
        return RequestError(429, f"{self._held} bytes of answers are held for clients, {self._limit} may be; try later")


class _Share:
    """What one request's answer takes of the memory."""

    def __init__(self, memory: AnswerMemory) -> None:
        self._memory = memory
        self.size = 0

    def take(self, size: int) -> None:
        """Count further bytes of this request."""
        self._memory.take(size)
        self.size += size


_SHARE: ContextVar[_Share | None] = ContextVar("_SHARE", default=None)


def hold(size: int) -> None:
    """Count bytes of the current request's answer until its client has read it.

    Raises `RequestError` 429 if the answers of other clients leave no room for it.
    """
    share = _SHARE.get()
    if share is not None:
        share.take(size)


def encode(value: object) -> str:
    """Return a value as JSON, in which dates stand as `{"$date": …}`.

    One thread encodes at a time: JSON is encoded without a pause for other threads, and many that encode by turns would
    keep the event loop from its own turn.
    """
    with _ENCODING:
        return json.dumps(value, default=tagged)


def listing(fields: Mapping[str, object], name: str, rows: Iterable[str]) -> Response:
    """Return a JSON object of fields and one list, whose rows are JSON already.

    A long list is read from `rows` in threads, a slice at a time, as its client reads the answer. What `rows` raises before
    the second slice is full is raised here, where it has a status of its own.
    """
    slices = _slices(fields, name, rows)
    first, second = next(slices), next(slices, None)
    if second is None:
        return Response(first, media_type="application/json")
    return StreamingResponse(chain((first, second), slices), media_type="application/json")


def _slices(fields: Mapping[str, object], name: str, rows: Iterable[str]) -> Iterator[bytes]:
    """Yield the bytes of an object whose last field is a list."""
    left = iter(rows)
    text = f"{encode(dict(fields))[:-1]}, {encode(name)}: [{', '.join(_filled(left))}"
    while part := _filled(left):
        yield text.encode()
        text = ", " + ", ".join(part)
    yield (text + "]}").encode()


def _filled(rows: Iterator[str]) -> list[str]:
    """Return the next rows that fill a slice."""
    part, size = [], 0
    for row in rows:
        part.append(row)
        size += len(row)
        if size >= SLICE:
            break
    return part


def in_slices(send: Send) -> Send:
    """Return a `send` that waits for the client between the slices of a body, and after the last."""

    async def sliced(message: Message) -> None:
        """Send a message, a body in slices."""
        if message["type"] != "http.response.body":
            await send(message)
            return
        body = message.get("body", b"")
        for begin in range(0, len(body), SLICE):
            await send({"type": "http.response.body", "body": body[begin : begin + SLICE], "more_body": True})
        if not message.get("more_body", False):
            await send({"type": "http.response.body", "body": b"", "more_body": False})  # a server first sends what it has

    return sliced
