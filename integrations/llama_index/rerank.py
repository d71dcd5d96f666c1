"""A `Reranker` as LlamaIndex node postprocessor."""

from __future__ import annotations

from llama_index.core.bridge.pydantic import Field
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from tp_retrieval import InputError, Reranker

dispatcher = get_dispatcher(__name__)


class TPRerank(BaseNodePostprocessor):
    """Rerank nodes by reading query and node together, and keep the first `top_n`.

    A node's new score is the fused one; `keep_retrieval_score` puts the old one into its metadata.
    """

    reranker: Reranker = Field(exclude=True)
    top_n: int = Field(default=2, gt=0, description="Number of nodes to return.")
    keep_retrieval_score: bool = Field(default=False, description="Put the old score into a node's metadata.")

    @classmethod
    def class_name(cls) -> str:
        """Return the name by which LlamaIndex finds this class."""
        return "TPRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InputError("query_bundle: reranking needs the query")
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=self.top_n, model_name=self.class_name()))
        scores = [scored.score for scored in nodes if scored.score is not None]
        prior = scores if len(scores) == len(nodes) else [-float(i) for i in range(len(nodes))]  # the order alone
        texts = [scored.node.get_content(metadata_mode=MetadataMode.EMBED) for scored in nodes]
        ranked = self.reranker.order(query_bundle.query_str, texts, prior, self.top_n)
        kept = [self._scored(nodes[position], score) for position, score in ranked]
        dispatcher.event(ReRankEndEvent(nodes=kept))
        return kept

    def _scored(self, scored: NodeWithScore, score: float) -> NodeWithScore:
        node = scored.node
        if self.keep_retrieval_score:
            node = node.model_copy(update={"metadata": {**node.metadata, "retrieval_score": scored.score}})
        return NodeWithScore(node=node, score=score)
