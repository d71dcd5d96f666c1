"""LangChain's TimeWeightedVectorStoreRetriever, which keeps times in the metadata of documents."""

from contextlib import closing
from datetime import datetime, timedelta

from langchain_classic.retrievers.time_weighted_retriever import TimeWeightedVectorStoreRetriever
from langchain_core.documents import Document

from tests.integrations.langchain.test_like_faiss import Known
from tp_retrieval.integrations.langchain import TPVectorStore

NOW = datetime.now()


def test_documents_that_are_older_weigh_less_and_times_are_kept(tmp_path):
    with closing(TPVectorStore.from_texts([], Known(), path=tmp_path / "memory")) as store:
        retriever = TimeWeightedVectorStoreRetriever(vectorstore=store, decay_rate=0.5, k=1)
        yesterday = NOW - timedelta(days=1)
        retriever.add_documents([Document("foo", metadata={"last_accessed_at": yesterday})])
        retriever.add_documents([Document("baz", metadata={"last_accessed_at": NOW})])
        assert [document.page_content for document in retriever.invoke("foo")] == ["baz"]
        slow = TimeWeightedVectorStoreRetriever(
            vectorstore=store, decay_rate=1e-15, k=1, memory_stream=retriever.memory_stream
        )
        assert [document.page_content for document in slow.invoke("foo")] == ["foo"]
    with closing(TPVectorStore.open(tmp_path / "memory", Known())) as store:
        times = {
            document.page_content: document.metadata["last_accessed_at"] for document in store.similarity_search("foo")
        }
        assert times == {"foo": yesterday, "baz": NOW}
        later = {"last_accessed_at": {"$gte": NOW - timedelta(hours=1)}}
        assert [document.page_content for document in store.similarity_search("foo", filter=later)] == ["baz"]
        assert all(isinstance(d.metadata["created_at"], datetime) for d in store.similarity_search("foo"))
