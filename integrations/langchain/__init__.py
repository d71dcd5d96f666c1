"""LangChain: embeddings, chat model, vector store, retriever, reranker, record manager, structured queries."""

from tp_retrieval.errors import OptionalDependencyError

try:
    import langchain_core  # noqa: F401
except ImportError as error:
    raise OptionalDependencyError("langchain-core", "langchain") from error

from tp_retrieval.integrations.langchain.chat_model import TPChatModel
from tp_retrieval.integrations.langchain.copying import TPIndexEmbeddings, copy_index
from tp_retrieval.integrations.langchain.embeddings import TPEmbeddings
from tp_retrieval.integrations.langchain.record_manager import TPRecordManager
from tp_retrieval.integrations.langchain.reranker import TPReranker
from tp_retrieval.integrations.langchain.retriever import TPRetriever
from tp_retrieval.integrations.langchain.structured_query import TPTranslator
from tp_retrieval.integrations.langchain.vector_store import TPVectorStore

__all__ = [
    "TPChatModel",
    "TPEmbeddings",
    "TPIndexEmbeddings",
    "TPRecordManager",
    "TPReranker",
    "TPRetriever",
    "TPTranslator",
    "TPVectorStore",
    "copy_index",
]
