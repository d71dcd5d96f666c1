"""Turn a frozen decoder-only language model into a whole retrieval stack: embed, index, search, rerank, measure."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tp_retrieval.embedding.embedder import Embedder as Embedder
    from tp_retrieval.embedding.recipe import Recipe as Recipe
    from tp_retrieval.embedding.template import Template as Template
    from tp_retrieval.types import Document as Document
    from tp_retrieval.types import Hit as Hit

_HOME = {
    "Document": "types",
    "Embedder": "embedding.embedder",
    "Hit": "types",
    "Recipe": "embedding.recipe",
    "Template": "embedding.template",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
