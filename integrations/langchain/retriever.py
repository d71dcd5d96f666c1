"""An `Index` as LangChain retriever."""

from __future__ import annotations

from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document as LCDocument
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field

from tp_retrieval.integrations.langchain.vector_store import TPVectorStore
from tp_retrieval.types import HitReranker


class TPRetriever(BaseRetriever):
    """Find documents by words and vectors together, by default, and let a reranker order them.

    `rerank` is a `Reranker`; `filter` and `k` may also be given to `invoke`; `options` are further ones of `Index.search`.
    """

    store: TPVectorStore
    k: int = 4
    mode: Literal["hybrid", "dense", "lexical"] = "hybrid"
    filter: Any = None
    rerank: HitReranker | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **asked: Any
    ) -> list[LCDocument]:
        return self.store.similarity_search(query, **self._search_options(asked))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **asked: Any
    ) -> list[LCDocument]:
        return await self.store.asimilarity_search(query, **self._search_options(asked))

    def _search_options(self, asked: dict[str, Any]) -> dict[str, Any]:
        own = {"k": self.k, "mode": self.mode, "filter": self.filter, "rerank": self.rerank}
        return own | self.options | asked
