"""The socket a server listens at, and its end: whoever has asked, or connected, by then is answered.

listen(create_app(embedder), "127.0.0.1", 8000)
listen(create_app(embedder), "unix:/run/retrieval")
"""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from tp_retrieval import InputError

_BACKLOG = 2048  # connections that wait to be accepted
_GRACE = 0.5  # seconds in which who had connected may ask


def listen(
    app: FastAPI,
    host: str = "127.0.0.1",
    port: int = 8000,
    started: Callable[[str], object] | None = None,
    *,
    graceful_timeout: int = 60,
) -> None:
    """Serve until SIGINT or SIGTERM; requests that were accepted by then are answered.

    After `graceful_timeout` seconds those still open are given up, such as of clients that never read their answer.
    `started` is told the address once it is open; port 0 is one that is free, and a host that begins with "unix:" names
    a socket in the file system. Raises `InputError` if the address can't be opened.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again at its end, which would kill us
    try:
        with opened(host, port) as (sock, address, unname):
            if started is not None:
                started(address)
            config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=graceful_timeout)
            _Server(config, unname).run(sockets=[sock])
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def opened(host: str, port: int) -> Iterator[tuple[socket.socket, str, Callable[[], None]]]:
    """Open an address; yield the socket, the address as a client writes it, and what takes its name away."""
    file = Path(host.removeprefix("unix:")) if host.startswith("unix:") else None
    try:
        sock = _unix_socket(file) if file is not None else _tcp_socket(host, port)
    except OSError as error:
        raise InputError(f"{host}: can't listen there, port {port} ({error.strerror or error})") from error
    own = None if file is None else _identity(file)

    def unname() -> None:
        if file is not None and _identity(file) == own:  # else it is a successor's
            file.unlink(missing_ok=True)

    with sock:
        try:
            name = f"[{host}]" if ":" in host else host
            yield sock, host if file is not None else f"http://{name}:{sock.getsockname()[1]}", unname
        finally:
            unname()


class _Server(uvicorn.Server):
    """A server that also answers those who had connected, but not yet asked, when it was told to end."""

    def __init__(self, config: uvicorn.Config, unname: Callable[[], None]) -> None:
        super().__init__(config)
        self._unname = unname

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, leave those that are open time to ask, and end when all are answered."""
        self.config.app.state.draining.set()
        self._unname()  # from now on nobody can connect to a socket in the file system
        connected = []
        for sock in sockets or ():
            with suppress(BlockingIOError):
                while True:  # closing would reset who is in the backlog
                    connected.append(sock.accept()[0])
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for connection in connected:
            await loop.connect_accepted_socket(self._protocol, connection)
        await asyncio.sleep(_GRACE)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        protocol: Any = self.config.http_protocol_class
        return protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)  # type: ignore[no-any-return]


def _tcp_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)


def _unix_socket(file: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(str(file))
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not _abandoned(file):
            sock.close()
            raise
        file.unlink(missing_ok=True)  # of a server that was killed
        sock.bind(str(file))
    sock.listen(_BACKLOG)
    return sock


def _abandoned(file: Path) -> bool:
    """Return whether nobody listens at a socket in the file system."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(1)
        try:
            sock.connect(str(file))
        except ConnectionRefusedError:
            return file.is_socket()
        except OSError:
            return False
    return False


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        known = file.stat()
    except OSError:
        return None
    return known.st_dev, known.st_ino
