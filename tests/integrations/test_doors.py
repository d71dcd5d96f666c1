"""An index opens through every door, whichever one made it: the same hits and scores, with an embedder given or without."""

import io
import json
import pickle
import shutil
import subprocess
import sys
from contextlib import closing, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

from tests.langchain_faiss import save_local
from tp_retrieval import CachedEmbedder, Document, Embedder, Index, IndexNotFoundError, InputError, Recipe
from tp_retrieval.cli import main as command
from tp_retrieval.embedding.normalized import UnitEmbedder, scaled
from tp_retrieval.embedding.recipe import View
from tp_retrieval.integrations.langchain import TPEmbeddings, TPVectorStore
from tp_retrieval.integrations.llama_index import TPEmbedding
from tp_retrieval.integrations.llama_index import TPVectorStore as LlamaStore
from tp_retrieval.integrations.parquet import Shard, ShardOrigin, write_shard
from tp_retrieval.integrations.server import Settings, create_app

RECIPE = Recipe("Question: {text}", "Passage: {text}", [View(1, "mean", "center"), View(2, "last", "center", 2.0)])
"""Two views and maps with a mean, so that it matters whether vectors are of unit length."""

TEXTS = [
    f"The {thing} {deed} {i}." for i in range(8) for thing in ("dog", "river", "bread") for deed in ("is", "was", "ate")
]
IDS = [f"id{i}" for i in range(len(TEXTS))]
METADATA = [{"n": i} for i in range(len(TEXTS))]
QUERY, NEW, K = "the river is green", "The river is green again.", 5

pytestmark = pytest.mark.usefixtures("closed_loop")


@pytest.fixture(scope="session")
def model(tiny_folder):
    return tiny_folder("llama")


