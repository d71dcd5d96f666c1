"""The socket of a server, and its shutdown: clients that are connected by then are answered.

listen(create_app(embedder), "127.0.0.1", 8000)
listen(create_app(embedder), "unix:/run/retrieval")
"""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Event

import uvicorn
from fastapi import FastAPI

from tp_retrieval import InputError
from tp_retrieval.integrations.server.http.connection import Connection
from tp_retrieval.integrations.server.limits import Limits

_BACKLOG = 2048  # connections that wait to be accepted
_TOGETHER = 8  # connections accepted in one turn of the event loop
_RETRY = 0.1  # seconds until a connection is accepted again when no file descriptor was left
_GRACE = 0.5  # seconds in which open connections may send a request


def listen(
    app: FastAPI,
    host: str = "127.0.0.1",
    port: int = 8000,
    started: Callable[[str], object] | None = None,
    *,
    graceful_timeout: int = 60,
) -> None:
    """Serve until SIGINT or SIGTERM; requests accepted by then are answered.

    After `graceful_timeout` seconds open requests are dropped, such as those of clients that never read. `started` is
    called with the address once it is open; port 0 means any free port, a host that begins with "unix:" a socket in the
    file system. Raises `InputError` if the address can't be opened.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again at its end, which would kill us
    try:
        with opened(host, port) as (sock, address, unname):
            if started is not None:
                started(address)
            config = uvicorn.Config(
                app,
                http="h11",
                ws="none",
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=graceful_timeout,
                h11_max_incomplete_event_size=app.state.limits.head_bytes,
            )
            _Server(config, _within_descriptors(app.state.limits), app.state.draining, unname).run(sockets=[sock])
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def opened(host: str, port: int) -> Iterator[tuple[socket.socket, str, Callable[[], None]]]:
    """Open an address; yield the socket, the address for clients, and a function that removes the socket's name."""
    file = Path(host.removeprefix("unix:")) if host.startswith("unix:") else None
    try:
        sock = _unix_socket(file) if file is not None else _tcp_socket(host, port)
    except OSError as error:
        raise InputError(f"{host}: can't listen there, port {port} ({error.strerror or error})") from error
    identity = None if file is None else _identity(file)

    def unname() -> None:
        if file is not None and _identity(file) == identity:  # else it is a successor's
            file.unlink(missing_ok=True)

    with sock:
        try:
            name = f"[{host}]" if ":" in host else host
            yield sock, host if file is not None else f"http://{name}:{sock.getsockname()[1]}", unname
        finally:
            unname()


class _Server(uvicorn.Server):
    """A server with a limit of connections that answers those open at its shutdown."""

    def __init__(self, config: uvicorn.Config, limits: Limits, draining: Event, unname: Callable[[], None]) -> None:
        super().__init__(config)
        self._limits = limits
        self._draining = draining
        self._unname = unname
        self._connecting: set[asyncio.Task[object]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections from the sockets."""
        await super().startup(sockets=[])  # uvicorn accepts all that wait at once, whatever the file descriptors
        for sock in sockets or ():
            sock.setblocking(False)
            self._listen_to(sock)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections, leave open ones time for a request, and end when all are answered."""
        self._draining.set()
        self._unname()  # from now on nobody can connect to a socket in the file system
        for sock in sockets or ():
            asyncio.get_running_loop().remove_reader(sock)
            with suppress(OSError):  # nobody waits any more, or no file descriptor is left
                while True:  # closing would reset who is in the backlog
                    self._connect(sock.accept()[0])
        await asyncio.gather(*self._connecting, return_exceptions=True)
        await asyncio.sleep(_GRACE)
        await super().shutdown(sockets)

    def _listen_to(self, sock: socket.socket) -> None:
        if sock.fileno() != -1 and not self.should_exit:
            asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    def _accept(self, sock: socket.socket) -> None:
        """Accept a few connections, so that they can make room for themselves before the next ones."""
        try:
            for _ in range(_TOGETHER):
                self._connect(sock.accept()[0])
        except (BlockingIOError, ConnectionError):
            pass  # the client has gone
        except OSError:
            loop = asyncio.get_running_loop()
            loop.remove_reader(sock)
            loop.call_later(_RETRY, self._listen_to, sock)

    def _connect(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        task: asyncio.Task[object] = loop.create_task(loop.connect_accepted_socket(self._protocol, connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def _protocol(self) -> Connection:
        return Connection(self._limits, self.config, self.server_state, self.lifespan.state)


def _within_descriptors(limits: Limits) -> Limits:
    """Return limits with no more connections than half of the file descriptors; indexes need the others."""
    if sys.platform == "win32":
        return limits
    import resource

    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limits if files == resource.RLIM_INFINITY else replace(limits, connections=min(limits.connections, files // 2))


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
    """Return whether no process listens at a socket in the file system."""
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
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
