"""What LangChain's standard tests do not ask: roles, filters, thresholds, reranking, and the faults of other stores."""

import asyncio
import os
import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import aindex, index
from langchain_core.structured_query import Comparator, Comparison, Operation, Operator, StructuredQuery
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from tests.langchain_faiss import save_local
from tp_retrieval import (
    CorruptIndexError,
    Embedder,
    IncompatibleIndexError,
    Index,
    IndexAccessError,
    IndexLockedError,
    InputError,
    OptionalDependencyError,
    Reranker,
)
from tp_retrieval.embedding.recipe import View
from tp_retrieval.integrations.langchain import (
    TPEmbeddings,
    TPRecordManager,
    TPReranker,
    TPRetriever,
    TPTranslator,
    TPVectorStore,
)
from tp_retrieval.integrations.langchain.vector_store import LangChainEmbedder

FAKE = DeterministicFakeEmbedding(size=6)
TEXTS = ["red apple", "green apple", "red river", "stone bridge", "the cat sleeps", "an old bridge"]
YEARS = [2018, 2019, 2020, 2021, 2022, 2023]


@pytest.fixture
def store(tmp_path):
    made = TPVectorStore.from_texts(
        TEXTS, FAKE, [{"year": year} for year in YEARS], ids=list("abcdef"), path=tmp_path / "store"
    )
    yield made
    made.close()


def test_queries_and_documents_go_through_their_own_templates(embedder):
    embeddings = TPEmbeddings.from_embedder(embedder)
    queries, documents = (
        embedder.normalize(embedder.embed_queries(TEXTS)),
        embedder.normalize(embedder.embed_documents(TEXTS)),
    )
    assert np.allclose(embeddings.embed_documents(TEXTS), documents, atol=1e-6)
    assert np.allclose([embeddings.embed_query(text) for text in TEXTS], queries, atol=1e-6)
    assert np.abs(queries - documents).max() > 1e-3
    assert np.allclose(np.linalg.norm(documents, axis=1), 1)
    assert asyncio.run(embeddings.aembed_documents(TEXTS)) == embeddings.embed_documents(TEXTS)
    assert asyncio.run(embeddings.aembed_query("red")) == embeddings.embed_query("red")


def test_a_store_asks_with_queries_and_keeps_documents(embedder, tmp_path):
    store = TPVectorStore.from_texts(TEXTS, TPEmbeddings.from_embedder(embedder), path=tmp_path / "s")
    query, documents = embedder.embed_queries(["old stone"])[0], embedder.embed_documents(TEXTS)
    cosines = documents @ query / np.linalg.norm(documents, axis=1) / np.linalg.norm(query)
    found = store.similarity_search_with_score("old stone", 6)
    assert [document.page_content for document, _ in found] == [TEXTS[i] for i in np.argsort(-cosines)]
    assert np.allclose([score for _, score in found], np.sort(cosines)[::-1], atol=1e-5)
    store.close()


def test_vectors_are_kept_in_a_cache_and_roles_apart(embedder, tmp_path, monkeypatch):
    embeddings = TPEmbeddings.from_embedder(embedder, cache=str(tmp_path / "vectors.sqlite"))
    query, document = embeddings.embed_query(TEXTS[0]), embeddings.embed_documents(TEXTS)[0]
    assert np.allclose(query, embedder.normalize(embedder.embed_queries(TEXTS[:1]))[0], atol=1e-6)
    store = TPVectorStore.from_texts(TEXTS, embeddings, path=tmp_path / "store")
    monkeypatch.setattr(type(embedder), "_embed", None)  # from here on nothing can be embedded
    assert embeddings.embed_query(TEXTS[0]) == query
    assert embeddings.embed_documents(TEXTS)[0] == document
    assert store.similarity_search(TEXTS[0], 1)[0].page_content == TEXTS[0]
    store.close()
    embeddings.embedder.close()


