"""An `Index` as LangChain retriever."""

from __future__ import annotations

from typing import Literal, Unpack, cast

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document as LCDocument
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field, SkipValidation

from tp_retrieval.indexing.search.query import SearchOptions
from tp_retrieval.integrations.langchain.vector_store import Filter, TPVectorStore
from tp_retrieval.types import HitReranker


class RetrieverOptions(SearchOptions, total=False):
    """What `TPRetriever.invoke` takes by name."""

    k: int
    filter: Filter


class TPRetriever(BaseRetriever):
    """Find documents by words and vectors together, by default, and let a reranker order them.

    `rerank` is a `Reranker`; `filter` and `k` are also arguments of `invoke`; `options` are further ones of `Index.search`.
    """

    store: TPVectorStore
    k: int = 4
    mode: Literal["hybrid", "dense", "lexical"] = "hybrid"
    filter: SkipValidation[Filter] = None
    rerank: HitReranker | None = None
    options: dict[str, object] = Field(default_factory=dict)

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **asked: Unpack[RetrieverOptions]
    ) -> list[LCDocument]:
        return self.store.similarity_search(query, **self._search_options(asked))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **asked: Unpack[RetrieverOptions]
    ) -> list[LCDocument]:
        return await self.store.asimilarity_search(query, **self._search_options(asked))

    def _search_options(self, asked: RetrieverOptions) -> RetrieverOptions:
        stored = cast("SearchOptions", self.options)
        return {"k": self.k, "mode": self.mode, "filter": self.filter, "rerank": self.rerank, **stored, **asked}
