"""The same indexes for agents, at /mcp over streamable HTTP, where the extra `mcp` is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tp_retrieval.integrations.server.access import ApiKey
from tp_retrieval.integrations.server.errors import RequestError
from tp_retrieval.integrations.server.service import Service

PATH = "/mcp"


class _Agents:
    """The running app of MCP, whichever that is."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        agents: Starlette | None = scope["app"].state.agents
        if agents is None:
            raise RequestError(404, "this server answers no agents; install tp-retrieval[mcp] beside it")
        await agents(scope, receive, send)


ROUTE = Route(PATH, _Agents())


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[None]:
    """Let agents be answered at `ROUTE` within."""
    agents = app.state.agents = mcp_app(app.state.service)
    async with nullcontext() if agents is None else agents.router.lifespan_context(agents):
        yield


def mcp_app(service: Service) -> Starlette | None:
    """Return an app that answers MCP requests by the rights of their keys, None where the SDK is missing.

    Tools that change documents are offered if the server's settings say so and the key may write. Hosts, keys and sizes are
    the guard's matter.
    """
    if importlib.util.find_spec("mcp") is None:
        return None
    from mcp.server.transport_security import TransportSecuritySettings

    from tp_retrieval.integrations.mcp import Access, create_mcp

    def rights(request: Request | None) -> Access:
        holder = ApiKey("", write=False) if request is None else request.state.access
        write = holder.write and service.settings.mcp_write
        return Access(service.catalog.visible(holder), holder.namespace, write=write)

    return create_mcp(rights).streamable_http_app(
        streamable_http_path=PATH,
        json_response=True,
        stateless_http=True,
        max_request_body_size=service.settings.limits.body_bytes,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