def test_a_store_of_langchain_communitys_faiss_is_taken_over(tmp_path, monkeypatch):
    embedding = DeterministicFakeEmbedding(size=8)
    vectors = np.array(embedding.embed_documents(TEXTS), dtype=np.float32)
    save_local(tmp_path / "old", TEXTS, vectors, monkeypatch)
    with pytest.raises(InputError, match="trust_pickle=True"):
        TPVectorStore.from_faiss(tmp_path / "old", embedding, path=tmp_path / "new")
    other = DeterministicFakeEmbedding(size=4)
    with pytest.raises(InputError, match=r"vectors: shape \(\d+, 8\) must be \(\d+, 4\)"):
        TPVectorStore.from_faiss(tmp_path / "old", other, path=tmp_path / "new", trust_pickle=True)
    store = TPVectorStore.from_faiss(tmp_path / "old", embedding, path=tmp_path / "new", trust_pickle=True)
    (found,) = store.get_by_ids(["id1"])
    assert (found.page_content, found.metadata) == (TEXTS[1], {"n": 1})
    cosines = vectors @ vectors[2] / np.linalg.norm(vectors, axis=1) / np.linalg.norm(vectors[2])
    ranked = store.similarity_search_with_score_by_vector(vectors[2].tolist(), 3)
    assert [(d.id, round(score, 5)) for d, score in ranked] == [
        (f"id{i}", round(float(cosines[i]), 5)) for i in np.argsort(-cosines)[:3]
    ]
    store.close()


def test_a_fitted_embedders_folder_gives_mapped_vectors(model_folder, tmp_path):
    embedder = Embedder.from_pretrained(model_folder, recipe="prompteol", dtype="float32", device="cpu")
    centred = embedder.with_recipe(
        replace(embedder.recipe, views=tuple(replace(view, postprocess="center") for view in embedder.recipe.views))
    )
    fitted = centred.fit(TEXTS)
    fitted.save(tmp_path / "fitted")
    embeddings = TPEmbeddings(model=str(tmp_path / "fitted"), dtype="float32", device="cpu")
    assert np.allclose(embeddings.embed_documents(TEXTS), fitted.embed_documents(TEXTS), atol=1e-6)
    store = TPVectorStore.from_texts(TEXTS, embeddings, path=tmp_path / "s")
    vector = embeddings.embed_query("a bridge")
    assert store.similarity_search_by_vector(vector, 3) == store.similarity_search("a bridge", 3)
    store.close()


def test_searching_by_the_embeddings_own_vector_is_searching_by_text(embedder, tmp_path):
    centred = embedder.with_recipe(
        replace(embedder.recipe, views=(View(2, "mean", "center"), View(3, "last", "center", 2.0)))
    )
    embeddings = TPEmbeddings.from_embedder(centred)
    texts = [f"{text} {i}" for i in range(12) for text in TEXTS]
    store = TPVectorStore.from_texts(texts, embeddings, path=tmp_path / "s")
    assert store.index.info().fitted == ("center", "center")
    vector = embeddings.embed_query("a bridge")
    assert np.linalg.norm(vector) == pytest.approx(1)
    assert store.similarity_search_by_vector(vector, 9) == store.similarity_search("a bridge", 9)

    queries, documents = centred.embed_queries(["a bridge"]), centred.embed_documents(texts)
    cosine = 0
    for width, weight in ((slice(0, 32), 1 / 3), (slice(32, 64), 2 / 3)):
        unit = [part[:, width] / np.linalg.norm(part[:, width], axis=1, keepdims=True) for part in (queries, documents)]
        mapped = [part - unit[1].mean(axis=0) for part in unit]
        query, rows = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in mapped)
        cosine = cosine + weight * (rows @ query[0])
    found = store.similarity_search_with_score("a bridge", 72)
    assert np.allclose([score for _, score in found], np.sort(cosine)[::-1], atol=1e-4)
    store.close()


def test_an_index_made_here_opens_anywhere(embedder, tmp_path):
    store = TPVectorStore.from_texts(TEXTS, TPEmbeddings.from_embedder(embedder), path=tmp_path / "s")
    found = [document.page_content for document in store.similarity_search("old stone", 3)]
    store.close()
    with Index.open(tmp_path / "s") as opened:
        assert [hit.document.text for hit in opened.search("old stone", 3, mode="dense")] == found
    with Index.open(tmp_path / "s", embedder) as opened:  # raw or of unit length, it is the right model
        assert [hit.document.text for hit in opened.search("old stone", 3, mode="dense")] == found
    with pytest.raises(IncompatibleIndexError, match=r"recipe\.document: stored .*, given "):
        Index.open(tmp_path / "s", embedder.with_recipe("mean"))


