"""A frozen language model as LlamaIndex embedding."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr

from tp_retrieval import CachedEmbedder, Embedder
from tp_retrieval.integrations.loading import (
    LazyEmbedder,
    LoadingFields,
    fields_of,
    settings_of,
    with_model,
    with_new_names,
)
from tp_retrieval.integrations.worker import Worker


class TPEmbedding(LoadingFields, BaseEmbedding):
    """Embed queries and documents, each through the recipe's own template.

    `model` is what `Embedder.from_pretrained` takes: a hub id, a folder, a GGUF file, or the folder of a fitted embedder;
    None is the embedded default. It is loaded with the first text, also in a process that this was pickled to. A model in
    memory, with its `tokenizer`, or an object that holds both, such as a `HuggingFaceLLM`, is taken as it is. LlamaIndex
    reads its name from the attribute `model_name`.
    `cache` is a file that keeps every vector, see `CachedEmbedder`; LlamaIndex's own caches mix up the roles.
    Vectors are of unit length; with `normalize` False they are as the model gives them, but for a fitted embedder's.
    Asynchronous calls run on one thread of the adapter.
    """

    model_name: str = Field(default="", description="Hub id, folder, GGUF file or fitted embedder's folder.")
    cache: str | None = Field(default=None, description="File that keeps every vector.")
    normalize: bool = Field(default=True, description="Scale vectors to unit length.")
    embed_batch_size: int = Field(default=512, gt=0, le=2048, description="Texts at once; they are batched by length.")

    _lazy: LazyEmbedder = PrivateAttr(default_factory=LazyEmbedder)
    _worker: Worker = PrivateAttr(default_factory=Worker)

    def __init__(self, **fields: Any) -> None:
        fields, embedder = with_model(fields, "TPEmbedding")
        fields["model_name"] = fields.pop("model", "")  # the field of LlamaIndex
        super().__init__(**fields)
        if embedder is not None:
            self._lazy = LazyEmbedder(embedder)

    @classmethod
    def class_name(cls) -> str:
        """Return the name by which pipelines find this class."""
        return "TPEmbedding"

    @classmethod
    def from_embedder(cls, embedder: Embedder, **fields: Any) -> TPEmbedding:
        """Wrap a loaded embedder."""
        self = cls(**fields_of(embedder), **fields)
        self._lazy = LazyEmbedder(embedder)
        return self

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> TPEmbedding:
        """Return the embedding that `to_dict` wrote."""
        return super().from_dict(with_new_names(data), **kwargs)

    @property
    def model(self) -> str | None:
        """The model, None for the embedded default."""
        return self.model_name or None

    @property
    def embedder(self) -> Embedder | CachedEmbedder:
        """The embedder, loaded on first use."""
        return self._lazy.get(settings_of(self, self.model), self.cache, normalize=self.normalize)

    def __getstate__(self) -> dict[str, object]:
        """Return the settings alone: another process loads the model itself."""
        self._lazy.check_portable()
        settings = {name: getattr(self, name) for name in type(self).model_fields if name not in _NOT_PICKLED}
        return {
            "__dict__": with_new_names(settings),  # which LlamaIndex calls __init__ with
            "__pydantic_extra__": None,
            "__pydantic_fields_set__": set(self.model_fields_set) - _NOT_PICKLED,
            "__pydantic_private__": None,
        }

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embeddings([query])[0]

    def _get_query_embeddings(self, queries: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self.embedder.embed_queries(queries).tolist()
        return vectors

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self.embedder.embed_documents(texts).tolist()
        return vectors

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await self._worker.run(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await self._worker.run(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._worker.run(self._get_text_embeddings, texts)


_NOT_PICKLED = {"callback_manager", "rate_limiter"}
