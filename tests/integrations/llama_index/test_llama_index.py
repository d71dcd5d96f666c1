"""LlamaIndex: the embedding's roles and batches, the store's modes and filters, pipelines, reranking with its events."""

import asyncio
import itertools
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.indices.query.embedding_utils import get_top_k_mmr_embeddings
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document, NodeRelationship, NodeWithScore, QueryBundle, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from tp_retrieval import Document as OurDocument
from tp_retrieval import Embedder, IncompatibleIndexError, Index, InputError, OptionalDependencyError, Recipe, Reranker
from tp_retrieval.embedding.recipe import View
from tp_retrieval.integrations.llama_index import TPEmbedding, TPRerank, TPVectorStore

TEXTS = ["red apple", "green apple", "red river", "stone bridge", "the cat sleeps", "an old bridge"]


def unit(seed):
    vector = np.random.default_rng(seed).normal(size=8)
    return (vector / np.linalg.norm(vector)).tolist()


def nodes_of(metadata, source="doc"):
    nodes = [
        TextNode(id_=f"n{i}", text=TEXTS[i % len(TEXTS)], metadata=one, embedding=unit(i)) for i, one in enumerate(metadata)
    ]
    for i, node in enumerate(nodes):
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"{source}{i % 2}")
    return nodes


@pytest.fixture
def store(tmp_path):
    made = TPVectorStore(tmp_path / "store")
    made.add(nodes_of([{"year": 2018 + i} for i in range(6)]))
    yield made
    made.close()


def ids(result):
    return list(result.ids)


# -- relevance


@pytest.mark.parametrize(
    "mode", [VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.HYBRID]
)
def test_similarities_may_be_relevances(store, mode):
    query = VectorStoreQuery(query_embedding=unit(0), query_str="red apple", mode=mode, similarity_top_k=6)
    found = store.query(query, relevance=True)
    assert all(0 < value < 1 for value in found.similarities)
    assert found.ids == store.query(query).ids
    assert found.similarities != store.query(query).similarities
    least = sorted(found.similarities)[-1]
    assert store.query(query, min_relevance=least).ids == [found.ids[found.similarities.index(least)]]


# -- namespaces


def test_a_store_sees_nodes_of_its_namespace_alone(tmp_path):
    ours, theirs = TPVectorStore(tmp_path / "i", namespace="ours"), TPVectorStore(tmp_path / "i", namespace="theirs")
    ours.add(nodes_of([{"n": 1}, {"n": 2}]))
    theirs.add(nodes_of([{"n": 2}], source="other"))
    for mode in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.HYBRID):
        query = VectorStoreQuery(query_embedding=unit(0), query_str="apple", mode=mode, similarity_top_k=5)
        assert sorted(ours.query(query).ids) == ["n0", "n1"]
        assert ids(pickle.loads(pickle.dumps(theirs)).query(query)) == ["n0"]  # noqa: S301
    assert [node.metadata["n"] for node in theirs.get_nodes()] == [2]
    theirs.delete("doc0")
    theirs.delete_nodes(["n1"])
    assert ours.client.namespaces() == {"ours": 2, "theirs": 1}
    theirs.clear()
    assert ours.client.namespaces() == {"ours": 2}
    ours.close()
    theirs.close()


# -- the embedding


def test_queries_and_texts_go_through_their_own_templates(embedder):
    embedding = TPEmbedding.from_embedder(embedder, embed_batch_size=4)
    queries = embedder.normalize(embedder.embed_queries(TEXTS))
    documents = embedder.normalize(embedder.embed_documents(TEXTS))
    assert np.allclose([embedding.get_query_embedding(text) for text in TEXTS], queries, atol=1e-6)
    assert np.allclose(embedding.get_text_embedding_batch(TEXTS), documents, atol=1e-6)
    assert np.allclose(embedding.get_text_embedding(TEXTS[0]), documents[0], atol=1e-6)
    assert np.abs(queries - documents).max() > 1e-3
    assert isinstance(embedding.get_text_embedding("a")[0], float)
    assert asyncio.run(embedding.aget_query_embedding("red")) == embedding.get_query_embedding("red")
    assert asyncio.run(embedding.aget_text_embedding("red")) == embedding.get_text_embedding("red")