def test_settings_are_checked_and_shown():
    embeddings = TPEmbeddings(model="some/model", recipe="cot-tp", model_kwargs={"attn_implementation": "eager"})
    assert embeddings.model == embeddings.model_name == "some/model"
    with pytest.raises(ValueError, match="unknown"):
        TPEmbeddings(unknown=1)


# -- the faults of other stores


def test_one_matching_document_is_found_whatever_is_nearer(store):
    for year, text in zip(YEARS, TEXTS, strict=True):
        for given in ({"year": year}, lambda document, year=year: document.metadata["year"] == year):
            assert [d.page_content for d in store.similarity_search("red apple", 1, filter=given)] == [text]


def test_adding_an_id_again_keeps_one(store):
    store.add_texts(["a blue apple"], [{"year": 1}], ids=["a"])
    assert len(store.index) == 6
    assert store.get_by_ids(["a"])[0].page_content == "a blue apple"
    assert store.add_texts(["first", "second"], ids=["x", "x"]) == ["x", "x"]
    assert [d.page_content for d in store.get_by_ids(["x"])] == ["second"]


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_relevance_is_that_of_the_hits(store, mode):
    found = store.similarity_search_with_relevance_scores("red apple", 6, mode=mode)
    hits = store.index.search("red apple", 6, mode=mode)
    assert [(document.id, score) for document, score in found] == [(hit.document.id, hit.relevance) for hit in hits]
    assert found[0][0].page_content == "red apple"
    assert all(0 <= score <= 1 for _, score in found)
    threshold = max(score for _, score in found)
    retriever = store.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"k": 6, "score_threshold": threshold, "mode": mode}
    )
    assert len(retriever.invoke("red apple")) == 1
    assert len(store.similarity_search("red apple", 6, mode=mode, min_relevance=threshold)) == 1


def test_a_generator_of_texts_is_added(tmp_path):
    store = TPVectorStore.from_texts((text for text in TEXTS), FAKE, path=tmp_path / "s")
    assert len(store.index) == 6
    assert len(store.add_texts(f"text {i}" for i in range(7))) == 7
    assert len(store.index) == 13
    store.close()


def test_deleting_a_missing_id_is_silent_and_no_ids_is_everything(store):
    assert store.delete(["nowhere"]) is True
    assert len(store.index) == 6
    assert store.delete() is True
    assert len(store.index) == 0


def test_documents_given_are_never_changed_and_their_ids_are_kept(store):
    documents = [Document("one", metadata={"k": [1]}, id="n1"), Document("two")]
    ids = store.add_documents(documents)
    assert ids[0] == "n1"
    assert documents[1].id is None
    back = store.get_by_ids(ids)
    assert back[0] == documents[0]
    back[0].metadata["k"].append(2)
    assert store.get_by_ids(["n1"])[0].metadata == {"k": [1]}
    assert store.add_documents(documents, ids=["x", "y"]) == ["x", "y"]
    with pytest.raises(InputError, match="must be as many"):
        store.add_texts(["a", "b"], ids=["a"])


# -- searching


FILTERS = [
    ({"year": {"$gte": 2021}}, lambda year: year >= 2021),
    ({"year": {"$gt": 2018, "$lte": 2021}}, lambda year: 2018 < year <= 2021),
    ({"year": {"$in": [2018, 2023]}}, lambda year: year in (2018, 2023)),
    ({"year": {"$nin": [2018, 2023]}}, lambda year: year not in (2018, 2023)),
    ({"$or": [{"year": {"$lt": 2019}}, {"year": {"$eq": 2022}}]}, lambda year: year < 2019 or year == 2022),
    ({"$not": {"year": {"$ne": 2020}}}, lambda year: year == 2020),
    ({"$and": [{"year": {"$gt": 2019}}, {"year": {"$ne": 2022}}]}, lambda year: year > 2019 and year != 2022),
]


