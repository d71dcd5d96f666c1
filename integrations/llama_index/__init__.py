"""LlamaIndex: embedding, LLM, vector store and reranker."""

from tp_retrieval.errors import OptionalDependencyError

try:
    import llama_index.core  # noqa: F401
except ImportError as error:
    raise OptionalDependencyError("llama-index-core", "llama-index") from error

from tp_retrieval.integrations.llama_index.embedding import TPEmbedding
from tp_retrieval.integrations.llama_index.llm import TPLLM
from tp_retrieval.integrations.llama_index.rerank import TPRerank
from tp_retrieval.integrations.llama_index.vector_store import TPVectorStore

__all__ = ["TPLLM", "TPEmbedding", "TPRerank", "TPVectorStore"]
