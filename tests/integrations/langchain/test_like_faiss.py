"""What users of LangChain-community's FAISS store do: save and load, vectors of their own, merging; and Chroma's `get`.

The cases of save, load, merge and delete are those of that store's own tests, with expected values of ours.
"""

import asyncio
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from tests.langchain_faiss import save_local
from tp_retrieval import IncompatibleIndexError, Index, InputError
from tp_retrieval.embedding.recipe import View
from tp_retrieval.integrations.langchain import TPEmbeddings, TPVectorStore

VECTORS = {"foo": [1.0, 0.0, 0.0], "bar": [0.0, 1.0, 0.0], "baz": [0.6, 0.8, 0.0], "qux": [0.0, 0.0, 1.0]}
TEXTS = ["foo", "bar", "baz"]


class Known(Embeddings):
    """Vectors of three numbers, known by text; what was embedded is listed."""

    model = "known"

    def __init__(self):
        self.embedded = []

    def embed_documents(self, texts):
        self.embedded += texts
        return [VECTORS[text] for text in texts]

    def embed_query(self, text):
        return VECTORS.get(text, [1.0, 0.0, 0.0])


@pytest.fixture
def known():
    return Known()


def pairs(*texts):
    return [(text, VECTORS[text]) for text in texts]


def found(store, query="foo", k=9):
    return [(d.page_content, pytest.approx(score, abs=1e-6)) for d, score in store.similarity_search_with_score(query, k)]


# -- save and load


def test_a_store_is_saved_by_its_path_and_loaded_whole(known, tmp_path):
    with closing(
        TPVectorStore.from_texts(TEXTS, known, [{"page": i} for i in range(3)], ids=["a", "b", "c"], path=tmp_path / "s")
    ):
        pass
    with closing(TPVectorStore.open(tmp_path / "s", known)) as loaded:
        assert found(loaded) == [("foo", 1), ("baz", 0.6), ("bar", 0)]
        assert loaded.get_by_ids(["c"]) == [Document("baz", metadata={"page": 2}, id="c")]
        loaded.add_texts(["qux"])
    with closing(TPVectorStore.open(tmp_path / "s", Known())) as again:
        assert found(again, "qux", 1) == [("qux", 1)]
        assert len(again.index) == 4


def test_a_store_without_its_embedding_is_searched_by_vector(known, tmp_path):
    TPVectorStore.from_texts(TEXTS, known, path=tmp_path / "s").close()
    with closing(TPVectorStore.open(tmp_path / "s")) as loaded:
        (best,) = loaded.similarity_search_by_vector([0.0, 3.0, 0.0], 1)
        assert best.page_content == "bar"
        with pytest.raises(InputError, match=r"give it to Index\.open"):
            loaded.similarity_search("foo")


def test_a_faiss_folder_and_the_store_made_of_it_hold_the_same(known, tmp_path, monkeypatch):
    save_local(tmp_path / "faiss", TEXTS, np.array([VECTORS[text] for text in TEXTS], dtype=np.float32), monkeypatch)
    TPVectorStore.from_faiss(tmp_path / "faiss", known, path=tmp_path / "s", trust_pickle=True).close()
    with closing(TPVectorStore.open(tmp_path / "s", known)) as loaded:
        assert found(loaded) == [("foo", 1), ("baz", 0.6), ("bar", 0)]
        assert loaded.get() == {
            "ids": ["id0", "id1", "id2"],
            "documents": TEXTS,
            "metadatas": [{"n": 0}, {"n": 1}, {"n": 2}],
        }
    assert known.embedded == []


# -- vectors of one's own


def test_given_vectors_are_stored_and_no_text_is_embedded(known, tmp_path):
    turned = [("foo", VECTORS["bar"]), ("bar", VECTORS["foo"])]  # so that the vectors are surely the given ones
    with closing(
        TPVectorStore.from_embeddings(turned, known, [{"n": 1}, {"n": 2}], ids=["x", "y"], path=tmp_path / "s")
    ) as store:
        assert found(store) == [("bar", 1), ("foo", 0)]
        assert store.add_embeddings(iter(pairs("baz")), [{"n": 3}], ids=["z"]) == ["z"]
        assert store.get_by_ids(["z", "x"]) == [
            Document("baz", metadata={"n": 3}, id="z"),
            Document("foo", metadata={"n": 1}, id="x"),
        ]
        assert found(store) == [("bar", 1), ("baz", 0.6), ("foo", 0)]
    assert known.embedded == []


