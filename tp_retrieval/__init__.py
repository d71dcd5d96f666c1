"""Turn a frozen decoder-only language model into a whole retrieval stack: embed, index, search, rerank, measure."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tp_retrieval.embedding.embedder import Embedder as Embedder
    from tp_retrieval.embedding.recipe import Recipe as Recipe
    from tp_retrieval.embedding.template import Template as Template
    from tp_retrieval.errors import CorruptIndexError as CorruptIndexError
    from tp_retrieval.errors import IncompatibleIndexError as IncompatibleIndexError
    from tp_retrieval.errors import IndexAccessError as IndexAccessError
    from tp_retrieval.errors import IndexExistsError as IndexExistsError
    from tp_retrieval.errors import IndexLockedError as IndexLockedError
    from tp_retrieval.errors import IndexNotFoundError as IndexNotFoundError
    from tp_retrieval.errors import InputError as InputError
    from tp_retrieval.errors import ModelNotFoundError as ModelNotFoundError
    from tp_retrieval.errors import OptionalDependencyError as OptionalDependencyError
    from tp_retrieval.errors import OutOfMemoryError as OutOfMemoryError
    from tp_retrieval.errors import RecipeError as RecipeError
    from tp_retrieval.errors import TPRetrievalError as TPRetrievalError
    from tp_retrieval.errors import TruncationWarning as TruncationWarning
    from tp_retrieval.errors import UnsupportedModelError as UnsupportedModelError
    from tp_retrieval.errors import WorkerError as WorkerError
    from tp_retrieval.indexing.cached_embedder import CachedEmbedder as CachedEmbedder
    from tp_retrieval.indexing.index import Index as Index
    from tp_retrieval.reranking.reranker import Reranker as Reranker
    from tp_retrieval.types import Document as Document
    from tp_retrieval.types import Hit as Hit

_HOME = {
    "CachedEmbedder": "indexing.cached_embedder",
    "CorruptIndexError": "errors",
    "Document": "types",
    "Embedder": "embedding.embedder",
    "Hit": "types",
    "IncompatibleIndexError": "errors",
    "Index": "indexing.index",
    "IndexAccessError": "errors",
    "IndexExistsError": "errors",
    "IndexLockedError": "errors",
    "IndexNotFoundError": "errors",
    "InputError": "errors",
    "ModelNotFoundError": "errors",
    "OptionalDependencyError": "errors",
    "OutOfMemoryError": "errors",
    "Recipe": "embedding.recipe",
    "RecipeError": "errors",
    "Reranker": "reranking.reranker",
    "TPRetrievalError": "errors",
    "Template": "embedding.template",
    "TruncationWarning": "errors",
    "UnsupportedModelError": "errors",
    "WorkerError": "errors",
}

__all__ = [
    "CachedEmbedder",
    "CorruptIndexError",
    "Document",
    "Embedder",
    "Hit",
    "IncompatibleIndexError",
    "Index",
    "IndexAccessError",
    "IndexExistsError",
    "IndexLockedError",
    "IndexNotFoundError",
    "InputError",
    "ModelNotFoundError",
    "OptionalDependencyError",
    "OutOfMemoryError",
    "Recipe",
    "RecipeError",
    "Reranker",
    "TPRetrievalError",
    "Template",
    "TruncationWarning",
    "UnsupportedModelError",
    "WorkerError",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
