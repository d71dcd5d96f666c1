"""A frozen language model as LangChain `Embeddings`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain_core.embeddings import Embeddings
from pydantic import PrivateAttr

from tp_retrieval import CachedEmbedder, Embedder
from tp_retrieval.integrations.loading import (
    LazyEmbedder,
    LoadingFields,
    fields_of,
    settings_of,
    with_model,
)
from tp_retrieval.integrations.worker import Worker


class TPEmbeddings(LoadingFields, Embeddings):
    """Embed queries and documents, each through the recipe's own template.

    `model` is what `Embedder.from_pretrained` takes: a hub id, a folder, a GGUF file, or the folder of a fitted embedder,
    whose vectors are mapped; None is the embedded default. It is loaded with the first text. A model in memory, with its
    `tokenizer`, or an object that holds both, such as a `HuggingFacePipeline`, is taken as it is.
    `cache` is a file that keeps every vector, see `CachedEmbedder`. Vectors are of unit length; with `normalize` False they
    are as the model gives them, but for a fitted embedder's. Asynchronous calls run on one thread of the adapter.
    """

    model: str | None = None
    cache: str | None = None
    normalize: bool = True
    show_progress: bool = False

    _lazy: LazyEmbedder = PrivateAttr(default_factory=LazyEmbedder)
    _worker: Worker = PrivateAttr(default_factory=Worker)

    def __init__(self, **fields: Any) -> None:
        fields, embedder = with_model(fields, "TPEmbeddings")
        super().__init__(**fields)
        if embedder is not None:
            self._lazy = LazyEmbedder(embedder)

    @classmethod
    def from_embedder(
        cls,
        embedder: Embedder,
        *,
        cache: str | Path | None = None,
        normalize: bool = True,
        show_progress: bool = False,
    ) -> TPEmbeddings:
        """Wrap a loaded embedder."""
        self = cls(**fields_of(embedder), cache=cache, normalize=normalize, show_progress=show_progress)
        self._lazy = LazyEmbedder(embedder)
        return self

    @property
    def model_name(self) -> str | None:
        """The model, as other embeddings of LangChain name it."""
        return self.model

    @property
    def embedder(self) -> Embedder | CachedEmbedder:
        """The embedder, loaded on first use."""
        return self._lazy.get(settings_of(self, self.model), self.cache, normalize=self.normalize)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector a document."""
        vectors: list[list[float]] = self.embedder.embed_documents(texts, show_progress=self.show_progress).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a query."""
        vector: list[float] = self.embedder.embed_queries([text])[0].tolist()
        return vector

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector a document."""
        return await self._worker.run(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """Return the vector of a query."""
        return await self._worker.run(self.embed_query, text)