def test_ids_of_given_vectors_are_made_and_replaced(known):
    store = TPVectorStore.from_embeddings(pairs(*TEXTS), known)
    (made,) = store.add_embeddings(pairs("qux"))
    assert store.get_by_ids([made])[0].page_content == "qux"
    assert store.add_embeddings([("first", VECTORS["foo"]), ("last", VECTORS["qux"])], ids=[made, made]) == [made, made]
    assert found(store, "qux", 2) == [("last", 1), ("foo", 0)]
    assert store.add_embeddings([]) == []
    store.close()


def test_given_vectors_that_can_not_be_stored_are_refused_and_nothing_is_added(known):
    store = TPVectorStore.from_embeddings([], known)
    with pytest.raises(InputError, match="vectors of 2, 3 numbers; all must have as many"):
        store.add_embeddings([("a", [1.0, 0.0]), ("b", [1.0, 0.0, 0.0])])
    with pytest.raises(InputError, match=r"shape \(1, 2\) must be \(1, 3\)"):
        store.add_embeddings([("a", [1.0, 0.0])])
    with pytest.raises(InputError, match="1 texts, 2 metadatas and 1 ids must be as many"):
        store.add_embeddings(pairs("foo"), [{}, {}])
    with pytest.raises(InputError, match="NaN"):
        store.add_embeddings([("a", [float("nan"), 0.0, 0.0])])
    assert len(store.index) == 0
    store.close()


def test_vectors_of_our_embeddings_are_those_of_add_texts(embedder, tmp_path):
    recipe = embedder.with_recipe(
        type(embedder.recipe)(
            "question: {text}", "passage: {text}", [View(2, "mean", "within:8"), View(4, "last", "center")]
        )
    )
    embeddings = TPEmbeddings.from_embedder(recipe)
    texts = [
        f"the {first} and {i} times the {second} of them all" for i, first in enumerate(VECTORS) for second in range(18)
    ]
    texts = [f"{text} or {i}" for i, text in enumerate(texts)]
    with (
        closing(TPVectorStore.from_texts(texts, embeddings, ids=texts, path=tmp_path / "texts")) as want,
        closing(TPVectorStore.open(tmp_path / "vectors", embeddings)) as got,
    ):
        vectors = embeddings.embed_documents(texts)
        for begin in range(0, len(texts), 30):
            part = slice(begin, begin + 30)
            got.add_embeddings(zip(texts[part], vectors[part], strict=True), ids=texts[part])
        assert got.index.info().unread == 0
        for store in (want, got):
            store.index.rebuild()
        assert got.index.info().fitted == want.index.info().fitted == ("within:8", "center")
        assert found(got, "the bar") == found(want, "the bar")


# -- merging


def test_a_merged_store_finds_the_documents_of_both(known, tmp_path):
    first = TPVectorStore.from_texts(["foo"], known, [{"n": 1}], ids=["a"], path=tmp_path / "first")
    second = TPVectorStore.from_texts(["bar", "baz"], known, [{"n": 2}, {"n": 3}], ids=["b", "c"], path=tmp_path / "second")
    known.embedded.clear()
    assert first.merge_from(second) is None
    assert known.embedded == []
    assert first.get() == {"ids": ["a", "b", "c"], "documents": TEXTS, "metadatas": [{"n": 1}, {"n": 2}, {"n": 3}]}
    assert found(first) == [("foo", 1), ("baz", 0.6), ("bar", 0)]
    assert found(second) == [("baz", 0.6), ("bar", 0)]
    with pytest.raises(ValueError, match="the id 'b' is in both"):
        first.merge_from(second)
    assert len(first.index) == 3
    second.close()
    first.close()
    with Index.open(tmp_path / "first") as index:
        assert [document.id for document in index] == ["a", "b", "c"]


def test_stores_of_other_embeddings_are_not_merged(known):
    class Other(Known):
        model = "other"

    first, second = TPVectorStore.from_texts(["foo"], known), TPVectorStore.from_texts(["bar"], Other())
    with pytest.raises(IncompatibleIndexError, match="different embedders"):
        first.merge_from(second)
    assert first.get()["documents"] == ["foo"]
    first.close()
    second.close()


# -- reading and deleting