def test_asynchronous_batches_keep_their_size(embedder, monkeypatch):
    embedding = TPEmbedding.from_embedder(embedder, embed_batch_size=4)
    sizes = []
    inner = embedding.embedder
    original = inner.embed_documents
    monkeypatch.setattr(inner, "embed_documents", lambda texts: (sizes.append(len(texts)), original(texts))[1])
    got = asyncio.run(embedding.aget_text_embedding_batch(TEXTS))
    assert sorted(sizes) == [2, 4]
    assert np.allclose(got, embedding.get_text_embedding_batch(TEXTS), atol=1e-6)


def test_settings_are_public_fields_and_survive_pickling(model_folder, embedder):
    embedding = TPEmbedding(model=str(model_folder), recipe=embedder.recipe.to_dict(), dtype="float32", device="cpu")
    want = embedding.get_text_embedding("red apple")
    copy = pickle.loads(pickle.dumps(embedding))  # noqa: S301
    assert copy.to_dict() == embedding.to_dict()
    assert np.allclose(copy.get_text_embedding("red apple"), want, atol=1e-6)
    assert embedding.to_dict()["class_name"] == "TPEmbedding"
    assert TPEmbedding.from_dict(embedding.to_dict()).recipe == embedder.recipe.to_dict()
    with pytest.raises(ValueError, match="unknown"):
        TPEmbedding(unknown=1)


def test_a_fitted_embedders_folder_gives_mapped_vectors(embedder, tmp_path):
    fitted = embedder.with_recipe(embedder.recipe).fit(TEXTS)
    fitted.save(tmp_path / "fitted")
    embedding = TPEmbedding(model=str(tmp_path / "fitted"), dtype="float32", device="cpu")
    assert np.allclose(embedding.get_text_embedding_batch(TEXTS), fitted.embed_documents(TEXTS), atol=1e-6)


def test_what_is_fitted_in_memory_alone_is_not_pickled_without_its_maps(embedder, tmp_path):
    recipe = Recipe("Question: {text}", "Passage: {text}", [View(2, "mean", "center")])
    fitted = embedder.with_recipe(recipe).fit(TEXTS)
    with pytest.raises(InputError, match="save the embedder"):
        pickle.dumps(TPEmbedding.from_embedder(fitted))
    fitted.save(tmp_path / "fitted")
    kept = TPEmbedding.from_embedder(Embedder.from_pretrained(tmp_path / "fitted", dtype="float32", device="cpu"))
    copy = pickle.loads(pickle.dumps(kept))  # noqa: S301
    assert np.allclose(copy.get_text_embedding_batch(TEXTS), fitted.embed_documents(TEXTS), atol=1e-6)


def test_vectors_are_kept_in_a_cache_and_roles_apart(embedder, tmp_path, monkeypatch):
    embedding = TPEmbedding.from_embedder(embedder, cache=str(tmp_path / "vectors.sqlite"))
    query, texts = embedding.get_query_embedding(TEXTS[0]), embedding.get_text_embedding_batch(TEXTS)
    assert np.allclose(query, embedder.normalize(embedder.embed_queries(TEXTS[:1]))[0], atol=1e-6)
    monkeypatch.setattr(type(embedder), "_embed", None)  # from here on nothing can be embedded
    assert embedding.get_query_embedding(TEXTS[0]) == query
    assert embedding.get_text_embedding_batch(TEXTS) == texts
    embedding.embedder.close()


# -- the store


def test_nodes_come_back_as_they_were(store):
    (node,) = store.get_nodes(["n2"])
    want = nodes_of([{"year": 2018 + i} for i in range(6)])[2]
    assert (node.text, node.metadata, node.ref_doc_id, node.node_id) == ("red river", {"year": 2020}, "doc0", "n2")
    assert node.relationships == want.relationships
    assert [node.node_id for node in store.get_nodes()] == [f"n{i}" for i in range(6)]


def test_vectors_find_the_nearest(store):
    query = np.array(unit(99))
    cosines = np.array([unit(i) for i in range(6)]) @ query
    result = store.query(VectorStoreQuery(query_embedding=query.tolist(), similarity_top_k=4))
    assert ids(result) == [f"n{i}" for i in np.argsort(-cosines)[:4]]
    assert np.allclose(result.similarities, np.sort(cosines)[::-1][:4], atol=1e-6)
    assert [node.node_id for node in result.nodes] == ids(result)