@pytest.fixture(scope="session")
def embedder(model):
    return Embedder.from_pretrained(model, recipe=RECIPE, dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def recipe(tmp_path_factory):
    file = tmp_path_factory.mktemp("recipe") / "recipe.json"
    file.write_text(RECIPE.to_json())
    return file


def run(*arguments):
    """Run a command of the command line, and return what it wrote."""
    written = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(written):
        patch.setattr("tp_retrieval.embedding.model.source._hub_has_an_address", lambda: False)
        patch.setattr(sys, "argv", ["tp-retrieval", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            command.main()
    assert not stop.value.code, written.getvalue()
    return written.getvalue()


# -- makers: each writes an index of the same documents


def documents():
    return [Document(*row) for row in zip(TEXTS, METADATA, IDS, strict=True)]


def unit_vectors(embedder):
    return UnitEmbedder.of(embedder).embed_documents(TEXTS)


def written(folder):
    """Write the documents as a file that commands read."""
    corpus = folder / "corpus.jsonl"
    rows = [{"id": id_, "text": text, **fields} for text, fields, id_ in zip(TEXTS, METADATA, IDS, strict=True)]
    corpus.write_text("\n".join(map(json.dumps, rows)))
    return corpus


def by_command(path, embedder, recipe, folder):
    loading = ["--model", embedder.provenance.source, "--recipe", recipe, "--device", "cpu", "--dtype", "float32"]
    run("index", written(folder), "--into", path, *loading)


def by_python(path, embedder, recipe, folder):
    with Index.create(path, embedder) as index:
        index.add(documents())


def by_python_with_unit_vectors(path, embedder, recipe, folder):
    with Index.create(path, UnitEmbedder.of(embedder)) as index:
        index.add(documents())


def by_python_with_a_cache(path, embedder, recipe, folder):
    with CachedEmbedder(embedder, folder / "cache.sqlite") as cached, Index.create(path, cached) as index:
        index.add(documents())


def by_langchain(path, embedder, recipe, folder):
    TPVectorStore.from_texts(TEXTS, TPEmbeddings.from_embedder(embedder), METADATA, ids=IDS, path=path).close()


def by_langchain_with_vectors(path, embedder, recipe, folder):
    pairs = zip(TEXTS, unit_vectors(embedder).tolist(), strict=True)
    TPVectorStore.from_embeddings(pairs, TPEmbeddings.from_embedder(embedder), METADATA, ids=IDS, path=path).close()


def by_langchain_of_faiss(path, embedder, recipe, folder):
    with pytest.MonkeyPatch.context() as patch:
        save_local(folder / "faiss", TEXTS, unit_vectors(embedder), patch)
    embeddings = TPEmbeddings.from_embedder(embedder)
    TPVectorStore.from_faiss(folder / "faiss", embeddings, path=path, trust_pickle=True).close()


def by_llama_index(path, embedder, recipe, folder):
    embedding = TPEmbedding.from_embedder(embedder)
    nodes = [TextNode(text=text, metadata=fields, id_=id_) for text, fields, id_ in zip(TEXTS, METADATA, IDS, strict=True)]
    with closing(LlamaStore(path, embedding)) as store:
        VectorStoreIndex(nodes, storage_context=StorageContext.from_defaults(vector_store=store), embed_model=embedding)


def by_parquet(path, embedder, recipe, folder):
    shard = Shard(documents(), embedder.embed_documents(TEXTS), ShardOrigin.of(embedder))
    (folder / "shards").mkdir()
    write_shard(folder / "shards" / "shard-00000.parquet", shard)
    run("index", "--from-parquet", folder / "shards", "--into", path)


def by_ray(path, embedder, recipe, folder):
    loading = ["--model", embedder.provenance.source, "--recipe", recipe, "--device", "cpu", "--dtype", "float32"]
    embed = ["embed-corpus", written(folder), "--into", folder / "shards", "--workers", 1, *loading]
    program = Path(sys.executable).with_name("tp-retrieval")  # a process of its own, since Ray opens sockets
    subprocess.run([program, *map(str, embed)], check=True, capture_output=True)
    run("index", "--from-parquet", folder / "shards", "--into", path)


def by_import_faiss(path, embedder, recipe, folder):
    with pytest.MonkeyPatch.context() as patch:
        save_local(folder / "faiss", TEXTS, unit_vectors(embedder), patch)
    name = UnitEmbedder.of(embedder).fingerprint
    run("import-faiss", folder / "faiss", "--into", path, "--embedder", name, "--trust-pickle")


def by_server(path, embedder, recipe, folder):
    app = create_app(embedder, settings=Settings(method=None, data=path.parent), allowed_hosts=["testserver"])
    rows = [{"text": text, "id": id_, "metadata": fields} for text, fields, id_ in zip(TEXTS, METADATA, IDS, strict=True)]
    with TestClient(app) as client:
        assert client.post("/v1/indexes", json={"name": path.name}).status_code == 201
        assert client.post(f"/v1/indexes/{path.name}/documents", json={"documents": rows}).status_code == 200


MAKERS = {
    "command line": by_command,
    "Index": by_python,
    "Index, unit vectors": by_python_with_unit_vectors,
    "Index, cache": by_python_with_a_cache,
    "LangChain": by_langchain,
    "LangChain, vectors": by_langchain_with_vectors,
    "LangChain, from_faiss": by_langchain_of_faiss,
    "LlamaIndex": by_llama_index,
    "Parquet": by_parquet,
    "Ray": by_ray,
    "server, documents": by_server,
    "import-faiss": by_import_faiss,
}
_NAMELESS = "import-faiss"
"""The maker of an index that names no model: its vectors come from elsewhere."""


@pytest.fixture(scope="session")
def made(embedder, recipe, tmp_path_factory):
    """Return a copy of the index that a maker made, and what `Index.search` finds in it."""
    originals = {}

    def copy(maker, path):
        if maker not in originals:
            folder = tmp_path_factory.mktemp("made")
            MAKERS[maker](folder / "index", embedder, recipe, folder)
            given = UnitEmbedder.of(embedder) if maker == _NAMELESS else None
            with Index.open(folder / "index", given) as index:
                assert index.info().fitted == (() if maker == _NAMELESS else ("center", "center"))
                originals[maker] = folder / "index", hits_of(index)
        shutil.copytree(originals[maker][0], path)
        return originals[maker][1]

    return copy


# -- openers: each yields rows (id, text, n, score) of a dense search


def hits_of(index, k=K):
    hits = index.search(QUERY, k, mode="dense")
    return [rows_of(hit.document.id, hit.document.text, hit.document.metadata, hit.score) for hit in hits]


def rows_of(id_, text, metadata, score):
    return id_, text, metadata["n"], pytest.approx(score, abs=2e-5)


def in_python(path, embedder, k=K):
    with Index.open(path, embedder) as index:
        return hits_of(index, k)


def in_python_with_unit_vectors(path, embedder):
    return in_python(path, UnitEmbedder.of(embedder))


def in_python_with_a_cache(path, embedder):
    with CachedEmbedder(embedder, path.parent / "opening.sqlite") as cached:
        return in_python(path, cached)


def in_command(path, embedder):
    found = json.loads(run("search", path, QUERY, "-k", K, "--mode", "dense", "--json"))
    return [rows_of(hit["id"], hit["text"], hit["metadata"], hit["score"]) for hit in found["hits"]]


def in_langchain(path, embedder):
    given = None if embedder is None else TPEmbeddings.from_embedder(embedder)
    with closing(TPVectorStore.open(path, given)) as store:
        found = store.similarity_search_with_score(QUERY, K)
        vector = store.embeddings.embed_query(QUERY)
        assert [d.id for d in store.similarity_search_by_vector(vector, K)] == [d.id for d, _ in found]
        by_vector = [score for _, score in store.similarity_search_with_score_by_vector(vector, K)]
        assert by_vector == pytest.approx([score for _, score in found], abs=2e-5)
    return [rows_of(d.id, d.page_content, d.metadata, score) for d, score in found]


def in_llama_index(path, embedder):
    given = None if embedder is None else TPEmbedding.from_embedder(embedder)
    with closing(LlamaStore(path, given)) as store:
        index = VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model)
        retriever = index.as_retriever(similarity_top_k=K, vector_store_query_mode=VectorStoreQueryMode.DEFAULT)
        found = retriever.retrieve(QUERY)
    return [rows_of(node.node_id, node.text, node.metadata, node.score) for node in found]


def in_server(path, embedder, other=None):
    app = create_app(embedder or other, {"index": path}, settings=Settings(method=None), allowed_hosts=["testserver"])
    with TestClient(app) as client:
        answer = client.post("/v1/search", json={"query": QUERY, "k": K, "mode": "dense"})
    if answer.status_code != 200:
        raise InputError(answer.text)
    return [rows_of(hit["id"], hit["text"], hit["metadata"], hit["score"]) for hit in answer.json()["hits"]]


@pytest.fixture(scope="session")
def in_server_of_another_recipe(embedder):
    """A server whose model's recipe is not that of the index."""
    return lambda path, _: in_server(path, None, embedder.with_recipe("prompteol"))


OPENERS = {  # whether an embedder is given
    "command line": (in_command, False),
    "Index": (in_python, False),
    "Index, embedder": (in_python, True),
    "Index, unit vectors": (in_python_with_unit_vectors, True),
    "Index, cache": (in_python_with_a_cache, True),
    "LangChain": (in_langchain, False),
    "LangChain, embedding": (in_langchain, True),
    "LlamaIndex": (in_llama_index, False),
    "LlamaIndex, embed_model": (in_llama_index, True),
    "server": ("in_server_of_another_recipe", False),
    "server, embedder": (in_server, True),
}
_ALIKE = {"Ray", "Index, cache", "LangChain, vectors", "LangChain, from_faiss"}


def is_slow(maker, opener):
    """Return whether a pair is left to the slow tests: it is much like another, or loads the model once more."""
    loads = not OPENERS[opener][1] and maker not in ("command line", "LlamaIndex")
    return loads or bool(_ALIKE & {maker, opener})


PAIRS = [
    pytest.param(maker, opener, id=f"{maker} -> {opener}", marks=[pytest.mark.slow] if is_slow(maker, opener) else [])
    for maker in MAKERS
    for opener, (_, is_given) in OPENERS.items()
    if is_given or maker != _NAMELESS
]


@pytest.mark.parametrize(("maker", "opener"), PAIRS)
def test_every_door_finds_the_same(maker, opener, made, embedder, tmp_path, request):
    want = made(maker, tmp_path / "index")
    assert len(want) == K
    door, is_given = OPENERS[opener]
    open_ = request.getfixturevalue(door) if isinstance(door, str) else door
    assert open_(tmp_path / "index", embedder if is_given else None) == want


def test_an_index_that_names_no_model_is_searched_by_words_and_vectors(made, embedder, tmp_path):
    path = tmp_path / "index"
    nearest = [row[0] for row in made(_NAMELESS, path)]
    query = UnitEmbedder.of(embedder).embed_queries([QUERY])[0]
    with Index.open(path) as index:
        want = [hit.document.id for hit in index.search("bread", 3, mode="lexical")]
        assert [hit.document.id for hit in index.search_by_vector(query, K)] == nearest
        with pytest.raises(InputError, match=r"give it to Index\.open"):
            index.search(QUERY)
    found = json.loads(run("search", path, "bread", "-k", 3, "--mode", "lexical", "--json"))
    assert [hit["id"] for hit in found["hits"]] == want
    with closing(TPVectorStore.open(path)) as store:
        assert store.embeddings is None
        assert [d.id for d in store.similarity_search("bread", 3, mode="lexical")] == want
        assert [d.id for d in store.similarity_search_by_vector(query.tolist(), K)] == nearest
    with closing(LlamaStore(path)) as store:
        assert store.embed_model is None
        words = VectorStoreQuery(query_str="bread", similarity_top_k=3, mode=VectorStoreQueryMode.TEXT_SEARCH)
        assert store.query(words).ids == want
        assert store.query(VectorStoreQuery(query_embedding=query.tolist(), similarity_top_k=K)).ids == nearest
    app = create_app(
        embedder.with_recipe("mean"), {"i": path}, settings=Settings(method=None), allowed_hosts=["testserver"]
    )
    with TestClient(app) as client:
        answer = client.post("/v1/search", json={"query": "bread", "k": 3, "mode": "lexical"}).json()
        assert [hit["id"] for hit in answer["hits"]] == want
        assert client.post("/v1/search", json={"query": QUERY, "k": 3}).status_code == 400


# -- adding through another door


def add_in_python(path, embedder):
    with Index.open(path, embedder) as index:
        index.add([Document(NEW, {"n": -1}, "new")])


def add_raw_vectors_in_python(path, embedder):
    with Index.open(path) as index:
        vectors = embedder.embed_documents([NEW])
        index.add_vectors([Document(NEW, {"n": -1}, "new")], vectors, fingerprint=embedder.fingerprint)


def add_in_command(path, embedder):
    file = path.parent / "new.jsonl"
    file.write_text(json.dumps({"id": "new", "text": NEW, "n": -1}))
    run("index", file, "--into", path)


def add_in_langchain(path, embedder):
    given = None if embedder is None else TPEmbeddings.from_embedder(embedder)
    with closing(TPVectorStore.open(path, given)) as store:
        assert store.add_texts([NEW], [{"n": -1}], ids=["new"]) == ["new"]


def add_vectors_in_langchain(path, embedder):
    given = TPEmbeddings.from_embedder(embedder)
    with closing(TPVectorStore.open(path, given)) as store:
        store.add_embeddings(zip([NEW], given.embed_documents([NEW]), strict=True), [{"n": -1}], ids=["new"])


def add_in_llama_index(path, embedder):
    given = None if embedder is None else TPEmbedding.from_embedder(embedder)
    with closing(LlamaStore(path, given)) as store:
        index = VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model)
        index.insert_nodes([TextNode(text=NEW, metadata={"n": -1}, id_="new", excluded_embed_metadata_keys=["n"])])


ADDING = [
    (add_in_python, True),
    (add_raw_vectors_in_python, True),
    (add_in_command, False),
    (add_in_langchain, True),
    (add_in_langchain, False),
    (add_vectors_in_langchain, True),
    (add_in_llama_index, True),
    (add_in_llama_index, False),
]
ADDITIONS = [
    pytest.param(maker, *row, marks=[] if row[1] or maker == "command line" else [pytest.mark.slow])
    for maker in ("command line", "LangChain")
    for row in ADDING
]


@pytest.mark.parametrize(("maker", "add", "is_given"), ADDITIONS)
def test_what_is_added_through_another_door_is_found_as_if_added_by_the_first(
    maker, add, is_given, made, embedder, tmp_path
):
    made(maker, tmp_path / "one")
    made(maker, tmp_path / "two")
    add_in_python(tmp_path / "one", embedder)
    add(tmp_path / "two", embedder if is_given else None)
    want = in_python(tmp_path / "one", embedder, len(TEXTS) + 1)
    assert ("new", NEW, -1) in [row[:3] for row in want]
    assert in_python(tmp_path / "two", embedder, len(TEXTS) + 1) == want


def test_nodes_are_embedded_with_their_metadata_at_every_length(made, embedder, tmp_path):
    node = TextNode(text=NEW, metadata={"n": -1, "title": "bread"}, id_="new")
    for maker in ("Index", "LlamaIndex"):
        made(maker, tmp_path / maker)
        with closing(LlamaStore(tmp_path / maker, TPEmbedding.from_embedder(embedder))) as store:
            VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model).insert_nodes([node])
        with Index.open(tmp_path / maker, embedder) as index:
            query = embedder.embed_documents(["n: -1\ntitle: bread\n\n" + NEW])[0]
            (best,) = index.search_by_vector(query, 1)
        assert (best.document.id, best.score) == ("new", pytest.approx(1, abs=1e-5))


