"""An MCP server: language models and agents search and read indexes through the Model Context Protocol.

serve_stdio(create_mcp(Access({"faq": index})))
"""

from tp_retrieval.errors import OptionalDependencyError

try:
    import mcp  # noqa: F401
except ImportError as error:
    raise OptionalDependencyError("mcp", "mcp") from error

from tp_retrieval.integrations.mcp.access import Access
from tp_retrieval.integrations.mcp.server import create_mcp
from tp_retrieval.integrations.mcp.stdio import serve_stdio

__all__ = ["Access", "create_mcp", "serve_stdio"]