@pytest.mark.parametrize("mode", [VectorStoreQueryMode.SPARSE, VectorStoreQueryMode.TEXT_SEARCH])
def test_words_find_by_bm25(store, mode):
    result = store.query(VectorStoreQuery(query_str="old bridge", similarity_top_k=2, mode=mode))
    assert ids(result) == ["n5", "n3"]
    assert result.similarities == [hit.score for hit in store.client.search("old bridge", 2, mode="lexical")]


@pytest.mark.parametrize("mode", [VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.SEMANTIC_HYBRID])
def test_both_are_fused_and_alpha_is_the_dense_share(store, mode):
    vector = unit(0)
    for alpha, first in ((0.0, "n5"), (1.0, "n0")):
        query = VectorStoreQuery(
            query_embedding=vector, query_str="an old bridge", alpha=alpha, similarity_top_k=6, mode=mode
        )
        assert ids(store.query(query))[0] == first
    default = VectorStoreQuery(query_embedding=vector, query_str="bridge", similarity_top_k=6, mode=mode, hybrid_top_k=3)
    want = store.client.search_by_vector(np.array(vector), 3, text="bridge")
    assert ids(store.query(default)) == [hit.document.id for hit in want]


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_mmr_begins_as_that_of_llama_index(store, threshold):
    """From the third node on LlamaIndex looks at the one before alone, we at all that were chosen."""
    query = unit(99)
    vectors, names = [unit(i) for i in range(6)], [f"n{i}" for i in range(6)]
    want = get_top_k_mmr_embeddings(query, vectors, None, 2, names, mmr_threshold=threshold)[1]
    mode = VectorStoreQueryMode.MMR
    asked = VectorStoreQuery(query_embedding=query, similarity_top_k=2, mode=mode, mmr_threshold=threshold)
    assert ids(store.query(asked)) == want
    asked.mmr_threshold = None
    assert ids(store.query(asked, mmr_threshold=threshold)) == want


def test_modes_that_fit_a_classifier_are_refused(store):
    with pytest.raises(InputError, match="mode: 'svm' must be one of default, mmr, sparse"):
        store.query(VectorStoreQuery(query_embedding=unit(0), mode=VectorStoreQueryMode.SVM))


def test_nodes_and_documents_restrict_a_query(store):
    asked = {"query_embedding": unit(99), "similarity_top_k": 6}
    assert set(ids(store.query(VectorStoreQuery(**asked, node_ids=["n1", "n4", "no"])))) == {"n1", "n4"}
    assert len(ids(store.query(VectorStoreQuery(**asked, node_ids=[], doc_ids=[])))) == 6
    assert set(ids(store.query(VectorStoreQuery(**asked, doc_ids=["doc1"])))) == {"n1", "n3", "n5"}
    late = MetadataFilters(filters=[MetadataFilter(key="year", value=2021, operator=FilterOperator.GTE)])
    assert set(ids(store.query(VectorStoreQuery(**asked, doc_ids=["doc1"], filters=late)))) == {"n3", "n5"}


def test_nodes_are_replaced_and_removed(store):
    changed = nodes_of([{"year": 1}])[0]
    changed.text = "a blue apple"
    assert store.add([changed]) == ["n0"]
    assert [node.text for node in store.get_nodes(["n0"])] == ["a blue apple"]
    assert len(store.client) == 6
    store.delete("doc1")
    assert [node.node_id for node in store.get_nodes()] == ["n2", "n4", "n0"]
    store.delete("nowhere")
    store.delete_nodes(["n2", "nowhere"])
    store.delete_nodes(filters=MetadataFilters(filters=[MetadataFilter(key="year", value=1)]))
    store.delete_nodes()
    assert [node.node_id for node in store.get_nodes()] == ["n4"]
    store.clear()
    assert store.get_nodes() == []
    assert ids(store.query(VectorStoreQuery(query_embedding=unit(0), similarity_top_k=3))) == []