@pytest.mark.parametrize(("filter", "keeps"), FILTERS, ids=[str(given) for given, _ in FILTERS])
def test_a_filter_as_dict_or_function_keeps_what_it_says(store, filter, keeps):
    want = [d for d in store.similarity_search("red apple", 6) if keeps(d.metadata["year"])]
    vector = FAKE.embed_query("red apple")
    for given in (filter, lambda document: keeps(document.metadata["year"])):
        assert store.similarity_search("red apple", 6, filter=given) == want
        assert store.similarity_search_by_vector(vector, 6, filter=given) == want
        assert [d for d, _ in store.similarity_search_with_score_by_vector(vector, 2, filter=given)] == want[:2]
        found = store.max_marginal_relevance_search("red apple", 6, filter=given)
        assert sorted(d.id for d in found) == sorted(d.id for d in want)


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.8, 1.0])
def test_mmr_is_that_of_langchain(store, weight):
    query = np.array(FAKE.embed_query("red apple"))
    near = store.similarity_search("red apple", 5)
    vectors = FAKE.embed_documents([document.page_content for document in near])
    want = [near[i] for i in maximal_marginal_relevance(query, vectors, lambda_mult=weight, k=3)]
    assert store.max_marginal_relevance_search("red apple", 3, fetch_k=5, lambda_mult=weight) == want
    assert store.max_marginal_relevance_search_by_vector(query.tolist(), 3, fetch_k=5, lambda_mult=weight) == want
    for options, argument in (({"mmr": 0.5}, "lambda_mult"), ({"candidates": 9}, "fetch_k")):
        with pytest.raises(InputError, match=f"give {argument} instead"):
            store.max_marginal_relevance_search("red apple", 3, **options)
    assert (
        store.as_retriever(search_type="mmr", search_kwargs={"k": 3, "fetch_k": 5, "lambda_mult": weight}).invoke(
            "red apple"
        )
        == want
    )


def test_modes_and_rerankers_are_passed_on(store, embedder):
    assert store.similarity_search("cat", 1, mode="lexical")[0].page_content == "the cat sleeps"
    hybrid = [hit.document.id for hit in store.index.search("old cat", 3)]
    assert [d.id for d in store.similarity_search("old cat", 3, mode="hybrid")] == hybrid
    reranker = Reranker(embedder, weight=1.0)
    best = TEXTS[int(np.argmax(reranker.score("old cat", TEXTS)))]
    assert store.similarity_search("old cat", 1, rerank=reranker)[0].page_content == best
    assert TPRetriever(store=store, k=1, rerank=reranker).invoke("old cat")[0].page_content == best


def test_a_retriever_has_modes_filters_and_k(store):
    retriever = TPRetriever(store=store, k=2, mode="lexical")
    assert [d.page_content for d in retriever.invoke("bridge")] == ["stone bridge", "an old bridge"]
    assert [d.id for d in retriever.invoke("bridge", k=1, filter={"year": 2023})] == ["f"]
    hybrid = TPRetriever(store=store, k=3, options={"dense_weight": 0.0})
    assert hybrid.invoke("old bridge")[0].page_content == "an old bridge"
    assert asyncio.run(hybrid.ainvoke("old bridge", k=1)) == hybrid.invoke("old bridge", k=1)
    with pytest.raises(ValueError, match="unknown"):
        TPRetriever(store=store, unknown=1)


