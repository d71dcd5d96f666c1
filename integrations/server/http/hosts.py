"""The names a server answers to, so that no page of another site can use a local one.

hosts = Hosts(["search.example"], keyed=False)
hosts.check(scope)                                   # raises for the host evil.example, and for its pages
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.types import Scope

from tp_retrieval import InputError
from tp_retrieval.integrations.server.errors import RequestError

ANY = "*"
_LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
_NAME = r"(?:\[[0-9a-f:.]+(?:%\w+)?\]|[^\s:/\[\]]+)"
_HOST = re.compile(rf"({_NAME})(?::\d+)?")
_PORTS = {"http": ":80", "https": ":443"}


class Hosts:
    """The hosts whose requests are answered: those of this machine and `names`; with keys and without names, any.

    A page can give its own name the address of this machine (DNS rebinding): its browser then takes the server for the
    page's own, but the Host header has the page's name. Pages of `origins` may use the server. Raises `InputError` if a
    name or an origin is none.
    """

    def __init__(self, names: Sequence[str] = (), *, keyed: bool = False, origins: Sequence[str] = ()) -> None:
        self._any = ANY in names or (keyed and not names)
        self._names = _LOCAL | {_checked(name) for name in names if name != ANY}
        self._keyed = keyed
        self._origins = frozenset(map(_checked_origin, origins))

    def check(self, scope: Scope) -> None:
        """Raise `RequestError` 400 if a request is for another host, and 403 if another site's page sent it.

        At a socket in the file system any host is answered, as no browser connects to one. A request without a host is
        answered, as no browser sends one. With keys, a page of another site lacks the key.
        """
        hosts = _headers(scope, b"host")
        server = scope.get("server")
        file = server is not None and server[1] is None
        for host in hosts:
            match = _HOST.fullmatch(host)
            if not (self._any or file or (match is not None and match[1] in self._names)):
                raise RequestError(400, _wrong_host(match[1] if match is not None else host))
        for origin in _headers(scope, b"origin"):
            allowed = self._keyed or origin in self._origins or any(_is_own(origin, host) for host in hosts)
            if not allowed:
                raise RequestError(
                    403,
                    f"a page of {origin!r} may not use this server, whose host is {', '.join(hosts)!r}: open the server's "
                    "own page, or give the server API keys; a proxy must pass the Host header on",
                )


def _headers(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip().lower() for key, value in scope["headers"] if key == name]


def _is_own(origin: str, host: str) -> bool:
    """Return whether an origin, as http://localhost:8000, is that of a host, as localhost:8000."""
    scheme, _, name = origin.partition("://")
    port = _PORTS.get(scheme, "")
    return bool(name) and name.removesuffix(port) == host.removesuffix(port)


def _checked(name: str) -> str:
    """Return an allowed host as it stands in a Host header, without a port."""
    host = f"[{name.lower()}]" if name.count(":") > 1 and not name.startswith("[") else name.lower()
    if not re.fullmatch(_NAME, host):
        raise InputError(f"allowed host {name!r}: give a name alone, such as search.example, without scheme and port")
    return host


def _checked_origin(origin: str) -> str:
    """Return an origin as a browser writes it."""
    if not re.fullmatch(rf"https?://{_NAME}(?::\d+)?", origin):
        raise InputError(f"origin {origin!r}: give scheme and host, such as https://app.example, without a path")
    return origin.lower()


def _wrong_host(name: str) -> str:
    return (
        f"the host {name!r} is not one of this server's: start it with --allowed-host {name}, or with "
        f"create_app(allowed_hosts=[{name!r}])"
    )