def test_get_is_that_of_chroma(known):
    store = TPVectorStore.from_texts(TEXTS, known, [{"even": i % 2 == 0, "n": i} for i in range(3)], ids=["a", "b", "c"])
    everything = store.get()
    assert everything == {
        "ids": ["a", "b", "c"],
        "documents": TEXTS,
        "metadatas": [{"even": True, "n": 0}, {"even": False, "n": 1}, {"even": True, "n": 2}],
    }
    assert store.get("b")["documents"] == ["bar"]
    assert store.get(["c", "nowhere", "a"])["documents"] == ["baz", "foo"]
    assert store.get(where={"even": True})["ids"] == ["a", "c"]
    assert store.get(["a", "b"], where={"n": {"$gte": 1}})["ids"] == ["b"]
    assert store.get(limit=1, offset=1)["ids"] == ["b"]
    assert store.get(offset=3) == {"ids": [], "documents": [], "metadatas": []}
    store.close()


def test_deleted_documents_are_gone(known):
    store = TPVectorStore.from_texts(TEXTS, known, ids=["a", "b", "c"])
    assert store.delete(["a", "b"]) is True
    assert store.get()["ids"] == ["c"]
    assert found(store) == [("baz", 0.6)]
    store.close()


def test_asynchronous_methods_do_the_same(known):
    async def use():
        store = await TPVectorStore.afrom_embeddings(pairs("foo"), known, [{"n": 1}], ids=["a"])
        assert await store.aadd_embeddings(pairs("bar"), ids=["b"]) == ["b"]
        other = await TPVectorStore.afrom_texts(["baz"], known, ids=["c"])
        await store.amerge_from(other)
        other.close()
        return store, await store.aget(["c", "a"])

    store, got = asyncio.run(use())
    assert got == {"ids": ["c", "a"], "documents": ["baz", "foo"], "metadatas": [{}, {"n": 1}]}
    assert found(store) == [("foo", 1), ("baz", 0.6), ("bar", 0)]
    folder = Path(store.index.info().path)
    store.close()
    del store
    assert not folder.exists()


# -- namespaces


def test_a_store_sees_its_namespace_alone(known, tmp_path):
    with closing(
        TPVectorStore.from_texts(TEXTS, known, path=tmp_path / "s", namespace="ours", ids=["a", "b", "c"])
    ) as ours:
        assert found(ours) == [("foo", 1), ("baz", 0.6), ("bar", 0)]
        ours.add_texts(["qux"], ids=["a"], namespace="theirs")
        ours.add_embeddings(pairs("foo"), ids=["b"], namespace="theirs")
        assert ours.index.namespaces() == {"ours": 3, "theirs": 2}
        assert [d.page_content for d in ours.similarity_search("qux", namespace="theirs")] == ["qux", "foo"]
        assert [d.id for d in ours.similarity_search_by_vector([0.0, 0.0, 1.0], namespace="theirs")] == ["a", "b"]
        assert ours.get_by_ids(["a"], namespace="theirs")[0].page_content == "qux"
        assert ours.get(namespace="theirs")["documents"] == ["qux", "foo"]
        assert ours.similarity_search("foo", filter=lambda document: document.page_content == "qux") == []
        assert ours.as_retriever(search_kwargs={"namespace": "theirs", "k": 1}).invoke("qux")[0].id == "a"
        theirs = TPVectorStore(ours.index, known, namespace="theirs")
        assert found(theirs, "qux") == [("qux", 1), ("foo", 0)]
        assert theirs.delete(["c"]) is True
        assert theirs.delete() is True
        assert ours.index.namespaces() == {"ours": 3}
    with closing(TPVectorStore.open(tmp_path / "s", known)) as of_none:
        assert found(of_none) == []
    with closing(TPVectorStore.open(tmp_path / "s", namespace="ours")) as again:
        assert len(again.similarity_search_by_vector([0.0, 0.0, 1.0])) == 3


def test_async_makers_take_a_namespace(known, tmp_path):
    made = asyncio.run(TPVectorStore.afrom_texts(TEXTS, known, path=tmp_path / "a", namespace="x"))
    given = asyncio.run(TPVectorStore.afrom_embeddings(pairs("foo"), known, path=tmp_path / "b", namespace="x"))
    for store, count in ((made, 3), (given, 1)):
        with closing(store):
            assert store.index.namespaces() == {"x": count}
