"""An index that one door made opens in the others, whether its vectors are of unit length or not."""

import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQueryMode

from tp_retrieval import CachedEmbedder, Document, Index, InputError
from tp_retrieval.embedding.normalized import UnitEmbedder, scaled
from tp_retrieval.integrations.langchain import TPEmbeddings, TPVectorStore
from tp_retrieval.integrations.llama_index import TPEmbedding
from tp_retrieval.integrations.llama_index import TPVectorStore as LlamaStore

TEXTS = ["a dog runs over the hill", "the green river", "why is the house under the mountain?", "bread", "octopus hearts"]
QUERY = "the river is green"
DOORS = ["plain", "unit", "cached", "langchain", "llama-index"]


def embedder_for(door, embedder, folder):
    return {
        "plain": lambda: embedder,
        "unit": lambda: UnitEmbedder.of(embedder),
        "cached": lambda: CachedEmbedder(embedder, folder / "cache.sqlite"),
    }[door]()


def made(door, embedder, path, folder):
    if door == "langchain":
        TPVectorStore.from_texts(TEXTS, TPEmbeddings.from_embedder(embedder), ids=TEXTS, path=path).close()
    elif door == "llama-index":
        embedding = TPEmbedding.from_embedder(embedder)
        store = LlamaStore(str(path), embedding)
        nodes = [TextNode(text=text, id_=text) for text in TEXTS]
        VectorStoreIndex(nodes, storage_context=StorageContext.from_defaults(vector_store=store), embed_model=embedding)
        store.close()
    else:
        with Index.create(path, embedder_for(door, embedder, folder)) as index:
            index.add([Document(text, id=text) for text in TEXTS])


def searched(door, embedder, path, folder):
    """Open an index by a door, add a document, and return what a dense search finds, with scores."""
    new = "the green river again"
    if door == "langchain":
        store = TPVectorStore.open(path, TPEmbeddings.from_embedder(embedder))
        store.add_texts([new], ids=[new])
        found = [(d.page_content, score) for d, score in store.similarity_search_with_score(QUERY, k=6)]
        store.close()
    elif door == "llama-index":
        embedding = TPEmbedding.from_embedder(embedder)
        store = LlamaStore(str(path), embedding)
        index = VectorStoreIndex.from_vector_store(store, embed_model=embedding)
        index.insert_nodes([TextNode(text=new, id_=new)])
        nodes = index.as_retriever(similarity_top_k=6, vector_store_query_mode=VectorStoreQueryMode.DEFAULT).retrieve(QUERY)
        found = [(node.text, node.score) for node in nodes]
        store.close()
    else:
        with Index.open(path, embedder_for(door, embedder, folder)) as index:
            index.add([Document(new, id=new)])
            found = [(hit.document.text, hit.score) for hit in index.search(QUERY, 6, mode="dense")]
    return found


@pytest.mark.usefixtures("closed_loop")
@pytest.mark.parametrize("maker", DOORS)
def test_every_door_finds_the_same_in_an_index_that_one_made(maker, embedder, tmp_path):
    results = {}
    for opener in DOORS:
        folder = tmp_path / opener
        folder.mkdir()
        made(maker, embedder, folder / "index", folder)
        results[opener] = searched(opener, embedder, folder / "index", folder)
    want = results["plain"]
    assert len(want) == 6
    for opener, found in results.items():
        assert [text for text, _ in found] == [text for text, _ in want], opener
        assert [score for _, score in found] == pytest.approx([score for _, score in want], abs=1e-5), opener


def test_a_vector_of_another_length_is_refused_where_there_is_no_text(embedder, tmp_path):
    made("plain", embedder, tmp_path / "index", tmp_path)
    embeddings = TPEmbeddings.from_embedder(embedder)
    store = TPVectorStore.open(tmp_path / "index", embeddings)
    with pytest.raises(InputError, match=r"not of unit length.*search by text"):
        store.similarity_search_by_vector(embeddings.embed_query(QUERY))
    store.close()


def test_scaling_is_no_copy_and_a_fitted_embedder_stays(embedder):
    unit = scaled(embedder, unit=True)
    assert unit.backbone is embedder.backbone
    assert scaled(unit, unit=True) is unit
    assert scaled(unit, unit=False).fingerprint == embedder.fingerprint
    fitted = embedder.fit(TEXTS)
    assert scaled(fitted, unit=True) is fitted