# -- views of unit length


def cosines_of(queries, rows, widths_and_weights):
    """Return cosines of centred views, weighted, by numpy alone."""
    begin, total = 0, np.zeros(len(rows))
    for width, weight in widths_and_weights:
        mean = rows[:, begin : begin + width].mean(axis=0)
        query, documents_ = (part[:, begin : begin + width] - mean for part in (queries, rows))
        total += weight * (documents_ @ query[0]) / np.linalg.norm(documents_, axis=1) / np.linalg.norm(query)
        begin += width
    return total


def test_unit_length_matters_where_a_mean_is_subtracted(embedder):
    """Why vectors of unit length are refused by an index that maps others."""
    views = [(32, 1 / 3), (32, 2 / 3)]
    raw = cosines_of(embedder.embed_queries([QUERY]), embedder.embed_documents(TEXTS), views)
    mixed = cosines_of(UnitEmbedder.of(embedder).embed_queries([QUERY]), embedder.embed_documents(TEXTS), views)
    assert np.abs(raw - mixed).max() > 0.1


def test_a_vector_of_unit_length_is_refused_where_the_index_maps_others(embedder, made, tmp_path):
    want = made("Index", tmp_path / "index")
    embeddings = TPEmbeddings.from_embedder(embedder)
    with closing(TPVectorStore.open(tmp_path / "index", embeddings)) as store:
        with pytest.raises(InputError, match=r"of unit length.*the store's own `embeddings`"):
            store.similarity_search_by_vector(embeddings.embed_query(QUERY))
        assert not store.embeddings.normalize
        found = store.similarity_search_with_score_by_vector(store.embeddings.embed_query(QUERY), K)
        assert [rows_of(d.id, d.page_content, d.metadata, score) for d, score in found] == want
    with (
        closing(LlamaStore(tmp_path / "index", TPEmbedding.from_embedder(embedder))) as store,
        pytest.raises(InputError, match=r"of unit length.*give query_str"),
    ):
        store.query(VectorStoreQuery(query_embedding=embeddings.embed_query(QUERY)))