async def test_asynchronous_methods_do_the_same(store):
    asked = VectorStoreQuery(query_embedding=unit(99), similarity_top_k=3)
    assert await store.aquery(asked) == store.query(asked)
    extra = TextNode(id_="extra", text="new", embedding=unit(50))
    assert await store.async_add([extra]) == ["extra"]
    assert [node.text for node in await store.aget_nodes(["extra"])] == ["new"]
    await store.adelete_nodes(["extra"])
    await store.adelete("doc0")
    assert len(await store.aget_nodes()) == 3
    await store.aclear()
    assert await store.aget_nodes() == []


def test_a_store_is_made_by_its_first_node_and_opens_again(tmp_path):
    store = TPVectorStore(tmp_path / "s", kind="hnsw")
    assert store.client is None
    assert store.get_nodes() == []
    assert store.add([]) == []
    assert ids(store.query(VectorStoreQuery(query_embedding=unit(0)))) == []
    store.delete("doc0")
    store.clear()
    store.add(nodes_of([{}, {}]))
    assert store.client.info().kind == "hnsw"
    store.persist()
    store.close()
    again = TPVectorStore(tmp_path / "s")
    assert [node.node_id for node in again.get_nodes()] == ["n0", "n1"]
    with pytest.raises(InputError, match="shape"):
        again.add([TextNode(text="x", embedding=[1.0, 2.0])])
    again.close()
    with pytest.raises(IncompatibleIndexError, match=r"was made by llama-index::8, asked to hold llama-index:\w+"):
        TPVectorStore(tmp_path / "s", MockEmbedding(8)).get_nodes()


# -- filters

KEYS = ["a", "b", "c"]
SCALARS = st.sampled_from([0, 1, 2, 1.5, "x", "xy", "Xy", ""])
METADATA = st.dictionaries(
    st.sampled_from(KEYS), st.none() | SCALARS | st.lists(st.sampled_from(["x", "xy", "z"]), max_size=2)
)
STRINGS = st.sampled_from(["x", "xy", "Y", ""])
FILTERS = st.one_of(
    st.builds(
        MetadataFilter,
        key=st.sampled_from(KEYS),
        value=st.sampled_from([0, 1, 2, 1.5, "x", "xy"]),
        operator=st.sampled_from([FilterOperator.EQ, FilterOperator.NE]),
    ),
    st.builds(
        MetadataFilter,
        key=st.sampled_from(KEYS),
        value=st.lists(st.sampled_from(["x", "xy", ""]), max_size=2) | st.lists(st.integers(0, 2), max_size=2),
        operator=st.sampled_from([FilterOperator.IN, FilterOperator.NIN]),
    ),
    st.builds(
        MetadataFilter,
        key=st.sampled_from(KEYS),
        value=st.sampled_from([0, 1, 1.5, "x", "xy"]),
        operator=st.sampled_from([FilterOperator.GT, FilterOperator.GTE, FilterOperator.LT, FilterOperator.LTE]),
    ),
    st.builds(
        MetadataFilter,
        key=st.sampled_from(KEYS),
        value=STRINGS,
        operator=st.sampled_from(
            [FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE, FilterOperator.CONTAINS]
        ),
    ),
    st.builds(
        MetadataFilter,
        key=st.sampled_from(KEYS),
        value=st.lists(STRINGS, max_size=2),
        operator=st.sampled_from([FilterOperator.ANY, FilterOperator.ALL]),
    ),
    st.builds(MetadataFilter, key=st.sampled_from(KEYS), value=st.none(), operator=st.just(FilterOperator.IS_EMPTY)),
)
CONDITIONS = st.sampled_from(list(FilterCondition))
NESTED = st.builds(MetadataFilters, filters=st.lists(FILTERS, min_size=1, max_size=2), condition=CONDITIONS)


def fits(metadata, filter):
    """LlamaIndex's own evaluator; where it raises because types differ, nothing fits."""
    if isinstance(filter, MetadataFilters):
        found = [fits(metadata, part) for part in filter.filters]
        joined = {FilterCondition.AND: all, FilterCondition.OR: any, FilterCondition.NOT: lambda one: not any(one)}
        return joined[filter.condition](found)
    try:
        return build_metadata_filter_fn(lambda _: metadata, MetadataFilters(filters=[filter]))("")
    except TypeError:
        return False


