"""LangChain's own standard tests, all of them, over every kind of index that is not exact, too."""

from typing import Any

import pytest
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from langchain_tests.unit_tests import EmbeddingsUnitTests

from tp_retrieval.indexing.vectors import kinds
from tp_retrieval.integrations.langchain import TPEmbeddings, TPRetriever, TPVectorStore


class TestEmbeddingsUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self):
        return TPEmbeddings


class TestEmbeddings(EmbeddingsIntegrationTests):
    @pytest.fixture(autouse=True)
    def place(self, model_folder):
        self.folder = model_folder

    @property
    def embeddings_class(self):
        return TPEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"recipe": "prompteol"}


class TestVectorStore(VectorStoreIntegrationTests):
    kind = "flat"

    @pytest.fixture
    def vectorstore(self, tmp_path, monkeypatch):
        monkeypatch.setattr(kinds, "TRAIN_AT", 4)
        store = TPVectorStore.open(tmp_path / "store", self.get_embeddings(), kind=self.kind)
        yield store
        store.close()


class TestVectorStoreOverHnsw(TestVectorStore):
    kind = "hnsw"


class TestVectorStoreOverIvf(TestVectorStore):
    kind = "ivf"


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def store(self, tmp_path, embedder):
        made = TPVectorStore.from_texts(
            [f"dog number {i}" for i in range(6)], TPEmbeddings.from_embedder(embedder), path=tmp_path / "store"
        )
        self.made = made
        yield
        made.close()

    @property
    def retriever_constructor(self):
        return TPRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"store": self.made}

    @property
    def retriever_query_example(self) -> str:
        return "dog"