async def test_asynchronous_methods_do_the_same(store):
    vector = FAKE.embed_query("red apple")
    assert await store.asimilarity_search("red apple", 2) == store.similarity_search("red apple", 2)
    assert await store.asimilarity_search("red apple", filter={"year": 2020}) == store.similarity_search(
        "red apple", filter={"year": 2020}
    )
    assert await store.asimilarity_search_with_score("red apple", 2) == store.similarity_search_with_score("red apple", 2)
    assert await store.asimilarity_search_by_vector(vector, 2) == store.similarity_search_by_vector(vector, 2)
    assert await store.asimilarity_search_with_relevance_scores(
        "red apple", k=2
    ) == store.similarity_search_with_relevance_scores("red apple", k=2)
    assert await store.amax_marginal_relevance_search("red apple", 2) == store.max_marginal_relevance_search("red apple", 2)
    assert await store.amax_marginal_relevance_search_by_vector(vector, 2) == store.max_marginal_relevance_search_by_vector(
        vector, 2
    )
    (id_,) = await store.aadd_texts(["new"])
    assert (await store.aget_by_ids([id_]))[0].page_content == "new"
    assert await store.adelete([id_])
    other = await TPVectorStore.afrom_texts(["a text"], FAKE)
    assert (await other.asimilarity_search("a text"))[0].page_content == "a text"
    other.close()


def test_a_store_survives_closing_and_refuses_other_embeddings(store, tmp_path):
    found = store.similarity_search("red apple")
    store.close()
    again = TPVectorStore.open(tmp_path / "store", FAKE)
    assert again.similarity_search("red apple") == found
    assert again.embeddings is FAKE
    again.close()
    with pytest.raises(IncompatibleIndexError, match="dimension"):
        TPVectorStore.open(tmp_path / "store", DeterministicFakeEmbedding(size=7))


def test_a_fingerprint_is_made_of_names_that_another_process_has_too():
    class Named(DeterministicFakeEmbedding):
        model: object = None
        model_name: str = ""

    first, again, other = (LangChainEmbedder(Named(size=6, model=object(), model_name=name)) for name in ("a", "a", "b"))
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_a_store_without_a_path_lives_as_long_as_the_object():
    store = TPVectorStore.from_texts(TEXTS, FAKE)
    place = store.index.info().path
    assert store.similarity_search("red apple", 1)[0].page_content == "red apple"
    store.close()
    del store
    with pytest.raises(FileNotFoundError):
        Index.open(place)
    assert TPVectorStore.from_texts([], FAKE).similarity_search("anything") == []


# -- reranking


def test_a_compressor_gives_scored_copies_best_first(embedder):
    reranker = Reranker(embedder, weight=1.0)
    given = [Document(text, metadata={"n": i}, id=str(i)) for i, text in enumerate(TEXTS)]
    compressor = TPReranker(reranker=reranker, top_n=4)
    got = compressor.compress_documents(given, "old bridge")
    order = np.argsort(-reranker.score("old bridge", TEXTS))[:4]
    assert [int(document.id) for document in got] == list(order)
    assert all("relevance_score" not in document.metadata for document in given)
    scores = [document.metadata["relevance_score"] for document in got]
    assert scores == sorted(scores, reverse=True)
    assert got[0].metadata["n"] == order[0]
    assert asyncio.run(compressor.acompress_documents(given, "old bridge")) == got
    assert compressor.compress_documents([], "old bridge") == []
    assert len(TPReranker(reranker=reranker).compress_documents(given, "old bridge")) == 6


def test_the_order_given_counts_as_the_first_score(embedder):
    given = [Document(text) for text in TEXTS]
    kept = TPReranker(reranker=Reranker(embedder, weight=0.0)).compress_documents(given, "old bridge")
    assert [document.page_content for document in kept] == TEXTS


def test_a_reranker_is_a_cross_encoder_too(embedder):
    reranker = Reranker(embedder)
    scores = TPReranker(reranker=reranker).score([("old bridge", text) for text in TEXTS])
    assert isinstance(scores[0], float)
    assert np.allclose(scores, reranker.score("old bridge", TEXTS), atol=1e-6)


# -- the indexing API