@pytest.fixture(scope="module")
def emptied(tmp_path_factory):
    made = TPVectorStore(tmp_path_factory.mktemp("filters") / "store")
    yield made
    made.close()


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(METADATA, min_size=1, max_size=5), st.lists(FILTERS | NESTED, min_size=1, max_size=3), CONDITIONS)
def test_filters_mean_what_llama_index_means(emptied, metadata, parts, condition):
    emptied.clear()
    emptied.add(nodes_of(metadata))
    filters = MetadataFilters(filters=parts, condition=condition)
    want = {f"n{i}" for i, one in enumerate(metadata) if fits(one, filters)}
    asked = VectorStoreQuery(query_embedding=unit(99), similarity_top_k=10, filters=filters)
    assert set(ids(emptied.query(asked))) == want
    assert {node.node_id for node in emptied.get_nodes(filters=filters)} == want


def test_every_operator_is_known(store):
    for operator, condition in itertools.product(FilterOperator, FilterCondition):
        listed = operator in (FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL)
        one = MetadataFilter(key="year", value=["x"] if listed else "x", operator=operator)
        got = {node.node_id for node in store.get_nodes(filters=MetadataFilters(filters=[one], condition=condition))}
        keeps = fits({"year": 2018}, MetadataFilters(filters=[one], condition=condition))
        assert got == ({f"n{i}" for i in range(6)} if keeps else set()), operator


# -- as part of LlamaIndex


def test_a_vector_store_index_retrieves_and_answers(embedder, tmp_path):
    embedding = TPEmbedding.from_embedder(embedder)
    store = TPVectorStore(tmp_path / "s", embedding)
    context = StorageContext.from_defaults(vector_store=store)
    VectorStoreIndex.from_documents(
        [Document(text=text, metadata={"n": i}) for i, text in enumerate(TEXTS)],
        storage_context=context,
        embed_model=embedding,
    )
    index = VectorStoreIndex.from_vector_store(store, embed_model=embedding)
    query = embedder.normalize(embedder.embed_queries(["an old stone"]))[0]
    cosines = embedder.normalize(embedder.embed_documents([f"n: {i}\n\n{t}" for i, t in enumerate(TEXTS)])) @ query
    found = index.as_retriever(similarity_top_k=3).retrieve("an old stone")
    assert [node.metadata["n"] for node in found] == list(np.argsort(-cosines)[:3])
    assert np.allclose([node.score for node in found], np.sort(cosines)[::-1][:3], atol=1e-5)
    hybrid = index.as_retriever(similarity_top_k=2, vector_store_query_mode="hybrid", alpha=0.0).retrieve("old bridge")
    assert hybrid[0].text == "an old bridge"
    answer = index.as_query_engine(llm=MockLLM(), similarity_top_k=1).query("old stone")
    assert TEXTS[answer.source_nodes[0].metadata["n"]] in str(answer)
    store.close()
    with Index.open(tmp_path / "s") as opened:
        assert opened.search("an old stone", 1, mode="dense")[0].document.text == found[0].text
        opened.add([OurDocument("a text of its own", {"n": 7}, "own")])
    again = TPVectorStore(tmp_path / "s", embedding)
    (node,) = again.get_nodes(["own"])
    assert (node.text, node.metadata, node.node_id) == ("a text of its own", {"n": 7}, "own")
    again.close()


class Counting(BaseEmbedding):
    """Say how often it was asked."""

    asked: int = 0

    def _get_text_embedding(self, text):
        self.asked += 1
        return unit(len(text))

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query):
        return self._get_query_embedding(query)


def test_a_pipeline_caches_what_it_embedded(embedder, tmp_path):
    embedding = TPEmbedding.from_embedder(embedder)
    documents = [Document(text=text, id_=text) for text in TEXTS]
    store = TPVectorStore(tmp_path / "s", embedding)
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=64, chunk_overlap=0), embedding],
        vector_store=store,
        cache=IngestionCache(),
    )
    first = pipeline.run(documents=documents)
    assert len(store.client) == 6
    again = pipeline.run(documents=documents)
    assert [node.embedding for node in again] == [node.embedding for node in first]
    other = TPEmbedding.from_embedder(embedder.with_recipe("prompteol"))
    pipeline.transformations[-1] = other
    changed = pipeline.run(documents=documents)
    assert changed[0].embedding != first[0].embedding
    store.close()