def test_without_maps_unit_length_is_of_no_matter(embedder, tmp_path):
    plain = embedder.with_recipe(
        Recipe("Question: {text}", "Passage: {text}", [View(1, "mean"), View(2, "last", weight=2.0)])
    )
    with Index.create(tmp_path / "index", plain) as index:
        index.add(documents())
        want = index.search(QUERY, K, mode="dense")
    embeddings = TPEmbeddings.from_embedder(plain)
    with closing(TPVectorStore.open(tmp_path / "index", embeddings)) as store:
        assert store.embeddings is embeddings
        found = store.similarity_search_with_score_by_vector(embeddings.embed_query(QUERY), K)
        assert [(d.id, pytest.approx(score, abs=1e-5)) for d, score in found] == [(h.document.id, h.score) for h in want]


def test_raw_vectors_find_the_same_in_an_index_of_unit_ones(embedder, made, tmp_path):
    want = made("Index, unit vectors", tmp_path / "index")
    with Index.open(tmp_path / "index") as index:
        hits = index.search_by_vector(embedder.embed_queries([QUERY])[0], K)
    assert [rows_of(hit.document.id, hit.document.text, hit.document.metadata, hit.score) for hit in hits] == want


def test_scaling_is_no_copy_and_a_fitted_embedder_stays(embedder):
    unit = scaled(embedder, unit=True)
    assert unit.backbone is embedder.backbone
    assert scaled(unit, unit=True) is unit
    assert scaled(unit, unit=False).fingerprint == embedder.fingerprint
    fitted = embedder.fit(TEXTS)
    assert scaled(fitted, unit=True) is fitted


