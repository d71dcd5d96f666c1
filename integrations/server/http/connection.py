"""One client's connection, bounded before the application sees a request: by bytes, by time, and in number."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from tp_retrieval.integrations.server.errors import RequestError
from tp_retrieval.integrations.server.limits import Limits


class Connection(H11Protocol):
    """An HTTP/1.1 connection whose client must send the head of a request, and read its answer, in time.

    h11 bounds a head's bytes, and uvicorn the seconds between two requests; neither bounds the seconds until a head is
    whole, those until an answer is read, or the number of silent connections. Of more connections than there may be, the
    one that has waited longest for a head is closed.
    """

    waiting_since: float | None = None  # when it began to wait for a head; None while a request runs
    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def __init__(
        self, limits: Limits, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._limits = limits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, and make room if there are too many connections."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that a request runs until the kernel has all of its answer
        self._wait_for_head()
        if len(self.connections) > self._limits.connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._stop_waiting()
        self._stop_write_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Give h11 no more at a time than a head may have: it measures what it has been given."""
        for begin in range(0, len(data), self._limits.head_bytes):
            if not self.transport.is_closing():
                super().data_received(data[begin : begin + self._limits.head_bytes])
        if self._running:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Wait for the next request, if it is not here already."""
        super().on_response_complete()
        if not self._running:
            self._wait_for_head()

    def pause_writing(self) -> None:
        """Disconnect the client if it does not read in time."""
        super().pause_writing()
        self._stop_write_timer()
        self._write_timer = self.loop.call_later(self._limits.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        self._stop_write_timer()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, with the status that h11's error has."""
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        limit = self._limits.head_bytes
        self._refuse(status, f"over {limit} bytes of headers; a request may have {limit}" if status == 431 else str(error))

    @property
    def _running(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        self.waiting_since = self.loop.time()
        self._head_timer = self.loop.call_later(self._limits.head_seconds, self._head_is_late)

    def _stop_waiting(self) -> None:
        self.waiting_since = None
        if self._head_timer is not None:
            self._head_timer.cancel()

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()

    def _head_is_late(self) -> None:
        if self.conn.trailing_data[0]:
            self._refuse(408, f"the headers must be here within {self._limits.head_seconds:g} seconds")
        else:
            self.transport.close()

    def _make_room(self) -> None:
        """Close the connection that has waited longest for a head, else those that are ending anyway, else this one."""
        others = [one for one in self.connections if isinstance(one, Connection) and one is not self]
        ending = [one for one in others if one.transport.is_closing()]
        waiting = {one: one.waiting_since for one in others if one.waiting_since is not None and one not in ending}
        if waiting:
            min(waiting, key=waiting.__getitem__).transport.abort()
        elif ending:
            for one in ending:
                one.transport.abort()
        else:
            self._refuse(503, f"{len(others)} connections have requests, no more may; try later")

    def _refuse(self, status: int, message: str) -> None:
        """Answer in the application's place where that is still possible, and close."""
        if self.transport.is_closing():
            return
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            error = RequestError(status, message)
            body = error.body
            fields = error.headers | {"content-length": str(len(body)), "connection": "close"}
            events = (
                h11.Response(status_code=status, headers=list(fields.items())),
                h11.Data(data=body),
                h11.EndOfMessage(),
            )
            self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()
