"""MCP over the process's stdin and stdout, until stdin ends or the process is told to end."""

from __future__ import annotations

import io
import logging
import os
import select
import signal
import sys
from typing import Any

import anyio
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server

logger = logging.getLogger(__name__)


def serve_stdio(server: Server[Any]) -> None:
    """Answer requests of one client until it closes stdin or is gone, or SIGINT or SIGTERM comes.

    Meanwhile whatever else writes to stdout writes to stderr. Returns when nothing is being computed any more.
    """
    try:
        anyio.run(_serve, server)
    except* BrokenPipeError:
        logger.info("the client reads no more")


async def _serve(server: Server[Any]) -> None:
    source = _Interruptible(sys.stdin.fileno())
    lines = anyio.wrap_file(io.TextIOWrapper(io.BufferedReader(source), encoding="utf-8", errors="replace"))
    async with anyio.create_task_group() as group:
        group.start_soon(_interrupt_on_signal, source)
        async with stdio_server(stdin=lines) as (requests, answers):
            try:
                await server.run(requests, answers, server.create_initialization_options())
            finally:
                source.interrupt()  # the thread that reads could not be cancelled
        group.cancel_scope.cancel()


async def _interrupt_on_signal(source: _Interruptible) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            source.interrupt()
            return  # a second signal acts as ever


class _Interruptible(io.RawIOBase):
    """The bytes of a file descriptor up to their end, or up to `interrupt`, for which a thread that reads does not wait."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._interrupted, self._interrupt = os.pipe()
        self._poll = select.poll()
        for each in (self._descriptor, self._interrupted):
            self._poll.register(each, select.POLLIN)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._interrupted in dict(self._poll.poll()):
            return 0
        return os.readv(self._descriptor, [buffer])

    def interrupt(self) -> None:
        os.write(self._interrupt, b"\0")
