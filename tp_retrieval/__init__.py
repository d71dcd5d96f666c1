"""Turn a frozen decoder-only language model into a whole retrieval stack: embed, index, search, rerank, measure."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tp_retrieval import errors
from tp_retrieval.errors import *  # noqa: F403

if TYPE_CHECKING:
    from tp_retrieval.answering.answerer import Answer as Answer
    from tp_retrieval.answering.answerer import Answerer as Answerer
    from tp_retrieval.caching import CachedEmbedder as CachedEmbedder
    from tp_retrieval.client.async_client import AsyncClient as AsyncClient
    from tp_retrieval.client.client import Client as Client
    from tp_retrieval.embedding.embedder import Embedder as Embedder
    from tp_retrieval.embedding.recipe import Recipe as Recipe
    from tp_retrieval.embedding.template import Template as Template
    from tp_retrieval.indexing.importers.files import index_files as index_files
    from tp_retrieval.indexing.index import Index as Index
    from tp_retrieval.reranking.reranker import Reranker as Reranker
    from tp_retrieval.types import Document as Document
    from tp_retrieval.types import Hit as Hit

_HOME = {
    "Answer": "answering.answerer",
    "Answerer": "answering.answerer",
    "AsyncClient": "client.async_client",
    "CachedEmbedder": "caching",
    "Client": "client.client",
    "Document": "types",
    "Embedder": "embedding.embedder",
    "Hit": "types",
    "Index": "indexing.index",
    "index_files": "indexing.importers.files",
    "Recipe": "embedding.recipe",
    "Reranker": "reranking.reranker",
    "Template": "embedding.template",
}
"""The modules that are imported when one of their names is first used: torch alone takes seconds."""

__all__ = [
    "Answer",
    "Answerer",
    "AsyncClient",
    "CachedEmbedder",
    "Client",
    "Document",
    "Embedder",
    "Hit",
    "Index",
    "Recipe",
    "Reranker",
    "Template",
    "index_files",
]
__all__ += errors.__all__


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("tp-retrieval")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
