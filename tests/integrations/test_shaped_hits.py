"""Hits with what stands around them, and one of each group, through every adapter."""

import pytest
from fastapi.testclient import TestClient
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

from tp_retrieval import Index, index_files
from tp_retrieval.integrations.langchain import TPVectorStore as LangChainStore
from tp_retrieval.integrations.llama_index import TPVectorStore as LlamaIndexStore
from tp_retrieval.integrations.server import create_app

TEXT = "# Tools\n\nA hammer drives nails.\n\nA saw cuts wood.\n\nA plane smooths boards.\n"


@pytest.fixture
def place(tmp_path, embedder):
    (tmp_path / "docs").mkdir()
    for name in ("one", "two"):
        (tmp_path / "docs" / f"{name}.md").write_text(TEXT.replace("Tools", f"Tools {name}"))
    with Index.create(tmp_path / "index", embedder) as index:
        index_files(index, [tmp_path / "docs"], chunk_tokens=8)
        assert len(index) > 4
    return tmp_path / "index"


@pytest.fixture
def expected(place, embedder):
    """What the index itself gives: passages around the hits, and paths of one hit a file."""
    with Index.open(place, embedder) as index:
        around = [hit.passage for hit in index.search("saw", 2, mode="dense", expand=1)]
        grouped = [hit.document.metadata["path"] for hit in index.search("saw", 9, mode="dense", group_by="path")]
    assert all("\n\n" in passage for passage in around)
    assert sorted(grouped) == ["one.md", "two.md"]
    return around, grouped


def test_langchain(place, expected):
    store = LangChainStore.open(place)
    around = store.similarity_search("saw", 2, expand=1)
    grouped = store.similarity_search("saw", 9, group_by="path")
    scored = store.similarity_search_with_score("saw", 2, expand=1)
    vector = store.embeddings.embed_query("saw")
    near = store.similarity_search_by_vector(vector, 2, expand=1)
    store.close()
    assert [document.page_content for document in around] == expected[0]
    assert [document.page_content for document, _ in scored] == expected[0]
    assert [document.page_content for document in near] == expected[0]
    assert [document.metadata["path"] for document in grouped] == expected[1]


@pytest.mark.parametrize("mode", [VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.TEXT_SEARCH])
def test_llama_index(place, expected, mode):
    store = LlamaIndexStore(place)
    vector = store.embed_model.get_query_embedding("saw")
    query = VectorStoreQuery(query_embedding=vector, query_str="saw", similarity_top_k=2, mode=mode)
    found = store.query(query, expand=1)
    assert all("\n\n" in node.get_content() for node in found.nodes)
    if mode == VectorStoreQueryMode.DEFAULT:
        assert [node.get_content() for node in found.nodes] == expected[0]
    assert len({node.metadata["path"] for node in store.query(query, group_by="path").nodes}) == 2
    store.close()


def test_server(place, expected, embedder):
    with TestClient(create_app(embedder, {"tools": place}), base_url="http://localhost") as client:
        asked = {"query": "saw", "k": 2, "mode": "dense"}
        plain = client.post("/v1/search", json=asked).json()["hits"]
        around = client.post("/v1/search", json={**asked, "expand": 1}).json()["hits"]
        grouped = client.post("/v1/search", json={**asked, "k": 9, "group_by": "path"}).json()["hits"]
        assert "passage" not in plain[0]
        assert [hit["passage"] for hit in around] == expected[0]
        assert [hit["text"] for hit in around] == [hit["text"] for hit in plain]
        assert [hit["metadata"]["path"] for hit in grouped] == expected[1]
        for wrong in ({"expand": -1}, {"expand": "page"}, {"group_by": ""}):
            assert client.post("/v1/search", json={**asked, **wrong}).status_code == 400
