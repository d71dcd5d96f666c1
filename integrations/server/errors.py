"""The errors of a server: a refused request, and every error as an HTTP answer in OpenAI's shape."""

from __future__ import annotations

import json

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Send

from tp_retrieval import InputError, TPRetrievalError

_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 500: "server_error"}


class RequestError(Exception):
    """A refused request: its HTTP status, a message for people and the name of the field at fault."""

    def __init__(self, status: int, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.field = field

    @property
    def body(self) -> bytes:
        """The body in OpenAI's shape, in ASCII, so that whatever a client sent can be quoted."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        return json.dumps(
            {"error": {"message": str(self), "type": kind, "param": self.field, "code": self.status}}
        ).encode()

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the answer."""
        headers = {"content-type": "application/json"}
        if self.status in (429, 503):
            headers["retry-after"] = "1"
        if self.status in (408, 413):
            headers["connection"] = "close"  # the rest of the body may still be on its way
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return headers


class OverloadedError(TPRetrievalError, RuntimeError):
    """More texts wait than the server accepts."""


class ClosedError(TPRetrievalError, RuntimeError):
    """The server is shutting down."""


class GoneError(TPRetrievalError, ConnectionError):
    """The caller has disconnected."""


_STATUS = ((OverloadedError, 429), (GoneError, 499), (ClosedError, 503), (InputError, 400), (TPRetrievalError, 503))


async def refuse(error: RequestError, send: Send) -> None:
    """Send an error as a whole answer."""
    headers = [(name.encode(), value.encode()) for name, value in error.headers.items()]
    headers.append((b"content-length", str(len(error.body)).encode()))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": error.body})


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error of an app's routes in OpenAI's shape."""

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> Response:
        return Response(error.body, error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][1:2])
        return await refused(request, RequestError(400, f"{name or 'the body'}: {first['msg']}", name or None))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path}: {error.detail}"
        return await refused(request, RequestError(error.status_code, message))

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return await ours(request, GoneError("the client closed its connection"))

    @app.exception_handler(TPRetrievalError)
    async def ours(request: Request, error: TPRetrievalError) -> Response:
        status = next(status for kind, status in _STATUS if isinstance(error, kind))
        return await refused(request, RequestError(status, str(error)))