@pytest.mark.slow
def test_a_pipeline_runs_in_two_workers(embedder, model_folder):
    embedding = TPEmbedding(model=str(model_folder), recipe=embedder.recipe.to_dict(), dtype="float32", device="cpu")
    pipeline = IngestionPipeline(transformations=[embedding])  # its own splitter can't be pickled without a network
    nodes = pipeline.run(nodes=[TextNode(text=text) for text in TEXTS], num_workers=2)
    vectors = {node.text: node.embedding for node in nodes}
    assert np.allclose([vectors[text] for text in TEXTS], embedding.get_text_embedding_batch(TEXTS), atol=1e-6)


def test_a_store_fits_the_within_document_map_though_llama_index_passes_vectors_alone(embedder, tmp_path):
    views = [View(2, "mean", "within:8"), View(4, "last", "within:8")]
    embedding = TPEmbedding.from_embedder(embedder.with_recipe(Recipe("question: {text}", "passage: {text}", views)))
    pairs = enumerate(itertools.product(TEXTS, TEXTS))
    texts = [f"{first} {i} and then {second} once more" for i, (first, second) in pairs]
    store = TPVectorStore(tmp_path / "store", embed_model=embedding)
    for begin in range(0, len(texts), 5):
        nodes = [TextNode(text=text, embedding=embedding.get_text_embedding(text)) for text in texts[begin : begin + 5]]
        store.add(nodes)
    info = store.client.info()
    assert (info.fitted, info.unread) == (("within:8", "within:8"), 0)
    store.close()


# -- reranking


def scored():
    return [NodeWithScore(node=TextNode(text=text, id_=str(i)), score=1 - i / 10) for i, text in enumerate(TEXTS)]


def test_reranking_keeps_the_first_and_tells_of_it(embedder):
    reranker = Reranker(embedder, weight=1.0)
    events = []

    class Listener(BaseEventHandler):
        def handle(self, event, **kwargs):
            events.append(type(event).__name__)

    dispatcher = get_dispatcher()
    dispatcher.add_event_handler(Listener())
    try:
        got = TPRerank(reranker=reranker, top_n=3, keep_retrieval_score=True).postprocess_nodes(
            scored(), QueryBundle("old bridge")
        )
    finally:
        dispatcher.event_handlers.pop()
    assert [event for event in events if event.startswith("ReRank")] == ["ReRankStartEvent", "ReRankEndEvent"]
    order = np.argsort(-reranker.score("old bridge", TEXTS))[:3]
    assert [int(node.node_id) for node in got] == list(order)
    assert [node.score for node in got] == sorted((node.score for node in got), reverse=True)
    assert [node.metadata["retrieval_score"] for node in got] == [1 - i / 10 for i in order]


def test_reranking_changes_nothing_it_was_given(embedder):
    nodes = scored()
    TPRerank(reranker=Reranker(embedder), top_n=6, keep_retrieval_score=True).postprocess_nodes(nodes, query_str="bridge")
    assert nodes == scored()
    same = TPRerank(reranker=Reranker(embedder, weight=0.0), top_n=6).postprocess_nodes(nodes, query_str="bridge")
    assert [node.node_id for node in same] == [node.node_id for node in nodes]
    assert asyncio.run(TPRerank(reranker=Reranker(embedder)).apostprocess_nodes(nodes, query_str="bridge")) == TPRerank(
        reranker=Reranker(embedder)
    ).postprocess_nodes(nodes, query_str="bridge")
    with pytest.raises(InputError, match="needs the query"):
        TPRerank(reranker=Reranker(embedder)).postprocess_nodes(nodes)


def test_where_a_score_is_missing_the_order_counts(embedder):
    nodes = scored()
    nodes[2].score = None
    kept = TPRerank(reranker=Reranker(embedder, weight=0.0), top_n=6).postprocess_nodes(nodes, query_str="bridge")
    assert [node.node_id for node in kept] == [str(i) for i in range(6)]


def test_without_llama_index_the_pip_line_is_shown(without):
    without("llama_index.core", "tp_retrieval.integrations.llama_index")
    with pytest.raises(OptionalDependencyError, match=r"pip install 'tp-retrieval\[llama-index\]'"):
        import tp_retrieval.integrations.llama_index  # noqa: F401
