"""One process that holds the model, and many clients: HTTP for embeddings, indexes, search, reranking and answers."""

from tp_retrieval.integrations.server.access import ApiKey, read_keys
from tp_retrieval.integrations.server.app import create_app
from tp_retrieval.integrations.server.http.listening import listen
from tp_retrieval.integrations.server.limits import Limits
from tp_retrieval.integrations.server.service import Settings

__all__ = ["ApiKey", "Limits", "Settings", "create_app", "listen", "read_keys"]
