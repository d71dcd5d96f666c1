"""LangChain's TimeWeightedVectorStoreRetriever, which keeps times in the metadata of documents."""

from contextlib import closing
from datetime import datetime, timedelta

from langchain_classic.retrievers.time_weighted_retriever import TimeWeightedVectorStoreRetriever
from langchain_core.documents import Document

from tests.integrations.langchain.test_like_faiss import Known
from tp_retrieval.integrations.langchain import TPVectorStore


def test_documents_that_are_older_weigh_less_and_times_are_kept(tmp_path):
    now = datetime.now()
    yesterday = now - timedelta(days=1)
    given = {"old": ("foo", yesterday), "new": ("foo", now), "unlike": ("baz", now)}
    with closing(TPVectorStore.from_texts([], Known(), path=tmp_path / "memory")) as store:
        retriever = TimeWeightedVectorStoreRetriever(vectorstore=store, decay_rate=0.5, k=1)
        for name, (text, time) in given.items():
            retriever.add_documents([Document(text, metadata={"last_accessed_at": time, "name": name})])
        assert [document.metadata["name"] for document in retriever.invoke("foo")] == ["new"]
        slow = TimeWeightedVectorStoreRetriever(
            vectorstore=store, decay_rate=1e-15, k=2, memory_stream=retriever.memory_stream
        )
        assert {document.metadata["name"] for document in slow.invoke("foo")} == {"old", "new"}
    with closing(TPVectorStore.open(tmp_path / "memory", Known())) as store:
        found = store.similarity_search("foo")
        assert {one.metadata["name"]: one.metadata["last_accessed_at"] for one in found} == {
            name: time for name, (_, time) in given.items()
        }
        later = {"last_accessed_at": {"$gte": now - timedelta(hours=1)}}
        assert {one.metadata["name"] for one in store.similarity_search("foo", filter=later)} == {"new", "unlike"}
        assert all(isinstance(one.metadata["created_at"], datetime) for one in found)