def test_the_indexing_api_survives_a_restart(tmp_path):
    def run(texts, cleanup="incremental"):
        records = TPRecordManager("docs", tmp_path / "records.sqlite")
        store = TPVectorStore.open(tmp_path / "store", FAKE)
        documents = [Document(text, metadata={"source": source}) for source, text in texts]
        done = index(documents, records, store, cleanup=cleanup, source_id_key="source", key_encoder="sha256", batch_size=2)
        kept = sorted(document.text for document in store.index)
        store.close()
        records.close()
        return {name: count for name, count in done.items() if count}, kept

    first = [("a", "one"), ("a", "two"), ("b", "three")]
    assert run(first) == ({"num_added": 3}, ["one", "three", "two"])
    assert run(first) == ({"num_skipped": 3}, ["one", "three", "two"])
    assert run([("a", "one"), ("a", "other")]) == (
        {"num_added": 1, "num_skipped": 1, "num_deleted": 1},
        ["one", "other", "three"],
    )
    assert run([("b", "three")], "full") == ({"num_skipped": 1, "num_deleted": 2}, ["three"])


async def test_the_indexing_api_works_asynchronously(tmp_path):
    records = TPRecordManager("docs", tmp_path / "records.sqlite")
    store = TPVectorStore.open(tmp_path / "store", FAKE)
    documents = [Document(text, metadata={"source": "s"}) for text in TEXTS]
    options = {"cleanup": "full", "source_id_key": "source", "key_encoder": "sha256"}
    assert (await aindex(documents, records, store, **options))["num_added"] == 6
    assert (await aindex(documents[:4], records, store, **options))["num_deleted"] == 2
    assert len(store.index) == 4
    store.close()
    records.close()


async def test_a_record_manager_remembers_keys_groups_and_times(tmp_path):
    records = TPRecordManager("one", tmp_path / "r.sqlite")
    other = TPRecordManager("two", tmp_path / "r.sqlite")
    many = [f"key {i}" for i in range(1200)]
    records.update(many, group_ids=[str(i % 3) for i in range(1200)])
    other.update(["key 5"])
    assert records.exists(["key 7", "nowhere", "key 1199"]) == [True, False, True]
    assert other.list_keys() == ["key 5"]
    assert records.list_keys(group_ids=["1"], limit=2) == ["key 1", "key 4"]
    assert records.list_keys(group_ids=[]) == []
    middle = records.get_time()
    records.update(["key 3"], group_ids=["9"])
    assert records.list_keys(after=middle) == ["key 3"]
    assert len(records.list_keys(before=middle)) == 1199
    records.delete_keys([*many[:1000], "nowhere"])
    assert len(records.list_keys()) == 200
    with pytest.raises(ValueError, match="lies after this machine's time"):
        records.update(["x"], time_at_least=records.get_time() + 100)
    with pytest.raises(ValueError, match="1 for 2 keys"):
        records.update(["x", "y"], group_ids=["g"])
    with pytest.raises(InputError, match=r"keys\[1\]: expected str, got object"):
        records.update(["x", object()])
    with pytest.raises(InputError, match=r"keys\[1\]: expected str, got object"):
        records.delete_keys(["key 1100", object()])
    assert records.exists(["x", "key 1100"]) == [False, True]
    await records.acreate_schema()
    await records.aupdate(["z"], group_ids=[None])
    assert await records.aexists(["z"]) == [True]
    assert "z" in await records.alist_keys(after=middle)
    await records.adelete_keys(["z"])
    assert await records.aexists(["z"]) == [False]
    assert await records.aget_time() >= middle
    records.close()
    other.close()


def test_a_record_file_of_plain_sqlite_opens_with_its_records(tmp_path):
    with closing(sqlite3.connect(tmp_path / "r.sqlite")) as plain:
        plain.execute(
            "CREATE TABLE records (namespace TEXT NOT NULL, key TEXT NOT NULL, group_id TEXT, updated_at REAL NOT NULL, "
            "PRIMARY KEY (namespace, key))"
        )
        plain.execute("INSERT INTO records VALUES ('one', 'a', 'g', 5.0), ('two', 'b', NULL, 6.0)")
        plain.commit()
    records = TPRecordManager("one", tmp_path / "r.sqlite")
    assert records.list_keys(group_ids=["g"], before=5.1) == ["a"]
    records.update(["c"])
    records.close()
    with closing(sqlite3.connect(tmp_path / "r.sqlite")) as plain:
        assert plain.execute("SELECT namespace, key FROM records ORDER BY key").fetchall() == [
            ("one", "a"),
            ("two", "b"),
            ("one", "c"),
        ]


