"""A `Reranker` as LangChain document compressor and cross-encoder."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.callbacks import Callbacks
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor
from langchain_core.documents import Document as LCDocument
from pydantic import ConfigDict, PrivateAttr

from tp_retrieval import Reranker
from tp_retrieval.integrations.worker import Worker


class TPReranker(BaseDocumentCompressor, BaseCrossEncoder):
    """Rerank documents by reading query and document together.

    `top_n` None keeps all. The order of the documents counts as the retrieval score, with the reranker's weight;
    `metadata["relevance_score"]` of the copies is the fused one.
    """

    reranker: Reranker
    top_n: int | None = None

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    _worker: Worker = PrivateAttr(default_factory=Worker)

    def compress_documents(
        self, documents: Sequence[LCDocument], query: str, callbacks: Callbacks | None = None
    ) -> list[LCDocument]:
        """Return copies of the documents, best first."""
        listed = list(documents)
        texts, prior = [document.page_content for document in listed], [-float(i) for i in range(len(listed))]
        ranked = self.reranker.order(query, texts, prior, self.top_n)
        return [_scored(listed[position], score) for position, score in ranked]

    async def acompress_documents(
        self, documents: Sequence[LCDocument], query: str, callbacks: Callbacks | None = None
    ) -> list[LCDocument]:
        """Return copies of the documents, best first."""
        return await self._worker.run(self.compress_documents, documents, query, callbacks)

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Return one score a pair of query and document."""
        scores: list[float] = self.reranker.score_pairs(text_pairs).tolist()
        return scores


def _scored(document: LCDocument, score: float) -> LCDocument:
    metadata: dict[str, object] = {**document.metadata, "relevance_score": score}
    return LCDocument(page_content=document.page_content, metadata=metadata, id=document.id)