# -- without an index, and without loading


def test_a_store_without_an_index_and_an_embedding_says_what_to_give(tmp_path):
    with pytest.raises(IndexNotFoundError, match=r"no index at .*; give `embedding`"):
        TPVectorStore.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    assert LlamaStore(tmp_path / "nowhere").embed_model is None


def test_the_model_is_loaded_when_a_text_is_embedded(made, tmp_path, monkeypatch):
    made("Index", tmp_path / "index")
    monkeypatch.setattr(Embedder, "from_pretrained", None)
    with closing(TPVectorStore.open(tmp_path / "index")) as store:
        assert store.as_retriever().tags == ["TPVectorStore", "TPEmbeddings"]
        assert store.similarity_search("bread", mode="lexical")
        with pytest.raises(TypeError):
            store.embeddings.embed_query("bread")
    with closing(LlamaStore(tmp_path / "index")) as store, closing(pickle.loads(pickle.dumps(store))) as again:  # noqa: S301
        words = VectorStoreQuery(query_str="bread", mode=VectorStoreQueryMode.TEXT_SEARCH)
        assert store.query(words).ids == again.query(words).ids != []
        assert store.embed_model.recipe == again.embed_model.recipe == RECIPE.to_dict()


def test_a_store_that_was_closed_opens_again_with_its_model(made, embedder, tmp_path):
    made("LlamaIndex", tmp_path / "index")
    store = LlamaStore(tmp_path / "index")
    store.close()
    assert len(store.client) == len(TEXTS)
    want = UnitEmbedder.of(embedder).embed_queries([QUERY])[0]
    assert np.allclose(store.embed_model.get_query_embedding(QUERY), want, atol=1e-5)
    store.close()