def test_a_record_file_that_cannot_be_used_raises_our_errors(tmp_path):
    with pytest.raises(IndexAccessError, match="missing"):
        TPRecordManager("one", tmp_path / "missing" / "r.sqlite")
    (tmp_path / "text.sqlite").write_text("no database, but a file long enough to have a header " * 40)
    with pytest.raises(CorruptIndexError, match=r"text\.sqlite"):
        TPRecordManager("one", tmp_path / "text.sqlite")
    records = TPRecordManager("one", tmp_path / "r.sqlite")
    with closing(sqlite3.connect(tmp_path / "r.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(IndexLockedError, match="another process is writing"), records._database.impatient():
            records.update(["a"])
        other.execute("ROLLBACK")
    records.update(["a"])
    records.close()
    with pytest.raises(InputError, match="closed"):
        records.update(["b"])


def test_a_forked_process_writes_records_by_a_connection_of_its_own(tmp_path):
    records = TPRecordManager("one", tmp_path / "r.sqlite")
    records.update(["before"])
    connections = records._database.data_version()[0]
    child = os.fork()
    if child == 0:
        try:
            records.update(["child"])
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    records.update(["parent"])
    assert records.list_keys() == ["before", "child", "parent"]
    assert records._database.data_version()[0] == connections + 1
    records.close()


# -- structured queries


@pytest.mark.parametrize(
    ("comparator", "value", "keeps"),
    [
        (Comparator.EQ, 2020, lambda y: y == 2020),
        (Comparator.NE, 2020, lambda y: y != 2020),
        (Comparator.GT, 2020, lambda y: y > 2020),
        (Comparator.GTE, 2020, lambda y: y >= 2020),
        (Comparator.LT, 2020, lambda y: y < 2020),
        (Comparator.LTE, 2020, lambda y: y <= 2020),
        (Comparator.IN, [2018, 2020], lambda y: y in (2018, 2020)),
        (Comparator.NIN, [2018, 2020], lambda y: y not in (2018, 2020)),
    ],
)
def test_structured_queries_become_filters(store, comparator, value, keeps):
    asked = StructuredQuery(query="apple", filter=Comparison(comparator=comparator, attribute="year", value=value), limit=6)
    query, options = TPTranslator().visit_structured_query(asked)
    found = store.similarity_search(query, **options)
    assert sorted(d.metadata["year"] for d in found) == [year for year in YEARS if keeps(year)]


def test_structured_queries_are_joined(store):
    def year(comparator, value):
        return Comparison(comparator=comparator, attribute="year", value=value)

    either = Operation(operator=Operator.OR, arguments=[year(Comparator.LT, 2019), year(Comparator.GT, 2022)])
    both = Operation(operator=Operator.AND, arguments=[either, year(Comparator.NE, 2018)])
    for asked, years in (
        (either, [2018, 2023]),
        (both, [2023]),
        (Operation(operator=Operator.NOT, arguments=[either]), [2019, 2020, 2021, 2022]),
    ):
        query, options = TPTranslator().visit_structured_query(StructuredQuery(query="apple", filter=asked))
        assert sorted(d.metadata["year"] for d in store.similarity_search(query, 6, **options)) == years
    assert TPTranslator().visit_structured_query(StructuredQuery(query="apple", filter=None)) == ("apple", {})
    with pytest.raises(ValueError, match="LIKE"):
        Comparison(comparator=Comparator.LIKE, attribute="year", value="x").accept(TPTranslator())
    store.add_texts(["tagged"], [{"tags": ["beta", "new"]}])
    contains = Comparison(comparator=Comparator.CONTAIN, attribute="tags", value="beta").accept(TPTranslator())
    assert [d.page_content for d in store.similarity_search("x", filter=contains)] == ["tagged"]


def test_without_langchain_the_pip_line_is_shown(without):
    without("langchain_core", "tp_retrieval.integrations.langchain")
    with pytest.raises(OptionalDependencyError, match=r"pip install 'tp-retrieval\[langchain\]'"):
        import tp_retrieval.integrations.langchain  # noqa: F401
