"""The same indexes for agents, at /mcp over streamable HTTP, where the extra `mcp` is installed."""

from __future__ import annotations

import importlib.util

from starlette.applications import Starlette
from starlette.requests import Request

from tp_retrieval.integrations.server.access import ApiKey
from tp_retrieval.integrations.server.service import Service

PATH = "/mcp"


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
