"""MCP over the process's stdin and stdout, until stdin ends or the process is told to end."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import anyio
import anyio.to_thread
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server


def serve_stdio(server: Server[Any]) -> None:
    """Answer requests of one client until it closes stdin, or SIGINT or SIGTERM comes.

    Meanwhile whatever else writes to stdout writes to stderr. Returns when all that is being computed is done.
    """
    anyio.run(_serve, server)


async def _serve(server: Server[Any]) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(_cancel_on_signal, group.cancel_scope)
        async with stdio_server(stdin=_Stdin()) as (requests, answers):
            await server.run(requests, answers, server.create_initialization_options())
        group.cancel_scope.cancel()


async def _cancel_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
            return


class _Stdin(anyio.AsyncFile[str]):
    """The lines of stdin; unlike the SDK's own, one that is waited for can be given up when the server shall end.

    It reads a file descriptor of its own, so that the thread that still waits holds no lock of `sys.stdin`.
    """

    def __init__(self) -> None:
        super().__init__(os.fdopen(os.dup(sys.stdin.fileno()), encoding="utf-8", errors="replace", closefd=False))

    async def readline(self) -> str:
        """Return the next line, "" at the end."""
        return await anyio.to_thread.run_sync(self.wrapped.readline, abandon_on_cancel=True)
